"""The door before a tunnel's local ports, with a small server in the place of ssh."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from roost.supervisor import door as door_module

BLOCK = bytes(range(256)) * 256
STRANGER = "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.01)


@dataclass
class Inside:
    """What ssh would be: COUNT says how much came until the end, SEND n sends n bytes, TALK
    answers until its own end and then counts on."""

    path: Path
    heard: list[bytes] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(self.path))
        self.server.listen(512)
        self.listening = threading.Thread(target=self._serve, daemon=True)
        self.listening.start()

    def end(self) -> None:
        """No thread goes on to accept by a number that is another socket's by then."""
        self.server.shutdown(socket.SHUT_RDWR)
        self.listening.join(60)
        self.server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.server.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as file, contextlib.suppress(OSError):
            words = file.readline().split()
            self.heard.append(b" ".join(words))
            match words:
                case [b"COUNT"]:
                    found = sum(map(len, iter(lambda: file.read1(65536), b"")))
                    file.write(b"%d" % found)
                case [b"SEND", size]:
                    for _ in range(int(size) // len(BLOCK)):
                        connection.sendall(BLOCK)
                        self.sent += len(BLOCK)
                case [b"TALK"]:
                    connection.sendall(b"bye\n")
                    connection.shutdown(socket.SHUT_WR)
                    self.heard.append(file.read())
                case [b"ECHO"]:
                    for line in file:
                        file.write(line)
                        file.flush()


@dataclass
class Door:
    """A running door, and how to go through it."""

    process: subprocess.Popen[str]
    ssh: subprocess.Popen[bytes]
    host: str
    port: int
    inside: Inside

    def connect(self, first: bytes = b"") -> socket.socket:
        connection = socket.create_connection((self.host, self.port), timeout=60)
        connection.sendall(first)
        return connection

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def stranger(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run ``code`` as another user, with a connection ``c`` to the door."""
        family = "AF_INET6" if ":" in self.host else "AF_INET"
        connect = f"c = socket.socket(socket.{family}); c.connect(({self.host!r}, {self.port}))\n"
        return subprocess.run(
            [sys.executable, "-c", STRANGER + connect + code],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@contextlib.contextmanager
def started(path: Path, host: str, port: int, *prefix: str, kind: str = "L") -> Iterator[Door]:
    """A door, of which nothing is left in the end, however the test ends."""
    inside = Inside(path)
    ssh = subprocess.Popen(["sleep", "1000"])
    address = f"[{host}]" if ":" in host else host
    argv = [*prefix, sys.executable, "-m", "roost.supervisor.door", "x.conf", str(ssh.pid)]
    process = subprocess.Popen(
        [*argv, kind, f"{address}:{port}", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.read() == ""
        yield Door(process, ssh, host, port, inside)
    finally:
        process.kill()
        process.communicate()
        ssh.kill()
        ssh.communicate()
        inside.end()


def free_port(host: str = "127.0.0.1") -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        return int(server.getsockname()[1])


@pytest.fixture(params=["127.0.0.1", "::1"])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Door]:
    with started(tmp_path / "inner", request.param, free_port(request.param)) as made:
        yield made
        assert made.process.poll() is None or made.ssh.poll() is not None


def test_what_ends_here_ends_there(door: Door) -> None:
    with door.connect(b"COUNT\n") as connection:
        connection.sendall(bytes(5_000_000))
        connection.shutdown(socket.SHUT_WR)
        assert connection.makefile("rb").read() == b"5000000"


def test_what_ends_there_ends_here(door: Door) -> None:
    with door.connect(b"TALK\n") as connection, connection.makefile("rb") as file:
        assert file.read() == b"bye\n"
        connection.sendall(b"and on")
        connection.sendall(b"wards")
    wait_for(lambda: door.inside.heard == [b"TALK", b"and onwards"])


def test_nothing_is_left_of_a_connection(door: Door) -> None:
    before = door.descriptors()
    with ExitStack() as stack:
        for _ in range(5):
            talking = stack.enter_context(door.connect(b"ECHO\n1\n"))
            assert talking.recv(9) == b"1\n"
        assert door.descriptors() > before
    with door.connect(b"SEND 100000000\n") as gone:
        gone.recv(1)
    with door.connect(b"ECHO\n1\n") as cut:
        assert cut.recv(9) == b"1\n"
        cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: door.descriptors() == before)


def test_a_stranger_gets_nothing_through(door: Door) -> None:
    """Neither an answer nor a word to what is behind it."""
    if os.getuid() != 0:
        pytest.fail("needs root, to be somebody else")
    with door.connect(b"ECHO\nmine\n") as own:
        assert own.recv(9) == b"mine\n"
        code = "try:\n c.sendall(b'COUNT\\n'); print(c.recv(9))\nexcept OSError: print(b'')"
        assert door.stranger(code).stdout == "b''\n"
        own.sendall(b"goes on\n")
        assert own.recv(9) == b"goes on\n"
    assert door.inside.heard == [b"ECHO"]


def test_what_a_stranger_leaves_behind_is_not_taken_for_roots(door: Door) -> None:
    """Sent and closed at once: the kernel says user 0 of what nobody holds."""
    if os.getuid() != 0:
        pytest.fail("needs root, to be somebody else")
    os.kill(door.process.pid, signal.SIGSTOP)
    for code in ("c.sendall(b'COUNT\\n')", "c.sendall(b'COUNT\\n'); c.shutdown(1)"):
        assert door.stranger(code).returncode == 0
    os.kill(door.process.pid, signal.SIGCONT)
    with door.connect(b"ECHO\nafter\n") as own:
        assert own.recv(9) == b"after\n"
    assert door.inside.heard == [b"ECHO"]


def test_who_reads_slowly_is_waited_for(door: Door) -> None:
    """The sender is held up, not stored, and the door sleeps meanwhile."""
    size = 2_000 * len(BLOCK)
    with door.connect(b"SEND %d\n" % size) as slow:
        first = slow.recv(1)
        wait_for(lambda: door.inside.sent > 0)
        sent = [-1]

        def stands_still() -> bool:
            sent.append(door.inside.sent)
            return sent[-1] == sent[-2] and _sleeps(door.process.pid)

        for _ in range(20):
            wait_for(stands_still)
        assert door.inside.sent < size / 2
        with door.connect(b"ECHO\nmeanwhile\n") as other:
            assert other.recv(99) == b"meanwhile\n"
        found = hashlib.sha256(first)
        while data := slow.recv(1 << 20):
            found.update(data)
    assert found.digest() == hashlib.sha256(2_000 * BLOCK).digest()


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_many_at_once(door: Door) -> None:
    with ExitStack() as stack:
        every = [stack.enter_context(door.connect(b"ECHO\n")) for _ in range(200)]
        for number, one in enumerate(every):
            one.sendall(b"%d\n" % number)
        for number, one in enumerate(every):
            assert one.recv(99) == b"%d\n" % number


def test_one_who_takes_all_lets_others_have_their_turn(door: Door) -> None:
    with door.connect(b"SEND %d\n" % (10_000 * len(BLOCK))) as greedy:
        thread = threading.Thread(target=lambda: _drain(greedy))
        thread.start()
        with door.connect(b"ECHO\n") as other:
            for number in range(20):
                other.sendall(b"%d\n" % number)
                assert other.recv(99) == b"%d\n" % number
        thread.join(60)


class Turns:
    """In the place of the door: who wants another turn is noted."""

    def __init__(self) -> None:
        self.wanted: list[Callable[[], object]] = []
        self.ended = False

    def watch(self, *_: object) -> None:
        pass

    def later(self, handler: Callable[[], object]) -> None:
        self.wanted.append(handler)

    def forget(self, *_: object) -> None:
        self.ended = True


def test_a_turn_has_an_end_and_another_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No further event comes for what lies there already."""
    monkeypatch.setattr(door_module, "_AT_ONCE", 1000)
    turns, path = Turns(), str(tmp_path / "inner")
    with ExitStack() as stack:
        inner = stack.enter_context(socket.socket(socket.AF_UNIX))
        inner.bind(path)
        inner.listen()
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(server.getsockname()))
        connection = door_module.Connection(turns, server.accept()[0])  # type: ignore[arg-type]
        connection.begin(path)
        with inner.accept()[0] as far:
            far.sendall(bytes(50_000))
        client.shutdown(socket.SHUT_WR)
        count = 1
        connection.go_on()
        while turns.wanted:
            count += 1
            turns.wanted.pop()()
        assert turns.ended
        assert len(client.makefile("rb").read()) == 50_000
    assert count == 1 + 50_000 // (16 * 1000)


def _drain(connection: socket.socket) -> None:
    while connection.recv(1 << 20):
        pass


def test_it_goes_with_its_ssh(door: Door) -> None:
    with door.connect(b"ECHO\n1\n") as connection:
        assert connection.recv(9) == b"1\n"
        door.ssh.kill()
        assert door.process.wait(60) == 0
        assert connection.recv(9) == b""
    with pytest.raises(ConnectionRefusedError):
        door.connect()


def test_ssh_listens_no_more(door: Door) -> None:
    before = door.descriptors()
    door.inside.path.unlink()
    with door.connect() as connection:
        assert connection.recv(9) == b""
    wait_for(lambda: door.descriptors() == before)
    assert door.process.poll() is None


def test_there_is_no_such_ssh(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    argv = [sys.executable, "-m", "roost.supervisor.door", "x.conf", str(gone.pid)]
    assert subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode != 0


def test_the_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with started(tmp_path / "inner", "127.0.0.1", port) as refused:
            _, said = refused.process.communicate(timeout=60)
    assert said == f"cannot listen to 127.0.0.1:{port}: Address already in use\n"
    assert refused.process.returncode == 1


def test_more_than_there_are_descriptors_for_wait_outside(tmp_path: Path) -> None:
    with ExitStack() as stack:
        limit = ("prlimit", "--nofile=128")
        few = stack.enter_context(started(tmp_path / "inner", "127.0.0.1", free_port(), *limit))
        inside = [stack.enter_context(few.connect(b"ECHO\n1\n")) for _ in range(8)]
        for one in inside:
            assert one.recv(9) == b"1\n"
        waiting = stack.enter_context(few.connect(b"ECHO\n1\n"))
        for _ in range(20):
            wait_for(lambda: _sleeps(few.process.pid))
        assert len(few.inside.heard) == 8
        inside[0].close()
        assert waiting.recv(9) == b"1\n"


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (b"", b""),
        (b"\x05", b""),
        (b"\x05\x01\x00\x05\x01", b"\x05\x00"),
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x04" + 5000 * b"x", b""),
        (b"GET http://localhost:8000/ HTTP/1.1\r\n\r\n", b""),
    ],
)
def test_a_client_that_does_not_come_to_the_point(
    tmp_path: Path, said: bytes, reply: bytes
) -> None:
    """It ends in the middle, or never gets there, and nothing is left of it."""
    with started(tmp_path / "inner", "127.0.0.1", free_port(), kind="D") as proxy:
        before = proxy.descriptors()
        with proxy.connect(said) as client, client.makefile("rb") as file:
            found = b""
            with contextlib.suppress(OSError):  # it hangs up before it has heard all
                if len(said) < 1000:  # of too much nobody waits for the end
                    client.shutdown(socket.SHUT_WR)
                found = file.read()
        assert found == reply
        wait_for(lambda: proxy.descriptors() == before)


def test_little_is_imported() -> None:
    """There is one for each tunnel, all day."""
    heavy = {"asyncio", "dataclasses", "inspect", "json", "logging", "subprocess", "typing"}
    code = "import sys, roost.supervisor.door\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not heavy & set(done.stdout.split())
