"""Whether a job failed for want of memory: the kernel and the memory guard end processes then."""

import contextlib
import os
import re
import signal
import subprocess

# earlyoom's words, from 1.3 (Debian 11) to 1.8 (Debian 13).
GUARD = re.compile(r'sending SIG\w+ to process (\d+) uid (\d+) "([^"\n]*)"')


def oom_kills() -> int:
    """How many processes the kernel has ended for want of memory since it booted."""
    try:
        with open("/proc/vmstat", encoding="ascii") as file:
            return next((int(s.split()[1]) for s in file if s.startswith("oom_kill ")), 0)
    except OSError:
        return 0


def cause(command: int, start: float, kills: int, number: int | None) -> str | None:
    """Why a command failed, where that may be for want of memory.

    The guard's journal is read by those whom the box lets (groups adm, systemd-journal).

    Args:
        command: its process.
        start: when it began, in seconds since 1970.
        kills: ``oom_kills()`` at that time.
        number: the signal that ended it; None where it ended by itself.
    """
    by_kernel = oom_kills() > kills
    if by_kernel and number == signal.SIGKILL:
        return "the box ran out of memory"
    ended = guard_ended(start)
    if command in ended:
        return "the memory guard ended it: the box was running out of memory"
    if ended:
        names = ", ".join(sorted(set(ended.values())))
        return f"the memory guard ended {names} meanwhile: the box was running out of memory"
    if by_kernel:
        return "the kernel ended something meanwhile: the box ran out of memory"
    return None


def guard_ended(since: float) -> dict[int, str]:
    """The processes of ours that the guard has ended since a time, with their names."""
    argv = [
        "journalctl",
        "-q",
        "--no-pager",
        "-o",
        "cat",
        "-u",
        "earlyoom",
        f"--since=@{int(since)}",
    ]
    said = ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(argv, capture_output=True, timeout=10, check=False)
        said = done.stdout.decode("utf-8", "replace")
    return {int(p): name for p, uid, name in GUARD.findall(said) if int(uid) == os.getuid()}
