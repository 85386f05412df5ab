"""This user's processes, as the system lists them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from roost import process


def ssh_processes(pids: list[int] | None = None) -> Iterator[tuple[int, list[str]]]:
    """Our user's ssh processes with their arguments: all of them, or those among ``pids``."""
    for pid, argv in processes(pids):
        if Path(argv[0]).name == "ssh":
            yield pid, argv


def processes(pids: list[int] | None = None) -> Iterator[tuple[int, list[str]]]:
    """Our user's processes with their arguments: all of them, or those among ``pids``."""
    if not Path("/proc/self/cmdline").exists():
        yield from _by_ps(pids)
        return
    numbers = pids or [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
    for pid in numbers:
        try:
            folder = Path(f"/proc/{pid}")
            raw = folder.joinpath("cmdline").read_bytes()
            if folder.stat().st_uid != os.getuid():
                continue
        except OSError:
            continue
        yield pid, raw.decode("utf-8", "surrogateescape").rstrip("\0").split("\0")


def _by_ps(pids: list[int] | None) -> Iterator[tuple[int, list[str]]]:
    done = process.run(
        ["ps", "-ww", "-U", str(os.getuid()), "-o", "pid=,command="], check=False, timeout=10
    )
    for line in done.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        argv = command.split()
        if argv and (pids is None or int(pid) in pids):
            yield int(pid), argv
