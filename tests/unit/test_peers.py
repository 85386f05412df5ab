"""Whose a connection is: what is asked of the kernel, what its answers mean, and that it is so."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from roost import peers

HOLDS = 0x1234
ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT2, TIME_WAIT, CLOSE_WAIT, LISTEN = 1, 2, 3, 5, 6, 8, 10
NO_SUCH = struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -2)


def said(state: int, user: int, inode: int, family: int = socket.AF_INET) -> bytes:
    """linux/inet_diag.h: nlmsghdr, family, state, timer, retrans, 48 bytes of ends, 5 numbers."""
    body = struct.pack("=BBBB48x5I", family, state, 0, 0, 0, 7, 9, user, inode)
    return struct.pack("=IHHII", 16 + len(body), 20, 0, 0, 0) + body


@pytest.mark.parametrize(
    ("answer", "user"),
    [
        (said(ESTABLISHED, 1000, HOLDS), 1000),
        (said(ESTABLISHED, 1000, HOLDS, socket.AF_INET6), 1000),
        (said(ESTABLISHED, 0, HOLDS), 0),
        (said(FIN_WAIT2, 1000, HOLDS), 1000),
        (said(FIN_WAIT2, 0, 0), None),
        (said(TIME_WAIT, 0, 0), None),
        (said(FIN_WAIT2, 1000, 0), None),
        (said(CLOSE_WAIT, 1000, HOLDS), 1000),
        (said(SYN_SENT, 1000, HOLDS), None),
        (said(SYN_RECV, 1000, HOLDS), None),
        (said(LISTEN, 1000, HOLDS), None),
        (NO_SUCH, None),
    ],
    ids=[
        "mine",
        "mine6",
        "root",
        "half-closed",
        "orphan",
        "late",
        "old",
        "closed-by-us",
        "opening",
        "half-open",
        "listening",
        "none",
    ],
)
def test_what_an_answer_means(answer: bytes, user: int | None) -> None:
    assert peers.holder(answer) == user


@pytest.mark.parametrize(
    ("end", "other", "family", "ends"),
    [
        (
            ("127.0.0.1", 50000),
            ("127.0.0.1", 8888),
            socket.AF_INET,
            "c350 22b8 7f000001" + 24 * "0" + "7f000001" + 24 * "0",
        ),
        (
            ("::1", 50000, 0, 0),
            ("::1", 8888, 0, 0),
            socket.AF_INET6,
            "c350 22b8 " + 31 * "0" + "1" + 31 * "0" + "1",
        ),
    ],
)
def test_the_question_names_both_ends(
    end: tuple[object, ...], other: tuple[object, ...], family: int, ends: str
) -> None:
    asked = peers.question(end, other, family)
    assert struct.unpack_from("=IH", asked) == (len(asked), 20)
    assert asked[16:18] == bytes([family, socket.IPPROTO_TCP])
    assert asked[24:60] == bytes.fromhex(ends)


@pytest.fixture(params=["127.0.0.1", "::1"])
def server(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as listening:
        listening.settimeout(60)
        yield listening


def test_knows_whose_connection_it_is(server: socket.socket) -> None:
    with socket.create_connection(server.getsockname()[:2]):
        accepted, _ = server.accept()
        with accepted:
            assert peers.user_of(accepted) == os.getuid()
            assert peers.is_ours(accepted)


def test_a_connection_that_was_closed_is_nobodys(server: socket.socket) -> None:
    """Closed at once after sending: the kernel says user 0 of it, who is root elsewhere."""
    with socket.create_connection(server.getsockname()[:2]) as client:
        client.sendall(b"do something")
    accepted, _ = server.accept()
    with accepted:
        assert peers.user_of(accepted) is None
        assert not peers.is_ours(accepted)


def test_a_connection_that_was_cut_off_is_nobodys(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its port is somebody else's when the kernel is asked, and what it sent can still be read."""
    ask, meanwhile = peers.question, []

    def late(*words: object) -> bytes:
        while meanwhile:
            meanwhile.pop()()
        return ask(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(peers, "question", late)
    host = server.getsockname()[0]
    with ExitStack() as stack:
        # Both have the port from the beginning, so that nobody else on this machine takes it.
        client, own = (stack.enter_context(socket.socket(server.family)) for _ in range(2))
        for one in (client, own):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((host, 0))
        own.bind(client.getsockname())
        client.connect(server.getsockname())
        client.sendall(b"do something")
        accepted = stack.enter_context(server.accept()[0])

        def change_hands() -> None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            own.connect(server.getsockname())

        meanwhile.append(change_hands)
        assert peers.user_of(accepted) is None
        assert accepted.recv(99) == b"do something"
        ours = stack.enter_context(server.accept()[0])
        assert peers.user_of(ours) == os.getuid()


def test_a_port_alone_tells_nothing() -> None:
    """Another address with the same port may be somebody else's."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        own = stack.enter_context(socket.create_connection(server.getsockname()))
        stack.enter_context(server.accept()[0])
        port = own.getsockname()[1]
        code = (
            "import os, socket, sys; os.setgid(65534); os.setuid(65534)\n"
            f"c = socket.socket(); c.bind(('127.0.0.2', {port}))\n"
            f"c.connect({server.getsockname()!r}); sys.stdin.read()"
        )
        argv = [sys.executable, "-c", code]
        stranger = stack.enter_context(subprocess.Popen(argv, stdin=subprocess.PIPE))
        accepted = stack.enter_context(server.accept()[0])

        assert accepted.getpeername() == ("127.0.0.2", port)
        assert peers.user_of(accepted) == 65534
        assert not peers.is_ours(accepted)
        stranger.communicate(timeout=60)
