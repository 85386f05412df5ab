"""The door before a tunnel's local ports, with a small server in the place of ssh."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

STRANGER = "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
# Answers each line with the line, at an address or a socket's path; says so when it listens. It
# asks for connections as ssh does: when the kernel says that there is one, and without waiting.
SERVER = """
import os, select, socket, sys
*_, where = sys.argv
if where.startswith("/"):
    server = socket.socket(socket.AF_UNIX)
    server.bind(where)
    os.chmod(where, 0o777)
    server.listen()
else:
    host, _, port = where.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server((host, int(port)), family=family)
server.setblocking(False)
print("listens", file=sys.stderr, flush=True)
poll = select.poll()
poll.register(server, select.POLLIN)
lines = {}
while True:
    for number, _ in poll.poll():
        if number != server.fileno():
            data = os.read(number, 99)
            os.write(number, data) if data else (poll.unregister(number), lines.pop(number).close())
            continue
        try:
            connection, _ = server.accept()
        except OSError as error:
            print(error.strerror, file=sys.stderr, flush=True)
            continue
        assert os.get_blocking(connection.fileno())
        assert not connection.get_inheritable()
        lines[connection.fileno()] = connection
        poll.register(connection, select.POLLIN)
"""
NOBODY = f"{os.strerror(errno.EAGAIN)}\n"
DOOR = (sys.executable, "-m", "roost.supervisor.door")
# A kernel that knows nothing of all that.
OLD_KERNEL = (
    sys.executable,
    "-c",
    "import sys; from roost.supervisor import door; door._MACHINES.clear(); "
    "sys.exit(door.main(sys.argv[1:]))",
)


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.01)


@dataclass
class Door:
    """A running door with a server behind it, and how to go through it."""

    process: subprocess.Popen[str]
    pid: int
    where: str

    @property
    def address(self) -> str | tuple[str, int]:
        if self.where.startswith("/"):
            return self.where
        host, _, port = self.where.rpartition(":")
        return host, int(port)

    @property
    def family(self) -> socket.AddressFamily:
        if self.where.startswith("/"):
            return socket.AF_UNIX
        return socket.AF_INET6 if self.where.startswith("::") else socket.AF_INET

    def connect(self) -> socket.socket:
        connection = socket.socket(self.family)
        connection.settimeout(60)
        connection.connect(self.address)
        return connection

    def listens(self) -> bool:
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return False
        return True

    def answers(self) -> bool:
        with self.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"hello")
            return connection.recv(99) == b"hello"
        return False

    def line(self) -> str:
        """The next line that the server says."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def strange(self, code: str, prepare: str = "") -> subprocess.Popen[str]:
        """Another user who runs ``code`` with a connection ``c`` to the server."""
        if os.getuid() != 0:
            pytest.fail("needs root, to be somebody else")
        connect = f"c = socket.socket({int(self.family)})\n{prepare}c.connect({self.address!r})\n"
        careful = f"try:\n {code}\nexcept OSError: print('turned away')"
        argv = [sys.executable, "-c", STRANGER + connect + careful]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True)

    def stranger(self, code: str = "c.sendall(b'hello'); print(c.recv(99))") -> str:
        """What another user's ``code`` prints."""
        with self.strange(code) as other:
            return other.communicate(timeout=60)[0].strip()


@contextlib.contextmanager
def started(where: str, *program: str, door: tuple[str, ...] = DOOR) -> Iterator[Door]:
    """A door, of which nothing is left in the end, however the test ends."""
    program = program or (sys.executable, "-c", SERVER)
    process = subprocess.Popen(
        [*door, *program, where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout
        made = Door(process, int(process.stdout.readline()), where)
        assert made.line() == "listens\n"
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def free_port(host: str = "127.0.0.1") -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        return int(server.getsockname()[1])


@pytest.fixture(params=["127.0.0.1", "::1", "127.1.2.3"])
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    with started(f"{request.param}:{free_port(request.param)}") as made:
        yield made


def test_its_user_comes_in_and_nobody_else(door: Door) -> None:
    with door.connect() as own:
        for word in (b"one", b"two"):
            own.sendall(word)
            assert own.recv(99) == word
            assert door.stranger() in {"turned away", "b''"}
            assert door.line() == NOBODY
    assert door.answers()


def test_a_stranger_in_front_of_us_does_not_keep_us_out(door: Door) -> None:
    """Both wait already when the server asks: one is turned away, and the other is taken."""
    os.kill(door.pid, signal.SIGSTOP)
    talk = "print('here', flush=True)\n c.sendall(b'theirs'); print(c.recv(99))"
    with door.strange(talk) as other:
        assert other.stdout
        assert other.stdout.readline() == "here\n"
        with door.connect() as own:
            own.sendall(b"mine")
            os.kill(door.pid, signal.SIGCONT)
            assert own.recv(99) == b"mine"
        assert other.communicate(timeout=60)[0].strip() in {"turned away", "b''"}


def test_what_a_stranger_leaves_behind_is_not_taken_for_roots(door: Door) -> None:
    """Sent and closed at once: the kernel says user 0 of what nobody holds."""
    os.kill(door.process.pid, signal.SIGSTOP)
    for code in ("c.sendall(b'x')", "c.sendall(b'x'); c.shutdown(1)"):
        assert door.stranger(code) == ""
    os.kill(door.process.pid, signal.SIGCONT)
    assert door.line() == NOBODY
    assert door.answers()


def test_a_port_where_this_user_listens_is_no_disguise(door: Door) -> None:
    """The kernel does not find what is bound to a device, and answers with who listens there."""
    host, _, _ = door.where.rpartition(":")
    port = free_port(host)
    prepare = (
        "c.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        "c.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')\n"
        f"c.bind(({host!r}, {port}))\nprint('bound', flush=True)\nsys.stdin.readline()\n"
    )
    with door.strange("c.sendall(b'hello'); print(c.recv(99))", prepare) as other:
        assert other.stdout
        assert other.stdout.readline() == "bound\n"
        with socket.create_server((host, port), family=door.family):
            assert other.communicate("\n", timeout=60)[0].strip() in {"turned away", "b''"}
    assert door.answers()


def test_nothing_is_left_of_a_connection(door: Door) -> None:
    before = door.descriptors()
    with door.connect() as own:
        own.sendall(b"word")
        assert own.recv(99) == b"word"
        wait_for(lambda: door.descriptors() == before)
        door.stranger()
    wait_for(lambda: door.descriptors() == before)


@pytest.mark.parametrize("where", ["0.0.0.0:{port}", "{folder}/socket"])
def test_what_others_may_reach_is_not_asked_about(where: str) -> None:
    """Who listens for other machines has others in mind, and a socket has permissions."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with started(where.format(port=free_port(), folder=folder)) as open_to_all:
            assert open_to_all.stranger() == "b'hello'"
            assert open_to_all.answers()


def test_more_than_the_program_has_descriptors_for() -> None:
    server = (sys.executable, "-c", SERVER)
    with started(f"127.0.0.1:{free_port()}", "prlimit", "--nofile=16", *server) as door:
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(door.connect())
            assert door.line() == f"{os.strerror(errno.EMFILE)}\n"
        wait_for(door.answers)


def test_what_the_program_starts_is_asked_about_too() -> None:
    """The program may be a script that runs ssh."""
    code = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"
    child = (sys.executable, "-c", code, "-c", SERVER)
    with started(f"127.0.0.1:{free_port()}", *child) as inner:
        assert inner.stranger() in {"turned away", "b''"}
        assert inner.answers()


def test_a_connection_that_does_not_wait() -> None:
    """Asked for with SOCK_NONBLOCK, as accept4(2) has it."""
    code = (
        "import ctypes, os, socket, sys\nhost, _, port = sys.argv[1].rpartition(':')\n"
        "server = socket.create_server((host, int(port)))\n"
        "print('listens', file=sys.stderr, flush=True)\n"
        "server.setblocking(True)\nimport select; select.select([server], [], [])\n"
        "number = ctypes.CDLL(None).accept4(server.fileno(), None, None, socket.SOCK_NONBLOCK)\n"
        "print(os.get_blocking(number), os.get_inheritable(number), file=sys.stderr, flush=True)\n"
    )
    with started(f"127.0.0.1:{free_port()}", sys.executable, "-c", code) as door, door.connect():
        assert door.line() == "False True\n"


@pytest.mark.parametrize("code", [0, 7])
def test_it_ends_with_its_program(code: int) -> None:
    argv = [*DOOR, sys.executable, "-c", f"import sys; print('said'); sys.exit({code})"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code
    assert done.stdout.strip().isdigit()
    assert done.stderr == "said\n"


def test_the_program_ends_with_it(door: Door) -> None:
    """Nobody would answer it any more."""
    with door.connect() as own:
        own.sendall(b"word")
        assert own.recv(99) == b"word"
        door.process.kill()
        assert own.recv(99) == b""
    wait_for(lambda: not door.listens())


def test_the_end_of_both_is_the_programs_end(door: Door) -> None:
    """It has something to clear away, and who waits for it waits for this one."""
    os.kill(door.pid, signal.SIGSTOP)
    stat = Path(f"/proc/{door.pid}/stat")
    wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
    os.killpg(door.process.pid, signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        door.process.wait(0.2)
    os.kill(door.pid, signal.SIGCONT)
    assert door.process.wait(60) == 256 - signal.SIGTERM


def test_there_is_no_such_program() -> None:
    argv = [*DOOR, "/no/such/program"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 127
    assert "No such file or directory" in done.stderr


def test_where_the_kernel_does_not_ask_the_program_takes_what_comes() -> None:
    with started(f"127.0.0.1:{free_port()}", door=OLD_KERNEL) as unguarded:
        assert unguarded.stranger() == "b'hello'"
        assert unguarded.answers()


@pytest.mark.parametrize(("door", "code"), [(DOOR, 0), (OLD_KERNEL, 1)])
def test_it_tells_whether_the_kernel_asks(door: tuple[str, ...], code: int) -> None:
    assert subprocess.run(door, check=False, timeout=60).returncode == code


STRANGERS_FIRST = f"""
import socket, subprocess, sys
from roost.supervisor import door
connect = socket.create_connection
def late(address, *words, **more):
    code = {STRANGER!r} + f"for _ in range(9): c = socket.socket(); c.connect({{address!r}})"
    subprocess.run([sys.executable, "-c", code], check=True)
    return connect(address, *words, **more)
socket.create_connection = late
sys.exit(not door.works())
"""


def test_others_cannot_make_the_trial_fail() -> None:
    argv = [sys.executable, "-c", STRANGERS_FIRST]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("broken", "complaint", "code"),
    [
        (
            # The trial went well, and then there is no memory for another filter.
            "door.works = lambda: True\n"
            "def none(): raise OSError(12, 'no memory')\n"
            "door._filter = none",
            "[Errno 12] no memory",
            127,
        ),
        (
            "door.works = lambda: True\n"
            "def no(number, *_): raise PermissionError(1, 'not allowed')\n"
            "call, door._call = door._call, lambda n, *w: (no if n == 438 else call)(n, *w)",
            "the door before the ports of the tunnel: [Errno 1] not allowed",
            1,
        ),
        (
            "def full(a, timeout): raise TimeoutError('nobody answers')\n"
            "door.socket.create_connection = full",
            "the door before the ports of the tunnel: nobody answers",
            1,
        ),
    ],
)
def test_what_cannot_be_guarded_is_not_let_run(broken: str, complaint: str, code: int) -> None:
    """Nor asked for ever: ssh would, at a socket where a connection waits."""
    start = f"import sys\nfrom roost.supervisor import door\n{broken}\n"
    start += "sys.exit(door.main(sys.argv[1:]))"
    where = f"127.0.0.1:{free_port()}"
    argv = [sys.executable, "-c", start, sys.executable, "-c", SERVER, where]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as door:
        try:
            assert door.stderr
            said = door.stderr.readline()
            if said == "listens\n":
                with contextlib.suppress(OSError):
                    Door(door, 0, where).connect().close()
                said = door.stderr.readline()
            assert complaint in said
            assert door.wait(60) == code
        finally:
            door.kill()
    wait_for(lambda: not Door(door, 0, where).listens())


def test_signals_are_as_they_are_for_any_program() -> None:
    """Python ignores two, which it would hand down."""
    argv = [*DOOR, "grep", "SigIgn", "/proc/self/status"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stderr
    ignored = int(said.split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


def test_no_right_is_needed() -> None:
    if os.getuid() != 0:
        pytest.fail("needs root, to be somebody else")
    # What has changed its user is closed to itself until it says otherwise (PR_SET_DUMPABLE).
    code = (
        f"import encodings.idna\nfrom roost.supervisor import door\n{STRANGER}"
        "door._libc.prctl(4, 1, 0, 0, 0)\nsys.exit(not door.works())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


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
