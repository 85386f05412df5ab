"""A box with a small server on it, and ways to cut what leads there and to see it come back."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from boxes import LiveBox, exec_in, private_network
from roost import inventory, ports, process, ssh
from roost.forwards import NOTHING_SPECIAL, Allow
from roost.model import Box, Fleet, Forward
from roost.paths import Paths
from roost.supervisor.processes import processes, ssh_processes
from roost.supervisor.protocol import Status
from roost.tunnels import Tunnels

T = TypeVar("T")

# Knows no more than python3-minimal: GET answers as a web server does, SEND n sends n bytes,
# TAKE n takes n bytes and answers with their hash, ECHO gives every line back.
SPEAKER = r"""
import hashlib, os, signal, socket, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
BLOCK = bytes(range(256)) * 256
def talk(connection):
    file = connection.makefile("rwb")
    words = file.readline().split()
    if words[:1] == [b"GET"]:
        file.write(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
    elif words[:1] == [b"SEND"]:
        left = int(words[1])
        while left > 0:
            file.write(BLOCK[:left])
            left -= len(BLOCK)
    elif words[:1] == [b"TAKE"]:
        left, found = int(words[1]), hashlib.sha256()
        while left > 0:
            data = file.read1(min(left, 65536))
            if not data:
                break
            found.update(data)
            left -= len(data)
        file.write(found.hexdigest().encode() + b"\n")
    elif words[:1] == [b"ECHO"]:
        for line in file:
            file.write(line)
            file.flush()
    file.flush()
def serve(server):
    server.listen(512)
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            server.close()
            talk(connection)
            os._exit(0)
        connection.close()
def main():
    tcp = socket.socket()
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind((sys.argv[1], 8000))
    if os.fork() == 0:
        serve(tcp)
    os.makedirs("/run/speaker", exist_ok=True)
    path = "/run/speaker/app.sock"
    if os.path.exists(path):
        os.unlink(path)
    local = socket.socket(socket.AF_UNIX)
    local.bind(path)
    os.chmod(path, 0o666)
    serve(local)
main()
"""
BLOCK = bytes(range(256)) * 256

UNIT = """\
[Service]
ExecStart=/usr/bin/python3 /opt/speaker.py {address}
[Install]
WantedBy=multi-user.target
"""


def give_speaker(box: LiveBox, address: str = "127.0.0.1") -> None:
    """Put the server on the box, so that it runs again after a reboot."""
    unit = UNIT.format(address=address)
    for path, text in (
        ("/opt/speaker.py", SPEAKER),
        ("/etc/systemd/system/speaker.service", unit),
    ):
        packed = base64.b64encode(text.encode()).decode()
        exec_in(box, ["sh", "-c", f"echo {packed} | base64 -d > {path}"])
    exec_in(box, ["systemctl", "daemon-reload"])
    exec_in(box, ["systemctl", "enable", "--now", "speaker"])
    # proc(5): it listens (0A) on port 8000 (1F40).
    listens = ["grep", "-q", ":1F40 .* 0A ", "/proc/net/tcp"]
    wait_for(lambda: exec_in(box, listens, check=False).returncode == 0)


@dataclass(frozen=True)
class Way:
    """A box as the library reaches it."""

    box: Box
    config: Path
    fleet: Fleet

    def open(self, tunnels: Tunnels, *specs: str, allow: Allow = NOTHING_SPECIAL) -> list[Status]:
        wanted = [Forward.parse(s) for s in specs]
        return tunnels.open(self.box, self.config, wanted, fleet=self.fleet, allow=allow)


def way(box: LiveBox) -> Way:
    paths = Paths.from_environment(os.environ)
    fleet = inventory.load(box.workspace, paths=paths, environ=os.environ)
    config = ssh.ensure_config(box.workspace.root, fleet, paths, user_config=False)
    return Way(fleet.box(box.name), config, fleet)


@pytest.fixture
def tunnels(paths: Paths) -> Iterator[Tunnels]:
    """The tunnels of this test's user; nothing of them is left after the test."""
    client = Tunnels(paths, dict(os.environ))
    try:
        yield client
    finally:
        for pid, _ in ours(client):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        client.close([s.id for s in client.list()])
        assert not doors(client)
        wait_for(lambda: not ours(client) and not supervisors(client))


@pytest.fixture
def speaker(shared_box: Callable[..., LiveBox]) -> LiveBox:
    """A box with the server on it, for tests that leave it as it is."""
    return shared_box("speaker", prepare=give_speaker)


@pytest.fixture
def behind(sandbox_factory: Callable[..., dict[str, LiveBox]]) -> LiveBox:
    """A box with the server on it that only the box ``gate`` of its sandbox reaches."""
    inner = private_network(sandbox_factory("gate")["gate"])
    give_speaker(inner)
    return inner


def free_port() -> int:
    """A port that no other test on this machine is likely to take in the meantime."""
    return ports.next_free(random.randrange(10_000, 30_000))


def ours(client: Tunnels) -> list[tuple[int, list[str]]]:
    """The ssh processes that belong to the client's tunnels, gateways' included."""
    mark = f"{client.places.runtime}/"
    return [(pid, argv) for pid, argv in ssh_processes() if any(mark in a for a in argv)]


def carriers(client: Tunnels) -> list[int]:
    """The ssh processes that carry forwards."""
    return [pid for pid, argv in ours(client) if "-N" in argv]


def doors(client: Tunnels) -> list[int]:
    """The processes that guard the local ports of the client's tunnels."""
    mark = f"{client.places.runtime}/"
    return [
        pid
        for pid, argv in processes()
        if "roost.supervisor.door" in argv and any(a.startswith(mark) for a in argv)
    ]


def supervisors(client: Tunnels) -> list[int]:
    """The supervisors that serve the client's folders."""
    found: dict[int, int] = {}
    for pid, argv in processes():
        if "roost.supervisor" in argv and str(client.places.runtime.parent) in argv:
            with contextlib.suppress(OSError):
                found[pid] = int(Path(f"/proc/{pid}/stat").read_text().split()[3])
    # What it is just starting still has its name, for a moment.
    return [pid for pid, parent in found.items() if parent not in found]


def wait_for(condition: Callable[[], T], seconds: float = 60.0) -> T:
    """Wait until ``condition`` is true, and return what it returned."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {condition}")


def talk(where: int | str, line: bytes = b"GET / HTTP/1.0\r\n\r\n", seconds: float = 5.0) -> bytes:
    """Say one line to a local port or socket, and return the whole answer."""
    with connect(where, seconds) as connection, connection.makefile("rwb") as file:
        file.write(line)
        file.flush()
        return file.read()


def connect(where: int | str, seconds: float = 5.0) -> socket.socket:
    if isinstance(where, int):
        return socket.create_connection(("127.0.0.1", where), timeout=seconds)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(seconds)
    connection.connect(where)
    return connection


def answers(where: int | str) -> bool:
    """Whether the server on the box answers through the forward at ``where``."""
    try:
        return talk(where, seconds=1.0).endswith(b"hello\n")
    except OSError:
        return False


def status_of(client: Tunnels, spec: str, *, probe: float = 0.0) -> Status:
    """The tunnel that carries ``spec``."""
    return next(
        s for s in client.list(probe=probe) if any(f.spec.endswith(spec) for f in s.forwards)
    )


def in_network(box: LiveBox, *argv: str) -> process.Completed:
    """Run a program of this machine in the box's network."""
    return process.run(["nsenter", "--target", str(box.now.pid), "--net", *argv])


@contextmanager
def cut_off(box: LiveBox) -> Iterator[None]:
    """Every packet to and from the box is lost, and nobody is told."""
    for chain in ("INPUT", "OUTPUT"):
        in_network(box, "iptables", "-I", chain, "-j", "DROP")
    try:
        yield
    finally:
        for chain in ("INPUT", "OUTPUT"):
            in_network(box, "iptables", "-D", chain, "-j", "DROP")


@contextmanager
def paused(box: LiveBox) -> Iterator[None]:
    """Every process of the box stands still; its kernel still answers."""
    box.sandbox.engine("pause", box.now.container)
    try:
        yield
    finally:
        box.sandbox.engine("unpause", box.now.container)


def kill_sshd_sessions(box: LiveBox) -> None:
    """End every ssh session on the box, and leave the one sshd that listens."""
    script = (
        "main=$(systemctl show -P MainPID ssh); "
        "for pid in $(grep -lsE '^(sshd|sshd-session)$' /proc/[0-9]*/comm | cut -d/ -f3); do "
        '[ "$pid" = "$main" ] || kill -9 "$pid"; done'
    )
    exec_in(box, ["sh", "-c", script])
