"""Programs that run on a box: their text is sent there with each call, nothing is installed.

They need Python 3.10 (Ubuntu 22.04) and its standard library alone, and import each other only.
"""

AGENT = ("files", "proc", "store", "pruning", "tmux", "reading", "agent")
RUNNER = ("files", "proc", "store", "memory", "logfile", "command", "runner")
SEALING = (
    "files", "programs", "patterns", "units", "observe", "drift", "sealing", "making",
)  # fmt: skip
