"""Notice that a folder has changed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

Snapshot = dict[str, tuple[int, int]]


def snapshot(root: Path) -> Snapshot:
    """Every file below a folder, with its time of change (ns) and its size."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in (*names, "."):
            path = os.path.join(folder, name)  # noqa: PTH118 - a hundred thousand of them
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                found[path] = status.st_mtime_ns, status.st_size
    return found


def watch(root: Path, *, interval: float = 0.5) -> Iterator[None]:
    """Come back each time something below ``root`` has changed and come to rest.

    The folder is looked at, not waited on: that works on every file system, and a sleep of the
    machine only lengthens one interval. Big trees are looked at less often. What changes after
    this call counts, whenever the first result is asked for.
    """
    return _changes(root, snapshot(root), interval)


def _changes(root: Path, before: Snapshot, interval: float) -> Iterator[None]:
    while True:
        began = time.monotonic()
        now = snapshot(root)
        spent = time.monotonic() - began
        if now != before:
            while (later := snapshot(root)) != now:
                now = later
                time.sleep(interval / 5)
            before = now
            yield
        time.sleep(max(interval, 10 * spent))
