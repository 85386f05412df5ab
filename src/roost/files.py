"""Write files so that a reader, a crash or a second writer never meets half of one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def replace(path: Path, data: bytes, *, mode: int = 0o600) -> bool:
    """Make ``data`` the content of ``path`` and return whether that changed anything.

    The new content is on the disk before it takes the name. A symlink is followed; a file that
    is there keeps its mode and, where we may set it, its owner.

    Args:
        path: the file; its folder exists.
        data: the whole content.
        mode: the permissions of a file that is not there yet.

    Raises:
        OSError: it cannot be read or written; ``path`` is then as it was.
    """
    target = path.resolve()
    before: os.stat_result | None = None
    with contextlib.suppress(FileNotFoundError):
        before = target.stat()
        if target.read_bytes() == data:
            return False
    handle, name = tempfile.mkstemp(prefix=temporary_prefix(target), dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            if before is not None and (before.st_uid, before.st_gid) != _owner(file.fileno()):
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fchmod(file.fileno(), before.st_mode & 0o7777 if before else mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(target.parent)
    return True


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


def _owner(handle: int) -> tuple[int, int]:
    status = os.fstat(handle)
    return status.st_uid, status.st_gid
