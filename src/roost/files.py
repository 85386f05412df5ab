"""Write files so that a reader, a crash or a second writer never meets half of one."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def replace(path: Path, data: bytes, *, mode: int = 0o600) -> bool:
    """Make ``data`` the content of ``path`` and return whether that changed anything.

    A symlink is followed.

    Args:
        path: the file; its folder exists.
        data: the whole content.
        mode: the permissions of a file that is not there yet.

    Raises:
        OSError: it cannot be read or written; ``path`` is then as it was.
    """
    target = path.resolve()
    with contextlib.suppress(FileNotFoundError):
        if target.read_bytes() == data:
            return False
    with staged(target, data, mode=mode) as fresh:
        fresh.replace(target)
    sync_folder(target.parent)
    return True


@contextlib.contextmanager
def staged(target: Path, data: bytes, *, mode: int = 0o600) -> Iterator[Path]:
    """A file beside ``target`` with the content that it is to have, on the disk already.

    The caller renames it to ``target`` inside the block, or it goes. It has the mode, the
    attributes and, where we may set it, the owner of ``target``.

    Raises:
        OSError: it cannot be written.
    """
    import tempfile

    handle, name = tempfile.mkstemp(prefix=temporary_prefix(target), dir=target.parent)
    try:
        try:
            os.fchmod(handle, mode)
            if target.exists():
                _resemble(handle, target)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def temporary_prefix(path: Path) -> str:
    """How the temporary names begin that ``replace`` uses for ``path``."""
    return f".{path.name}.roost-"


def sync_folder(folder: Path) -> None:
    """Put the names in ``folder`` on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` exclusively; whoever comes second waits.

    The file stays: removing it would let two processes hold two locks of one name.

    Raises:
        OSError: the lock file cannot be made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _resemble(handle: int, target: Path) -> None:
    wanted, ours = target.stat(), os.fstat(handle)
    if (wanted.st_uid, wanted.st_gid) != (ours.st_uid, ours.st_gid):
        with contextlib.suppress(PermissionError):
            os.fchown(handle, wanted.st_uid, wanted.st_gid)
    os.fchmod(handle, wanted.st_mode & 0o7777)
    if hasattr(os, "listxattr"):  # not on macOS
        with contextlib.suppress(OSError):
            for name in os.listxattr(target):
                os.setxattr(handle, name, os.getxattr(target, name))
