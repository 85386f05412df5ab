"""Small files that are replaced as a whole, most of them JSON.

That module is imported where it is used: for a look at a seal it would take too long.
"""

from __future__ import annotations

import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def read_json(path: str) -> dict[str, Any]:
    """The object in a file; empty where the file is missing or damaged."""
    import json

    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: str, value: object) -> None:
    """Replace a file by JSON, as ``replace`` does."""
    import json

    replace(path, json.dumps(value).encode())


def replace(path: str, data: bytes) -> None:
    """Replace a file: a reader, and whoever comes after a crash, sees the old or the new one."""
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    os.replace(path + ".new", path)


def write_json_patiently(path: str, value: object) -> None:
    """The same, but wait for room on a full disk."""
    while True:
        try:
            write_json(path, value)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            time.sleep(1)
        else:
            return


def write_all(fd: int, data: bytes) -> None:
    """Write every byte; on a full disk wait for room, as at a full pipe."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            time.sleep(1)
