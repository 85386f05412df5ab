"""One process at a time: flock(2) on a file that goes when it is let go."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from roost.errors import SandboxError


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock at ``path``; the system frees it when the process ends, however it ends.

    Args:
        path: the file; it is made where it is missing, and removed at the end.
        waiting: called once where somebody else holds the lock.

    Raises:
        SandboxError: the file cannot be written.
    """
    handle = _take(path, waiting)
    try:
        yield
    finally:
        # Whoever waits for this very file sees that it is gone, and makes a new one.
        path.unlink(missing_ok=True)
        os.close(handle)


def _take(path: Path, waiting: Callable[[], None]) -> int:
    told = False
    while True:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SandboxError(f"{path} cannot be written: {error.strerror}") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    waiting()
                    told = True
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_at(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
