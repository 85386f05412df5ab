"""Programs that run on a box: their text is sent there with each call, nothing is installed.

They need Python 3.10 (Ubuntu 22.04) and its standard library alone, and import each other only.
"""

from pathlib import Path

AGENT = ("files", "proc", "store", "pruning", "tmux", "reading", "agent")
RUNNER = ("files", "proc", "store", "memory", "logfile", "command", "runner")
SEALING = (
    "files", "programs", "patterns", "units", "observe", "drift", "sealing", "making",
)  # fmt: skip


def text(name: str) -> str:
    """The text of one of the files here."""
    return (Path(__file__).parent / name).read_text("utf-8")
