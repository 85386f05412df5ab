"""Who gets through the local ports of a tunnel, and that what goes through is whole."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from tunnel_rig import (
    BLOCK,
    answers,
    carriers,
    connect,
    doors,
    free_port,
    speaker,
    status_of,
    supervisors,
    tunnels,
    wait_for,
    way,
)

from boxes import LiveBox
from roost import process
from roost.errors import SshError
from roost.forwards import Allow
from roost.tunnels import Tunnels

__all__ = ["speaker", "tunnels"]
pytestmark = pytest.mark.box

STRANGER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
# curl(1), "EXIT CODES": the other end hung up in one way or another.
HUNG_UP = {52, 56, 97}


def curl(*words: str, prefix: tuple[str, ...] = ()) -> process.Completed:
    argv = [*prefix, "curl", "-sS", "--http0.9", "--max-time", "60", *words]
    return process.run(argv, check=False, env={"PATH": os.environ["PATH"]})


@pytest.fixture
def socks(speaker: LiveBox, tunnels: Tunnels) -> int:
    """The port of SOCKS through the box."""
    port = free_port()
    way(speaker).open(tunnels, f"D:{port}")
    return port


def through(socks: int, host: str, port: int = 8000) -> socket.socket:
    """A connection by SOCKS5 (RFC 1928) to a name that the box knows."""
    connection = connect(socks, 60)
    name = host.encode()
    connection.sendall(b"\x05\x01\x00\x05\x01\x00\x03%c%s" % (len(name), name))
    connection.sendall(port.to_bytes(2, "big"))
    said = b""
    while len(said) < 12:
        said += connection.recv(12 - len(said))
    assert said == b"\x05\x00\x05\x00\x00\x01" + bytes(6)
    return connection


@pytest.mark.parametrize("kind", ["127.0.0.1:{}:localhost:8000", "[::1]:{}:localhost:8000", "D:{}"])
def test_another_user_is_turned_away(speaker: LiveBox, tunnels: Tunnels, kind: str) -> None:
    if os.getuid() != 0:
        pytest.fail("needs root, to be somebody else")
    port = free_port()
    way(speaker).open(tunnels, kind.format(port))
    words = [f"http://{'[::1]' if '::1' in kind else '127.0.0.1'}:{port}/"]
    if kind.startswith("D"):
        words = ["--socks5-hostname", f"127.0.0.1:{port}", "http://localhost:8000/"]

    refused = curl(*words, prefix=STRANGER)

    assert refused.returncode in HUNG_UP, refused.stderr
    assert refused.stdout == ""
    assert curl(*words).stdout == "hello\n"


def test_an_address_for_everybody_has_no_door(speaker: LiveBox, tunnels: Tunnels) -> None:
    """Who asks for --public has others in mind."""
    port = free_port()
    way(speaker).open(tunnels, f"0.0.0.0:{port}:localhost:8000", allow=Allow(public=True))
    assert curl(f"http://127.0.0.1:{port}/", prefix=STRANGER).stdout == "hello\n"
    assert not doors(tunnels)


def test_what_ends_on_one_side_ends_on_the_other(socks: int) -> None:
    """TAKE answers when all has come, here by the end of it; SEND ends first."""
    with through(socks, "localhost") as taking, taking.makefile("rb") as file:
        taking.sendall(b"TAKE 999999999\n" + BLOCK)
        taking.shutdown(socket.SHUT_WR)
        assert file.readline().decode().strip() == hashlib.sha256(BLOCK).hexdigest()
        assert file.read() == b""
    with through(socks, "localhost") as sending, sending.makefile("rb") as file:
        sending.sendall(b"SEND 70000\n")
        assert len(file.read()) == 70000


@pytest.mark.parametrize("megabytes", [32, pytest.param(1024, marks=pytest.mark.long)])
def test_bytes_arrive_as_they_were_sent(socks: int, megabytes: int) -> None:
    expected, sent = hashlib.sha256(), hashlib.sha256()
    size = megabytes * 1024 * 1024
    with through(socks, "localhost") as taking:
        taking.sendall(b"TAKE %d\n" % size)
        for _ in range(size // len(BLOCK)):
            taking.sendall(BLOCK)
            expected.update(BLOCK)
        taken = taking.makefile("rb").readline().strip()
    with through(socks, "localhost") as sending:
        sending.sendall(b"SEND %d\n" % size)
        while data := sending.recv(65536):
            sent.update(data)
    assert taken.decode() == sent.hexdigest() == expected.hexdigest()


def test_many_at_once_and_one_who_does_not_read(socks: int, tunnels: Tunnels) -> None:
    with ExitStack() as stack:
        slow = stack.enter_context(through(socks, "localhost"))
        slow.sendall(b"SEND 50000000\n")
        got = len(slow.recv(1))
        every = [stack.enter_context(through(socks, "localhost")) for _ in range(200)]
        for number, one in enumerate(every):
            one.sendall(b"ECHO\n%d\n" % number)
        for number, one in enumerate(every):
            assert one.recv(99) == b"%d\n" % number
        while data := slow.recv(1 << 20):
            got += len(data)
    assert got == 50_000_000
    assert status_of(tunnels, f":{socks}").breaks == 0


# A ProxyCommand that works as sudo does: not where nothing gets more rights than there are.
SUDO = """
import socket, sys
if "NoNewPrivs:\t0" not in open("/proc/self/status").read():
    sys.exit('sudo: The "no new privileges" flag is set, which prevents sudo from running as root.')
connection = socket.create_connection(sys.argv[1:])
socket.send_fds(socket.socket(fileno=1), [b"."], [connection.fileno()])
"""


def test_a_way_that_asks_for_rights_needs_a_tunnel_without_a_door(
    speaker: LiveBox, tunnels: Tunnels, tmp_path: Path
) -> None:
    usual, config, program = way(speaker), tmp_path / "config", tmp_path / "sudo.py"
    program.write_text(SUDO)
    config.write_text(
        f"Host *\n    ProxyUseFdpass yes\n    ProxyCommand {sys.executable} {program} %h %p\n"
        f"    Include {usual.config}\n"
    )
    port = free_port()
    spec = f"{port}:localhost:8000"
    with pytest.raises(SshError, match="behind the door") as refused:
        dataclasses.replace(usual, config=config).open(tunnels, spec)
    assert "roost_door: false" in (refused.value.fix or "")

    without = dataclasses.replace(usual.box, door=False)
    dataclasses.replace(usual, config=config, box=without).open(tunnels, spec)

    assert answers(port)
    assert not doors(tunnels)


def test_a_door_comes_where_there_was_none(speaker: LiveBox, tunnels: Tunnels) -> None:
    """The inventory was changed, and the tunnel is asked for again."""
    usual, port = way(speaker), free_port()
    without = dataclasses.replace(usual, box=dataclasses.replace(usual.box, door=False))
    for one, found in ((without, 0), (usual, 1), (usual, 1), (without, 0)):
        one.open(tunnels, f"{port}:localhost:8000")
        assert answers(port)
        assert len(doors(tunnels)) == found
        assert len(carriers(tunnels)) == 1


@pytest.fixture
def both(speaker: LiveBox, tunnels: Tunnels) -> tuple[int, int]:
    """A port that leads to the server, and one of SOCKS, of the same ssh."""
    port, proxy = free_port(), free_port()
    way(speaker).open(tunnels, f"{port}:localhost:8000", f"D:{proxy}")
    return port, proxy


def works(both: tuple[int, int]) -> bool:
    port, proxy = both
    words = ("--socks5-hostname", f"127.0.0.1:{proxy}", "http://localhost:8000/")
    return answers(port) and curl(*words).stdout == "hello\n"


@pytest.mark.parametrize("victim", [doors, carriers])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_whichever_process_ends_or_hangs(
    tunnels: Tunnels,
    both: tuple[int, int],
    victim: Callable[[Tunnels], list[int]],
    end: signal.Signals,
) -> None:
    before = {*doors(tunnels), *carriers(tunnels)}
    [pid] = victim(tunnels)

    os.kill(pid, end)

    wait_for(lambda: status_of(tunnels, ":8000").breaks == 1)
    wait_for(lambda: works(both))
    after = {*doors(tunnels), *carriers(tunnels)}
    assert len(after) == 2
    assert not before & after


def test_the_supervisor_is_killed_and_no_connection_with_it(
    tunnels: Tunnels, both: tuple[int, int]
) -> None:
    [supervisor], before = supervisors(tunnels), [*doors(tunnels), *carriers(tunnels)]
    with through(both[1], "localhost") as proxied, connect(both[0], 60) as direct:
        for one in (proxied, direct):
            one.sendall(b"ECHO\none\n")
            assert one.recv(99) == b"one\n"

        os.kill(supervisor, signal.SIGKILL)
        wait_for(lambda: supervisor not in supervisors(tunnels))
        wait_for(lambda: status_of(tunnels, ":8000").state == "up")

        for one in (proxied, direct):
            one.sendall(b"two\n")
            assert one.recv(99) == b"two\n"
    assert [*doors(tunnels), *carriers(tunnels)] == before
    # It is watched, too: the one that was taken over.
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: status_of(tunnels, ":8000").breaks == 1)
    wait_for(lambda: works(both))


def test_an_ssh_without_a_door_is_not_taken_over(tunnels: Tunnels, both: tuple[int, int]) -> None:
    """As one is that an earlier roost has started."""
    [supervisor], [carrier] = supervisors(tunnels), carriers(tunnels)
    argv = Path(f"/proc/{carrier}/cmdline").read_text().rstrip("\0").split("\0")
    for pid in (supervisor, carrier):
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: pid not in [*supervisors(tunnels), *carriers(tunnels)])
    with process.start(argv, new_session=True) as bare:
        wait_for(lambda: answers(both[0]))
        tunnels.list()
        bare.wait(60)
    wait_for(lambda: works(both))
    assert len(doors(tunnels)) == len(carriers(tunnels)) == 1


def test_while_the_tunnel_is_down_a_connection_is_refused(
    tunnels: Tunnels, both: tuple[int, int]
) -> None:
    """By nobody who would take it and let it fall."""
    [supervisor], [carrier] = supervisors(tunnels), carriers(tunnels)
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(carrier, signal.SIGKILL)
    # What has ended has no arguments any more, before anybody asks for its end.
    wait_for(lambda: not doors(tunnels))
    for port in both:
        with pytest.raises(ConnectionRefusedError):
            connect(port)
    os.kill(supervisor, signal.SIGCONT)
    wait_for(lambda: works(both))
