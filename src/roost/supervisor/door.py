"""Guard the local ports of one tunnel: its own user's connections go on to ssh, no others.

``python -m roost.supervisor.door CONFIG PID [KIND ADDRESS SOCKET]...`` listens at each ``ADDRESS``.
What comes there goes on to the socket where the ssh ``PID`` listens (kind ``L``), or is SOCKS and
goes through ssh's control socket (kind ``D``). It ends with that ssh. ``CONFIG`` is not read; it
marks whose door it is. When all of its ports listen, its standard output is closed.

The bytes go from one descriptor to the other by splice(2) and never come up here.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from io import FileIO

from roost import peers
from roost.supervisor import mux, socks

_BACKLOG = 128
# How much one splice takes at most, and how many follow one another until others have their turn.
_AT_ONCE, _ROUNDS = 1 << 20, 16
# Descriptors: what a connection needs at most, what all else needs, and what is never too few.
_EACH, _OTHERS, _PLENTY = 8, 64, 1 << 16
_BOTH_WAYS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET

End = socket.socket | FileIO


class Hop:
    """One pipe and one socket, of which the first is read and the second written.

    Args:
        source: where the bytes come from.
        sink: where they go to.
    """

    __slots__ = ("_ends", "_sink", "_source", "over")

    def __init__(self, source: End, sink: End) -> None:
        self._ends = source, sink
        self._source, self._sink = source.fileno(), sink.fileno()
        self.over = False

    def move(self) -> bool:
        """Move what can be moved now, and return whether that was anything; an end counts."""
        if self.over:
            return False
        try:
            flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
            moved = os.splice(self._source, self._sink, _AT_ONCE, flags=flags)
        except BlockingIOError:
            return False
        except OSError:
            moved = 0
        if not moved:
            self.over = True
            for end, direction in zip(self._ends, (socket.SHUT_RD, socket.SHUT_WR), strict=True):
                _shut(end, direction)
        return True


def _shut(end: End, direction: int) -> None:
    with suppress(OSError):
        if isinstance(end, socket.socket):
            end.shutdown(direction)
        else:
            end.close()


class Connection:
    """A client that was let in, and what it is connected to.

    Args:
        door: where it came in.
        client: its socket.
    """

    def __init__(self, door: Door, client: socket.socket) -> None:
        self._door = door
        self._client = client
        self._ends: list[End] = [client]
        self._watched: list[int] = []
        self._ways: list[tuple[Hop, ...]] = []
        client.setblocking(False)
        # As ssh does: a keystroke is not to wait for the next one.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def begin(self, path: str) -> None:
        """Connect it to the ssh that listens at ``path``.

        Raises:
            OSError: nothing listens there.
        """
        upstream = socket.socket(socket.AF_UNIX)
        self._ends.append(upstream)
        # It waits while ssh takes no more connections: ssh carries nothing then, either.
        upstream.connect(path)
        upstream.setblocking(False)
        there, back = mux.pipe(), mux.pipe()
        self._ends += [*there, *back]
        self._ways = [
            (Hop(self._client, there[1]), Hop(there[0], upstream)),
            (Hop(upstream, back[1]), Hop(back[0], self._client)),
        ]
        self._watch(self._client, upstream)

    def _watch(self, *ends: End) -> None:
        for end in ends:
            self._watched.append(end.fileno())
            self._door.watch(end.fileno(), self.go_on, _BOTH_WAYS)

    def go_on(self) -> None:
        """Move what can be moved, but let others have their turn."""
        for way in self._ways:
            for _ in range(_ROUNDS):
                # All of them, also where the first did something.
                if not sum(hop.move() for hop in way):
                    break
            else:
                self._door.later(self.go_on)
        if self._is_over():
            self.close()

    def _is_over(self) -> bool:
        return all(hop.over for way in self._ways for hop in way)

    def close(self) -> None:
        """Leave nothing of it."""
        self._door.forget(self, self._watched)
        for end in self._ends:
            end.close()


class Proxied(Connection):
    """A client that speaks SOCKS."""

    def begin(self, path: str) -> None:
        """Hear it; what it asks for goes through ssh's control socket ``path``."""
        self._path = path
        self._greeted = False
        self._version = 0
        self._line: socket.socket | None = None
        self._heard = self._said = b""
        self._prepared: list[tuple[Hop, ...]] = []
        self._watch(self._client)
        self.go_on()

    def go_on(self) -> None:
        """Take the next step."""
        try:
            while self._line is None:
                self._hear_client()
            if not self._ways:
                self._hear_ssh(self._line)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        super().go_on()

    def _is_over(self) -> bool:
        # ssh ends its side when it has sent on all that it was given.
        return super()._is_over() and self._line is not None and _has_ended(self._line)

    def _hear_client(self) -> None:
        step = socks.read(self._heard, greeted=self._greeted)
        if step is None:
            data = self._client.recv(socks.LONGEST)
            if not data or len(self._heard) > socks.LONGEST:
                raise ConnectionAbortedError
            self._heard += data
            return
        used, reply, target = step
        self._client.send(reply)
        if not used:
            raise ConnectionAbortedError
        self._heard = self._heard[used:]
        self._greeted = True
        if target is not None:
            self._version, host, port = target
            self._line, to_host, from_host = mux.connect(self._path, host, port)
            self._ends += [self._line, to_host, from_host]
            # Some do not wait for the answer; it is little, and the pipe is empty.
            to_host.write(self._heard)
            self._prepared = [(Hop(self._client, to_host),), (Hop(from_host, self._client),)]
            self._watch(self._line, to_host, from_host)

    def _hear_ssh(self, line: socket.socket) -> None:
        while (opened := mux.answer(self._said)) is None:
            data = line.recv(4096)
            if not data:
                raise ConnectionAbortedError
            self._said += data
        self._client.send((socks.GRANTED if opened else socks.REFUSED)[self._version])
        if not opened:
            raise ConnectionAbortedError
        self._ways = self._prepared


def _has_ended(line: socket.socket) -> bool:
    try:
        return not line.recv(4096)
    except BlockingIOError:
        return False
    except OSError:
        return True


class Door:
    """Listens, asks whose each connection is, and wakes those that have something to do.

    Args:
        ssh: the process that it ends with.

    Raises:
        ProcessLookupError: there is no such process.
    """

    def __init__(self, ssh: int) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], object]] = {}
        self._later: set[Callable[[], object]] = set()
        self._listeners: list[socket.socket] = []
        self._inside: set[Connection] = set()
        self._most = max(1, (_raised_limit() - _OTHERS) // _EACH)
        self.watch(os.pidfd_open(ssh), sys.exit, select.EPOLLIN)

    def listen(self, kind: type[Connection], address: str, path: str) -> None:
        """Let this user in at ``address``, and on to the socket ``path``.

        Raises:
            OSError: the address cannot be had.
        """
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), int(port)))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        self._listeners.append(listener)
        self.watch(listener.fileno(), lambda: self._admit(listener, kind, path), select.EPOLLIN)

    def _admit(self, listener: socket.socket, kind: type[Connection], path: str) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        if not peers.is_ours(client):
            client.close()
            return
        connection = kind(self, client)
        self._inside.add(connection)
        if len(self._inside) == self._most:
            self._wait_for_connections(0)
        try:
            connection.begin(path)
        except OSError:
            connection.close()

    def _wait_for_connections(self, events: int) -> None:
        for listener in self._listeners:
            self._epoll.modify(listener.fileno(), events)

    def watch(self, number: int, handler: Callable[[], object], events: int) -> None:
        """Call ``handler`` whenever something happens to the descriptor ``number``."""
        self._handlers[number] = handler
        self._epoll.register(number, events)

    def later(self, handler: Callable[[], object]) -> None:
        """Call ``handler`` when all others have had their turn."""
        self._later.add(handler)

    def forget(self, connection: Connection, numbers: list[int]) -> None:
        """Call nothing of ``connection`` any more."""
        self._later.discard(connection.go_on)
        for number in numbers:
            # One that was closed before may belong to another connection by now.
            if self._handlers.get(number) == connection.go_on:
                del self._handlers[number]
        if len(self._inside) == self._most:
            self._wait_for_connections(select.EPOLLIN)
        self._inside.discard(connection)

    def serve(self) -> None:
        """Go on until ssh ends."""
        while True:
            ready = self._epoll.poll(0 if self._later else -1)
            due = [self._handlers[number] for number, _ in ready if number in self._handlers]
            waiting, self._later = self._later, set()
            for handler in dict.fromkeys([*due, *waiting]):
                handler()


def _raised_limit() -> int:
    """How many descriptors this process may have, after it has asked for all that it can get."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most if most != resource.RLIM_INFINITY else _PLENTY


def main(words: list[str]) -> None:
    """Open the door that ``words`` describe, and guard it."""
    _, ssh, *doors = words
    door = Door(int(ssh))
    for kind, address, path in zip(doors[::3], doors[1::3], doors[2::3], strict=True):
        try:
            door.listen(Proxied if kind == "D" else Connection, address, path)
        except OSError as error:
            sys.exit(f"cannot listen to {address}: {error.strerror}")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    door.serve()


if __name__ == "__main__":
    main(sys.argv[1:])
