"""Local ports: free or not, held by whom, the same as ever."""

from __future__ import annotations

import json
import os
import pwd
import socket
import time
from pathlib import Path

import pytest

from roost.errors import RoostError
from roost.ports import (
    PortMemory,
    Sending,
    holder,
    is_free,
    next_free,
    sending,
)


def test_names_the_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        found = holder(port)

        assert found is not None
        assert found.pid == os.getpid()
        assert found.user == pwd.getpwuid(os.getuid()).pw_name
        assert str(os.getpid()) in str(found)
        assert not is_free(port)
        assert next_free(port) > port
    assert is_free(port)
    assert holder(port) is None


def test_a_port_that_was_used_a_moment_ago_is_free() -> None:
    """ssh sets SO_REUSEADDR: a connection in TIME_WAIT does not hold the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()
            client.recv(1)
    assert is_free(port)


def test_sees_what_nobody_has_acknowledged() -> None:
    """More than the other side takes: what is too much waits here, to be tried again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address, port = server.getsockname(), server.getsockname()[1]
        assert sending(os.getpid(), port) is None
        with socket.create_connection(address) as client:
            assert sending(os.getpid(), port) == Sending(0, 0.0)
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    client.send(bytes(1 << 16))
            deadline = time.monotonic() + 60
            while not (found := sending(os.getpid(), port)) or not found.again_in:
                assert time.monotonic() < deadline, found
    assert found.waiting > 0
    assert found.again_in < 120


def test_no_port_is_left() -> None:
    with pytest.raises(RoostError, match="no port from 65535"):
        next_free(65535, avoid={65535})


def test_remembers_a_port_for_each_purpose(tmp_path: Path) -> None:
    memory = PortMemory(tmp_path / "state" / "ports.json")
    first = next_free(21_000)

    one, _ = memory.choose("one", first)
    two, _ = memory.choose("two", first)

    assert one == first
    assert two != one
    assert memory.choose("one", 30_000) == (one, one)
    assert memory.choose("two", 30_000) == (two, two)


def test_says_which_port_it_would_have_been(tmp_path: Path) -> None:
    memory = PortMemory(tmp_path / "ports.json")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        chosen, wanted = memory.choose("one", taken)
    assert wanted == taken
    assert chosen > taken


def test_forgets(tmp_path: Path) -> None:
    memory = PortMemory(tmp_path / "ports.json")
    memory.forget("one")
    port, _ = memory.choose("one", 21_000)
    memory.choose("two", 21_000)
    memory.forget("one", "never heard of")
    assert memory.choose("three", port)[0] == port
    memory.forget("two", "three")
    assert not memory.path.exists()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"one": "x"}', "null"])
def test_an_unreadable_memory_is_an_empty_one(tmp_path: Path, text: str) -> None:
    memory = PortMemory(tmp_path / "ports.json")
    memory.path.write_text(text)
    port, _ = memory.choose("one", 21_000)
    assert json.loads(memory.path.read_text()) == {"one": port}


def test_a_memory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert PortMemory(tmp_path / "file" / "ports.json").choose("one", 21_000)[0] >= 21_000
