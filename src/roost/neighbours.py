"""Who else uses this machine: a TCP port on loopback is open to all of them.

Sources: passwd(5); login.defs(5), ``UID_MIN`` and ``UID_MAX``; systemd's user-runtime-dir, which
makes ``/run/user/UID`` at the first login of a person and removes it after the last logout.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path

_PEOPLE = range(1000, 60_001)
_NO_LOGIN = ("nologin", "false")
_SHOWN = 3


def others(passwd: Path = Path("/etc/passwd"), logged_in: Path = Path("/run/user")) -> list[str]:
    """The names of other people with an account of this machine, or logged in to it.

    Nothing on macOS, whose accounts are in no file.

    Args:
        passwd: the accounts.
        logged_in: has a folder for each person who is.
    """
    found: dict[int, str] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in passwd.read_text("utf-8", "replace").splitlines():
            match line.split(":"):
                case [name, _, uid, _, _, _, shell] if not shell.endswith(_NO_LOGIN):
                    found[int(uid)] = name
    # Those of a directory service are in no file; all of them would be a slow and a long answer.
    with contextlib.suppress(OSError):
        for folder in logged_in.iterdir():
            if folder.name.isdigit():
                found.setdefault(int(folder.name), _name(int(folder.name)))
    return sorted(name for uid, name in found.items() if uid in _PEOPLE and uid != os.getuid())


def warning(port: int, people: list[str]) -> str:
    """One line about who can use a local port beside this user; empty where nobody can."""
    if not people:
        return ""
    more = f" and {len(people) - _SHOWN} more" if len(people) > _SHOWN else ""
    return (
        f"other users of this machine ({', '.join(people[:_SHOWN])}{more}) can use port {port}, "
        "too; how to keep them out: “Who can use it” in docs/tunnels.md"
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
