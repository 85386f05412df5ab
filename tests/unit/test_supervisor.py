"""The parts of the supervisor that need no box."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import platform
import plistlib
import select
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from roost import autostart, ports, process
from roost.errors import RoostError
from roost.model import Forward
from roost.paths import Paths
from roost.supervisor import doubt, network, pac, probe, session
from roost.supervisor.daemon import Lock, Supervisor
from roost.supervisor.doubt import grace
from roost.supervisor.failure import diagnose
from roost.supervisor.processes import ssh_processes
from roost.supervisor.protocol import Places, Status, Wish, ensure_private, places
from roost.supervisor.way import Way, first_hop

WISH = Wish("gpu1", "/w/.roost/ssh_config", ("127.0.0.1:6006:localhost:6006", "D:127.0.0.1:8157"))


@pytest.fixture
def there(paths: Paths) -> Places:
    found = places(paths.runtime, paths.state)
    ensure_private(found.runtime)
    return found


def test_a_wish_survives_json() -> None:
    full = dataclasses.replace(WISH, label="proxy", speaks={"a": "ssh"}, pac=(8158, "script"))
    for wish in (WISH, full):
        assert Wish.from_json(json.loads(json.dumps(dataclasses.asdict(wish)))) == wish
    assert full.id == WISH.id
    assert full.purpose != WISH.purpose


def test_ssh_reads_the_arguments_as_they_are_meant(there: Places, tmp_path: Path) -> None:
    config = tmp_path / "it's 100% a config"
    config.write_text("Host gpu1\n    HostName 192.0.2.1\n    ControlMaster auto\n")
    wish = dataclasses.replace(WISH, config=str(config))
    session.write_config(wish, there)

    argv = session.arguments(wish, there)
    read = process.run([argv[0], "-G", *argv[1:]]).stdout.splitlines()

    options = dict(line.split(" ", 1) for line in read if " " in line)
    assert options["hostname"] == "192.0.2.1"
    assert options["batchmode"] == "yes"
    assert options["exitonforwardfailure"] == "yes"
    assert options["controlmaster"] == "false"
    assert "dynamicforward [127.0.0.1]:8157" in read
    assert "localforward [127.0.0.1]:6006 [localhost]:6006" in read


@pytest.mark.parametrize(
    ("forwards", "door"),
    [
        (("127.0.0.1:6006:localhost:6006",), True),
        (("[::1]:6006:localhost:6006",), True),
        (("D:127.0.0.1:8157",), True),
        (("0.0.0.0:6006:localhost:6006", "127.1.2.3:6007:localhost:6006"), True),
        (("0.0.0.0:6006:localhost:6006", "D:*:8157"), False),
        (("/tmp/app.sock:localhost:8000",), False),
        (("R:127.0.0.1:9000:localhost:9000", "R:/home/me/own.sock:localhost:9000"), False),
    ],
)
def test_ports_on_loopback_have_a_door(
    monkeypatch: pytest.MonkeyPatch, forwards: tuple[str, ...], door: bool
) -> None:
    wish = dataclasses.replace(WISH, forwards=forwards)
    assert session.has_door(wish) is door
    assert not session.has_door(dataclasses.replace(wish, door=False))
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(platform, "release", lambda: "5.15.153.1-microsoft-standard-WSL2")
        assert not session.has_door(wish)
        assert not session.doors_work()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not session.has_door(wish)
    assert not session.doors_work()


def test_the_gateway_is_the_first_machine(there: Places, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "Host gate\n  HostName 192.0.2.1\n  Port 2200\n"
        "Host inner\n  HostName 10.0.0.1\n  ProxyJump gate\n"
        "Host deep\n  ProxyJump inner\n"
        "Host odd\n  ProxyCommand nc %h %p\n"
        "Host plain\n  HostName 192.0.2.9\n"
    )
    for box, host, port in (("inner", "192.0.2.1", 2200), ("deep", "192.0.2.1", 2200)):
        hop = first_hop(config, box)
        assert hop is not None
        assert (hop.host, hop.port) == (host, port)
    assert first_hop(config, "odd") is None
    plain = first_hop(config, "plain")
    assert plain is not None
    assert plain.host == "192.0.2.9"


@pytest.mark.parametrize(
    ("said", "why", "hopeless", "network", "left_over"),
    [
        (
            "ssh: connect to host gpu1 port 22: Connection refused\n",
            "ssh: connect to host gpu1 port 22: Connection refused",
            False,
            True,
            False,
        ),
        (
            "channel 2: open failed: connect failed: Connection refused\n"
            "Timeout, server 192.0.2.1 not responding.\n",
            "Timeout, server 192.0.2.1 not responding.",
            False,
            True,
            False,
        ),
        (
            "me@192.0.2.1: Permission denied (publickey).\n",
            "me@192.0.2.1: Permission denied (publickey).",
            True,
            False,
            False,
        ),
        (
            "bind [127.0.0.1]:8888: Address already in use\n"
            "channel_setup_fwd_listener_tcpip: cannot listen to port: 8888\n",
            "bind [127.0.0.1]:8888: Address already in use",
            False,
            False,
            False,
        ),
        (
            "Error: remote port forwarding failed for listen path /home/ann/e.sock\n",
            "Error: remote port forwarding failed for listen path /home/ann/e.sock",
            False,
            False,
            True,
        ),
        ("", "ssh ended without a word", False, True, False),
    ],
)
def test_reads_why_ssh_ended(
    said: str, why: str, hopeless: bool, network: bool, left_over: bool
) -> None:
    found = diagnose(said)
    assert (found.why, found.hopeless) == (why, hopeless)
    assert (found.network, found.left_over) == (network, left_over)


def test_the_supervisor_stays_small() -> None:
    """It runs all day: nothing heavy is imported."""
    heavy = "{'ansible', 'rich', 'yaml', 'ssl', 'roost.inventory', 'roost.cli'}"
    code = (
        "import runpy, sys; sys.argv = ['x', '/nowhere', '/nowhere']\n"
        "try: runpy.run_module('roost.supervisor', run_name='not main')\n"
        "finally: print(sorted(m for m in sys.modules if sys.modules[m] and "
        f"m in {heavy}))"
    )
    assert process.run([sys.executable, "-c", code]).stdout.strip() == "[]"


def test_there_is_one_supervisor(there: Places) -> None:
    first, second = Lock(there.lock), Lock(there.lock)
    assert first.take()
    assert not second.take()
    assert first.is_ours()
    there.lock.unlink()
    assert not first.is_ours()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tunnels": 3}', '{"tunnels": [3, {}]}'])
def test_a_damaged_record_is_put_aside(there: Places, text: str) -> None:
    ensure_private(there.state)
    there.wishes.write_text(text)

    async def resume() -> int:
        supervisor = Supervisor(there, Lock(there.lock))
        await supervisor._resume()
        return len(supervisor.tunnels)

    assert asyncio.run(resume()) == 0


def test_a_path_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="too long"):
        places(tmp_path / ("x" * 90), tmp_path)


def test_any_answer_proves_a_session_alive(there: Places) -> None:
    path = str(there.runtime / "canary")

    async def ask(answer: bytes | None) -> bool:
        held = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            held.append(writer)  # one that nothing refers to is closed, from Python 3.13 on
            await reader.read(1)
            if answer is not None:
                writer.write(answer)
                writer.close()

        async with await asyncio.start_unix_server(serve, path):
            found = await probe.alive(path, 0.2)
            for writer in held:  # or the server never ends, from Python 3.12 on
                writer.close()
        Path(path).unlink(missing_ok=True)
        return found

    assert asyncio.run(ask(b"REJECTED EXTERNAL\r\n"))
    assert asyncio.run(ask(b""))
    assert not asyncio.run(ask(None))
    assert not asyncio.run(probe.alive(path, 0.2))


def test_the_end_of_ssh_itself_is_no_answer(there: Places) -> None:
    """An ssh that gives up (a forward was refused) closes what it listens on, then the rest."""
    path = str(there.runtime / "canary")

    async def ask() -> bool:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            server.close()
            writer.close()

        server = await asyncio.start_unix_server(serve, path)
        return await probe.alive(path, 5.0)

    assert not asyncio.run(ask())


def test_the_end_of_ssh_is_no_answer_in_whatever_order_it_closes(there: Places) -> None:
    """The connection first, and what it listens on when the next question waits there."""
    path = str(there.runtime / "canary")
    with socket.socket(socket.AF_UNIX) as server, ThreadPoolExecutor() as pool:
        server.bind(path)
        server.listen()

        def end() -> None:
            connection, _ = server.accept()
            connection.recv(1)
            connection.close()
            select.select([server], [], [], 60)
            server.close()

        ended = pool.submit(end)
        assert not asyncio.run(probe.alive(path, 5.0))
        ended.result()


def test_asks_the_first_machine_again_and_again(tmp_path: Path) -> None:
    """A question that is not answered does not hold up the next one."""
    config = tmp_path / "config"

    async def ask() -> tuple[float | None, float | None]:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        config.write_text(f"Host gpu1\n  HostName 127.0.0.1\n  Port {port}\n")
        server.close()
        await server.wait_closed()
        way = Way(config, "gpu1", config)
        closed = await way.ask(0.1)
        again = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", port)
        opened = await way.ask(1.0)
        again.close()
        return closed, opened

    closed, opened = asyncio.run(ask())
    assert closed is None
    assert opened is not None


def test_a_lost_question_does_not_make_the_way_longer(tmp_path: Path) -> None:
    """Its answer comes when the kernel has repeated it, a second later."""
    config = tmp_path / "config"
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as stack:
        port = server.getsockname()[1]
        config.write_text(f"Host gpu1\n  HostName 127.0.0.1\n  Port {port}\n")
        for _ in range(3):  # more than it queues: what comes then is lost
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))

        async def ask() -> float | None:
            asked = asyncio.create_task(Way(config, "gpu1", config).ask(60))
            # proc(5): its connection is being opened (02), beside the one of the queue.
            opening = f":{port:04X} 02 "
            while Path("/proc/net/tcp").read_text("ascii").count(opening) < 3:
                await asyncio.sleep(0.01)
            server.accept()[0].close()
            server.accept()[0].close()
            return await asked

        took = asyncio.run(ask())
    assert took is not None
    assert took < 1.0


def test_asks_at_the_new_address_when_the_inventory_changes(tmp_path: Path) -> None:
    """Also in the middle of an outage that the old address would never end."""
    config = tmp_path / "config"

    async def moved() -> None:
        server = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        config.write_text("Host box\n  HostName 127.0.0.1\n  Port 1\n")
        way = Way(config, "box", config)
        for _ in range(3):
            assert await way.ask(0.1) is None
        config.write_text(f"Host box\n  HostName 127.0.0.1\n  Port {port}\n")
        assert await way.ask(5.0) is not None
        server.close()

    asyncio.run(moved())


def test_leaves_no_ssh_behind_that_reads_the_config(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text('Match exec "sleep 1"\n  User x\nHost *\n  HostName 192.0.2.1\n')

    def reading() -> bool:
        return any(str(config) in argv for _, argv in ssh_processes())

    async def interrupted() -> None:
        way = Way(config, "box", config)
        asked = asyncio.create_task(way.is_known())
        while not reading():
            await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.wait({asked})
        assert reading()
        await way.end()
        assert not reading()

    asyncio.run(interrupted())


def test_notices_that_it_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_TICK", 0.01)
    woke: list[float] = []
    real = time.time

    async def sleep() -> None:
        clock = asyncio.create_task(network.watch_clock(woke.append))
        await asyncio.sleep(0.05)
        assert not woke
        monkeypatch.setattr(network.time, "time", lambda: real() + 3600)
        async with asyncio.timeout(5):
            while not woke:
                await asyncio.sleep(0.01)
        clock.cancel()

    asyncio.run(sleep())
    assert 3590 < woke[0] < 3610


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="gives the loopback device an address"
)
def test_notices_that_the_network_changed() -> None:
    changes: list[bool] = []

    async def change() -> None:
        monitor = network.open_monitor()
        assert monitor is not None
        network.watch_network(monitor, lambda: changes.append(True))
        address = ["127.77.0.1/32", "dev", "lo"]
        await asyncio.to_thread(process.run, ["ip", "addr", "add", *address])
        try:
            async with asyncio.timeout(5):
                while not changes:
                    await asyncio.sleep(0.01)
        finally:
            await asyncio.to_thread(process.run, ["ip", "addr", "del", *address])
            asyncio.get_running_loop().remove_reader(monitor)
            monitor.close()

    asyncio.run(change())


def test_serves_the_script_and_nothing_else() -> None:
    head, body = asyncio.run(_fetch("/proxy.pac"))
    assert "application/x-ns-proxy-autoconfig" in head
    assert body == "function FindProxyForURL() {}"
    assert " 404 " in asyncio.run(_fetch("/etc/passwd"))[0]


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_serves_the_script_to_no_other_user() -> None:
    stranger = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    head, body = asyncio.run(_fetch("/proxy.pac", *stranger))
    assert " 404 " in head
    assert not body


async def _fetch(path: str, *prefix: str) -> tuple[str, str]:
    server = await pac.serve(0, "function FindProxyForURL() {}")
    port = server.sockets[0].getsockname()[1]
    argv = [*prefix, "curl", "-sSi", "--noproxy", "*", f"http://127.0.0.1:{port}{path}"]
    done = await asyncio.to_thread(process.run, argv)
    server.close()
    head, _, body = done.stdout.partition("\n\n")
    return head, body


@pytest.mark.parametrize(
    ("spec", "speaks"),
    [("2222:localhost:22", "ssh"), ("80:web:80", "http /"), ("5432:db:5432", ""), ("D:1080", "")],
)
def test_what_a_forward_speaks_by_its_port(spec: str, speaks: str) -> None:
    assert probe.speaks(Forward.parse(spec)) == speaks


def test_a_status_survives_json() -> None:
    status = Status("id", "gpu1", "lab", "/c", [], breaks=3, broke_why="why")
    assert Status.from_json(json.loads(json.dumps(dataclasses.asdict(status)))) == status


def test_systemd_takes_the_unit(paths: Paths, tmp_path: Path) -> None:
    odd = paths._replace(state=tmp_path / 'a "quoted" $folder 100%')
    unit = tmp_path / autostart.UNIT
    unit.write_bytes(autostart.render(odd, "linux"))
    if not (verify := process.which("systemd-analyze")):
        pytest.fail("systemd-analyze is missing")
    done = process.run(
        [verify, "--user", "verify", unit],
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_launchd_is_given_the_same_command(paths: Paths) -> None:
    agent = plistlib.loads(autostart.render(paths, "darwin"))
    assert agent["ProgramArguments"] == autostart.supervisor_command(paths)
    assert agent["RunAtLoad"] is True


def test_without_a_service_manager_nothing_is_left(paths: Paths, tmp_path: Path) -> None:
    refusing = tmp_path / "bin" / "systemctl"
    refusing.parent.mkdir()
    refusing.write_text("#!/bin/sh\necho no bus >&2; exit 1\n")
    refusing.chmod(0o700)
    environ = {**os.environ, "PATH": f"{refusing.parent}:{os.environ['PATH']}"}

    with pytest.raises(RoostError, match="service manager"):
        autostart.switch_on(paths, environ, "linux")

    assert not autostart.unit_path(paths, environ, "linux").exists()
    assert not autostart.switch_off(paths, environ, "linux")


def test_ends_at_once_beside_another_one(there: Places, paths: Paths) -> None:
    lock = Lock(there.lock)
    assert lock.take()
    argv = autostart.supervisor_command(paths)
    assert subprocess.run(argv, check=False, timeout=30).returncode == 0


def test_a_short_silence_is_forgiven_longer_than_a_long_one() -> None:
    assert grace(quiet=5, round_trip=0.01, login=0.2) == 0.5
    assert grace(quiet=5, round_trip=0.01, login=2.0) == 2.0
    assert grace(quiet=5, round_trip=0.4, login=0.2) == 1.6
    assert grace(quiet=5, round_trip=9, login=9) == 3.0
    assert grace(quiet=5, round_trip=0.01, login=0.2, again_in=0.6) == 1.1
    assert grace(quiet=5, round_trip=0.01, login=0.2, again_in=3.0) == 0.5
    assert grace(quiet=60, round_trip=0.01, login=2.0) == 0.04


def test_what_lies_in_the_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user of this machine may have left it there."""
    (tmp_path / "ctypes.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    assert session.doors_work()


@dataclasses.dataclass
class Silent:
    """A session whose box takes all that is sent and does not answer; and the way there."""

    passes_on: int
    pid: int = 0
    bytes: int = 100

    def sent(self) -> int:
        self.bytes += self.passes_on
        return self.bytes

    def running(self) -> bool:
        return True

    async def is_known(self) -> bool:
        return True

    async def ask(self, _: float) -> float:
        return 0.001

    async def sending(self, _: int) -> ports.Sending:
        return ports.Sending(waiting=0, again_in=0.0)

    def stop_asking(self) -> None:
        pass


@pytest.mark.parametrize(("passes_on", "shown"), [(0, set()), (9, {"silent"})])
def test_an_ssh_that_stands_still_is_no_busy_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes_on: int, shown: set[str]
) -> None:
    """It has not passed the question on, so that all was taken says nothing of the box."""
    monkeypatch.setattr(doubt, "_BUSY_BOX", 0.2)
    one, states = Silent(passes_on), set[str]()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "canary"))
        silent.listen()
        words = (one, one, str(tmp_path / "canary"), 0.0, 100, 0.0)
        failure = asyncio.run(doubt.decide(*words, lambda state, _: states.add(state)))  # type: ignore[arg-type]
    assert failure is not None
    assert states == shown
