"""TCP ports on this side: whether one is free, and who holds it."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from roost import files, peers, process
from roost.errors import RoostError

LOOPBACK = "127.0.0.1"
_LISTENING = "0A"
_TRIED = 200


@dataclass(frozen=True)
class Holder:
    """Who listens on a port; what the system does not tell us is empty or 0."""

    user: str = ""
    pid: int = 0
    program: str = ""

    def __str__(self) -> str:
        what = self.program or "a program"
        number = f" (process {self.pid})" if self.pid else ""
        whose = f" of user {self.user}" if self.user else ""
        return f"{what}{number}{whose}"


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether ssh could listen on ``port``; it sets SO_REUSEADDR, so this does too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def next_free(port: int, *, avoid: Collection[int] = (), host: str = LOOPBACK) -> int:
    """The first free port from ``port`` on that is not in ``avoid``.

    Raises:
        RoostError: there is none among the next 200.
    """
    for candidate in range(port, min(port + _TRIED, 65536)):
        if candidate not in avoid and is_free(candidate, host):
            return candidate
    raise RoostError(
        f"no port from {port} to {port + _TRIED} is free", fix="name another one: --port PORT"
    )


def holder(port: int) -> Holder | None:
    """Who listens on TCP ``port``, as far as this user may know; None where nobody does."""
    if Path("/proc/net/tcp").exists():
        return _from_proc(port)
    done = process.run(
        ["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-FpcL"], check=False, timeout=10
    )
    fields = {line[0]: line[1:] for line in reversed(done.stdout.splitlines()) if line}
    if "p" not in fields:
        return None
    return Holder(fields.get("L", ""), int(fields["p"]), fields.get("c", ""))


class PortMemory:
    """The local ports that were used before, one for each purpose.

    Args:
        path: the file; its folder may be missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def choose(self, key: str, first: int) -> tuple[int, int]:
        """The port for ``key``: the same as ever, else one that nobody uses or remembers.

        Returns:
            The port, and the one that it would be if nobody else held that.
        """
        try:
            with files.locked(self._lock):
                remembered = self._read()
                others = {p for k, p in remembered.items() if k != key}
                wanted = remembered.get(key, first)
                while wanted in others:
                    wanted += 1
                chosen = next_free(wanted, avoid=others)
                if remembered.get(key) != chosen:
                    files.replace(self.path, json.dumps({**remembered, key: chosen}).encode())
        except OSError:
            # A full or read-only disk: the port is not remembered, and that is all.
            return next_free(first), first
        return chosen, wanted

    def forget(self, *keys: str) -> None:
        """Keep no port for ``keys``; may be called any number of times.

        Raises:
            OSError: the file cannot be written.
        """
        if not self.path.exists():
            return
        with files.locked(self._lock):
            kept = {k: p for k, p in self._read().items() if k not in keys}
            if kept:
                files.replace(self.path, json.dumps(kept).encode())
            else:
                self.path.unlink(missing_ok=True)

    @property
    def _lock(self) -> Path:
        return self.path.with_suffix(".lock")

    def _read(self) -> dict[str, int]:
        try:
            raw = json.loads(self.path.read_text("utf-8"))
            return {str(k): int(v) for k, v in raw.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}


def is_ours(connection: socket.socket) -> bool:
    """Whether a process of this user, or of root, made the accepted loopback ``connection``.

    Also false where the system does not say whose it is; macOS says it of this user's own alone.
    """
    if sys.platform == "linux":
        return peers.is_ours(connection)
    port, peer_port = connection.getsockname()[1], connection.getpeername()[1]
    spec = f"-iTCP:{peer_port}"
    done = process.run(["lsof", "-nP", spec, "-sTCP:ESTABLISHED", "-Fun"], check=False, timeout=10)
    user = None
    for line in done.stdout.splitlines():
        if line.startswith("u"):
            user = int(line[1:])
        elif line.startswith("n") and f":{peer_port}->" in line and line.endswith(f":{port}"):
            return user in {0, os.getuid()}
    return False


@dataclass(frozen=True)
class Sending:
    """What a TCP connection has sent and nobody has acknowledged.

    Attributes:
        waiting: bytes.
        again_in: seconds until they are sent again.
    """

    waiting: int
    again_in: float


def sending(pid: int, peer_port: int) -> Sending | None:
    """How the connection of process ``pid`` to TCP ``peer_port`` is doing, by proc(5).

    None where it has none, or where the system does not say.
    """
    mine = set(_links(pid))
    for found in _sockets():
        if found.peer_port == peer_port and found.link in mine:
            return found.sending
    return None


@dataclass(frozen=True)
class _Socket:
    """A TCP socket of the machine: a line of /proc/net/tcp, by proc(5).

    Attributes:
        port: on this side.
        peer_port: on the other; 0 where it listens.
        listens: whether it does.
        sending: what is on the way.
        user: the id of who made it.
        link: what the descriptors of a process that has it lead to.
    """

    port: int
    peer_port: int
    listens: bool
    sending: Sending
    user: int
    link: str

    @classmethod
    def read(cls, line: str) -> _Socket:
        words = line.split()
        port, peer_port = (int(end.rpartition(":")[2], 16) for end in words[1:3])
        waiting, ticks = int(words[4].partition(":")[0], 16), int(words[5].partition(":")[2], 16)
        sending = Sending(waiting, ticks / os.sysconf("SC_CLK_TCK"))
        listens = words[3] == _LISTENING
        return cls(port, peer_port, listens, sending, int(words[7]), f"socket:[{words[9]}]")


def _sockets() -> Iterator[_Socket]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            yield from map(_Socket.read, Path(table).read_text("ascii").splitlines()[1:])


def _from_proc(port: int) -> Holder | None:
    for found in _sockets():
        if not found.listens or found.port != port:
            continue
        try:
            user = pwd.getpwuid(found.user).pw_name
        except KeyError:
            user = str(found.user)
        for pid in _owners(found.link):
            name = Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
            return Holder(user, pid, name)
        return Holder(user)
    return None


def _owners(link: str) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and link in _links(int(folder.name)):
            yield int(folder.name)


def _links(pid: int) -> Iterator[str]:
    """What the descriptors of a process lead to; none where this user may not see them."""
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            # It may be closed by now.
            with contextlib.suppress(FileNotFoundError):
                yield os.readlink(descriptor)  # noqa: PTH115
