"""What the supervisor and its clients say to each other, and where they find each other.

One request and one answer, each one line of JSON, over a Unix socket in a folder that only the
user can enter.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roost import __version__
from roost.errors import RoostError
from roost.model import Forward

# A client that speaks another version asks the supervisor to make room for its own.
VERSION = f"1 {__version__}"

# Of a client's environment: what ssh needs to find keys and programs.
PASSED_ON = ("SSH_AUTH_SOCK", "PATH", "HOME", "USER", "LOGNAME")

# sun_path holds 104 bytes on macOS and 108 on Linux, with the NUL at its end.
_SOCKET_PATH_MAX = 103


@dataclass(frozen=True)
class Wish:
    """A tunnel that somebody wants: forwards to one box that come and go together.

    Attributes:
        box: the box's name, as ssh knows it by ``config``.
        config: the ssh config to reach it by.
        forwards: as ``Forward.parse`` reads them, every local side with its address.
        label: what the tunnel is for, for people: ``lab``, ``proxy`` or nothing.
        speaks: for a forward, by its text: ``http PATH``, ``ssh``, or nothing for ``connect``.
        pac: for a proxy, the script that a browser asks, and the port where it is served.
        door: false where other users of this machine may connect to its ports.
    """

    box: str
    config: str
    forwards: tuple[str, ...]
    label: str = ""
    speaks: Mapping[str, str] = field(default_factory=dict)
    pac: tuple[int, str] | None = None
    door: bool = True

    @property
    def id(self) -> str:
        """The same wish has the same id, so that asking twice is asking once."""
        text = "\0".join((self.box, self.config, *self.forwards))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def purpose(self) -> tuple[object, ...]:
        """What may change while the forwards stay."""
        return (self.label, dict(self.speaks), self.pac)

    @property
    def parsed(self) -> tuple[Forward, ...]:
        """The forwards as values."""
        return tuple(Forward.parse(spec) for spec in self.forwards)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Wish:
        """Read what ``dataclasses.asdict`` wrote; a key that is not known is passed over."""
        known = {f.name for f in dataclasses.fields(cls)}
        values = {k: v for k, v in raw.items() if k in known}
        values["forwards"] = tuple(values["forwards"])
        pac = values.get("pac")
        values["pac"] = (int(pac[0]), str(pac[1])) if pac else None
        return cls(**values)


@dataclass
class ForwardStatus:
    """One forward, as the last probe found it.

    Attributes:
        spec: its text.
        state: ``answers``, ``refused`` (nothing listens at its target), ``silent`` (connected,
            but it says nothing), ``open`` (it can be connected to; what it speaks is not known)
            or ``unknown``.
        why: what was found, where it does not answer.
    """

    spec: str
    state: str = "unknown"
    why: str = ""


@dataclass
class Status:
    """One tunnel, as it is now.

    Attributes:
        id: the wish's.
        state: ``connecting``, ``up``, ``silent`` (connected, but the network is gone) or ``down``.
        since: when that state began, in seconds since 1970.
        opened: when it was asked for.
        breaks: how often it broke since then.
        why: why it is not up.
        broke: when it broke last, 0 for never.
        broke_why: why it broke then.
        gone: for how many seconds it was gone then.
        tries: how often ssh was started without success since it is down.
        pid: of the ssh that carries it, or 0.
        pac_port: where the proxy script is served, or 0.
    """

    id: str
    box: str
    label: str
    config: str
    forwards: list[ForwardStatus]
    state: str = "connecting"
    since: float = 0.0
    opened: float = 0.0
    breaks: int = 0
    why: str = ""
    broke: float = 0.0
    broke_why: str = ""
    gone: float = 0.0
    tries: int = 0
    pid: int = 0
    pac_port: int = 0

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Status:
        """Read what ``dataclasses.asdict`` wrote."""
        known = {f.name for f in dataclasses.fields(cls)}
        values = {k: v for k, v in raw.items() if k in known}
        values["forwards"] = [ForwardStatus(**f) for f in values["forwards"]]
        return cls(**values)


@dataclass(frozen=True)
class Places:
    """The supervisor's files.

    Attributes:
        runtime: sockets, the lock and the ssh configs; gone after a reboot.
        state: which tunnels are wanted; survives a reboot.
    """

    runtime: Path
    state: Path

    @property
    def socket(self) -> Path:
        """Where the supervisor answers."""
        return self.runtime / "supervisor.sock"

    @property
    def lock(self) -> Path:
        """Held by the supervisor as long as it lives: there is never a second one."""
        return self.runtime / "supervisor.lock"

    @property
    def log(self) -> Path:
        """What the supervisor itself complained about, from its last start on."""
        return self.runtime / "supervisor.log"

    @property
    def wishes(self) -> Path:
        """The tunnels that are wanted."""
        return self.state / "wishes.json"

    def config(self, wish_id: str) -> Path:
        """The ssh config of one tunnel; its path marks the ssh that belongs to it."""
        return self.runtime / f"{wish_id}.conf"

    def included(self, wish_id: str) -> Path:
        """The link to the workspace's ssh config that the config of one tunnel includes."""
        return self.runtime / f"{wish_id}.workspace"

    def canary(self, wish_id: str) -> Path:
        """The local socket of one tunnel's own probe."""
        return self.runtime / f"{wish_id}.probe"

    def ssh_log(self, wish_id: str) -> Path:
        """What the ssh of one tunnel wrote."""
        return self.runtime / f"{wish_id}.log"


def places(runtime: Path, state: Path) -> Places:
    """The supervisor's files in the user's folders (``Paths.runtime`` and ``Paths.state``).

    Raises:
        RoostError: the path is too long for a socket.
    """
    found = Places(runtime=runtime / "tunnels", state=state / "tunnels")
    if len(os.fsencode(found.canary("0" * 10))) > _SOCKET_PATH_MAX:
        raise RoostError(
            f"the path of {found.runtime} is too long for a socket",
            fix="set XDG_RUNTIME_DIR to a shorter folder that only you can enter",
        )
    return found


def ensure_private(folder: Path) -> None:
    """Make ``folder`` and see to it that nobody else can enter it.

    Raises:
        RoostError: it belongs to somebody else, or cannot be made.
    """
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The parent may be /tmp/roost-UID, which anybody could have made before us.
        for one in (folder.parent, folder):
            one.mkdir(mode=0o700, exist_ok=True)
            found = one.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise RoostError(
                    f"{one} is not a folder of yours",
                    why="another user could read what goes through it",
                    fix=f"remove it, or set XDG_RUNTIME_DIR: ls -ld {one}",
                )
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise RoostError(f"{folder} cannot be made: {error.strerror}") from error


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as it goes over the socket."""
    return json.dumps(message).encode() + b"\n"
