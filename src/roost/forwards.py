"""Where forwards may listen: loopback alone, unprivileged, and not where somebody else does."""

from __future__ import annotations

import dataclasses
import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from roost import ports
from roost.errors import UsageError
from roost.model import Box, Forward, ForwardKind
from roost.supervisor.protocol import Status

_FIRST_UNPRIVILEGED = 1024
_FIRST_OF_OURS = 20_000
_LOOPBACK_NAMES = {"", "localhost", "127.0.0.1"}


@dataclass(frozen=True)
class Allow:
    """What a forward may do only if the user says so.

    Attributes:
        public: listen where other machines reach it.
        privileged: listen on a port below 1024.
        shared: listen on a port of the box, which every user of the box can connect to.
    """

    public: bool = False
    privileged: bool = False
    shared: bool = False


NOTHING_SPECIAL = Allow()


def local_port(status: Status) -> int:
    """The port on this side of the tunnel's first local or dynamic forward; 0 for none."""
    for found in status.forwards:
        forward = Forward.parse(found.spec)
        if forward.kind is not ForwardKind.REMOTE and not forward.listen.startswith("/"):
            return int(forward.listen.rpartition(":")[2])
    return 0


def checked(forward: Forward, allow: Allow = NOTHING_SPECIAL) -> Forward:
    """``forward`` with its listening address written out.

    Raises:
        UsageError: it listens where other machines or the box's other users reach it, or below
            port 1024, and that is not allowed.
    """
    if forward.listen.startswith("/"):
        return forward
    host, _, port = forward.listen.rpartition(":")
    side = "on the box" if forward.kind is ForwardKind.REMOTE else "on this side"
    loopback = host in _LOOPBACK_NAMES or host.startswith("127.") or host == "[::1]"
    if not loopback and not allow.public:
        raise UsageError(
            f"the forward {forward} listens at {host}, {side}",
            why="every machine that reaches it there could use it",
            fix="leave the address out for loopback alone, or say --public",
        )
    if loopback and forward.kind is ForwardKind.REMOTE and not allow.shared:
        raise UsageError(
            f"the forward {forward} listens at a port of the box",
            why="every user of the box could connect to it: sshd does not ask who comes",
            fix="take a socket of your own there, such as R:/home/YOU/NAME.sock:"
            f"{forward.target}, or say --shared",
        )
    if 0 < int(port) < _FIRST_UNPRIVILEGED and not allow.privileged:
        raise UsageError(
            f"the forward {forward} listens at port {port}, {side}",
            why="ports below 1024 are the system's own",
            fix=f"take another one, such as {int(port) + 8000}, or say --privileged",
        )
    # A remote port 0 is for the box's sshd to choose.
    number = int(port)
    if not number and forward.kind is not ForwardKind.REMOTE:
        number = ports.next_free(_FIRST_OF_OURS)
    # One address: with "localhost" both ssh and sshd are content with ::1 alone where a stranger
    # has 127.0.0.1, to whom half of the programs would then talk.
    address = host if loopback and host not in _LOOPBACK_NAMES else ""
    chosen = address or (ports.LOOPBACK if loopback else host)
    return dataclasses.replace(forward, listen=f"{chosen}:{number}")


def named(spec: str) -> Forward:
    """The forward that ``spec`` was opened as.

    Raises:
        UsageError: the text is no forward.
    """
    return checked(Forward.parse(spec), Allow(public=True, privileged=True, shared=True))


def check_free(forward: Forward, box: Box, known: Sequence[Status], *, verb: str = "") -> None:
    """See that ``forward`` can listen on this side.

    Args:
        forward: what ``checked`` returned.
        box: for the advice.
        known: the tunnels that are open, one of which may hold the port.
        verb: for the advice: ``lab`` or ``proxy``, where one of these opens it.

    Raises:
        UsageError: its port or its path is taken; the message says by whom.
    """
    if forward.kind is ForwardKind.REMOTE:
        return
    if forward.listen.startswith("/"):
        _check_socket(Path(forward.listen))
        return
    host, _, port = forward.listen.rpartition(":")
    number = int(port)
    if ports.is_free(number, host.strip("[]")) if host != "*" else ports.is_free(number, ""):
        return
    free = ports.next_free(number + 1)
    rest = f":{forward.target}" if forward.target else ""
    prefix = "D:" if forward.kind is ForwardKind.DYNAMIC else ""
    by_spec = f"roost tunnel open {box.name} {prefix}{free}{rest}"
    raise UsageError(
        f"port {number} on this side is taken",
        why=f"by {who_holds(number, known)}",
        fix=f"roost {verb} {box.name} --port {free}" if verb else by_spec,
    )


def who_holds(port: int, known: Sequence[Status]) -> str:
    """Who listens on the local ``port``: one of our tunnels, or a program."""
    for status in known:
        for found in status.forwards:
            forward = Forward.parse(found.spec)
            if forward.kind is not ForwardKind.REMOTE and forward.listen.endswith(f":{port}"):
                return f"the tunnel to {status.box} ({found.spec})"
    return str(ports.holder(port) or "a program that this user may not see")


def _check_socket(path: Path) -> None:
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} does not exist", fix=f"mkdir -p {path.parent}")
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        # ssh would remove it without a word.
        raise UsageError(f"{path} exists, and is not a socket", fix="name another path")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise UsageError(f"somebody listens on {path} already", fix="name another path")
