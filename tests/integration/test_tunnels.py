"""Tunnels to a real box: what they carry, what is refused, and what is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import ROOST, roost
from tunnel_rig import (
    BLOCK,
    answers,
    behind,
    carriers,
    connect,
    doors,
    free_port,
    give_speaker,
    ours,
    speaker,
    status_of,
    supervisors,
    tunnels,
    wait_for,
    way,
)

from boxes import LiveBox, exec_in, ssh
from roost import process
from roost.errors import ExitCode, RoostError, UnreachableError, UsageError
from roost.forwards import Allow
from roost.model import Forward
from roost.tunnels import Tunnels

__all__ = ["behind", "speaker", "tunnels"]
pytestmark = pytest.mark.box

SHARED = Allow(shared=True)


def test_carries_ports_sockets_and_socks_and_leaves_nothing(
    speaker: LiveBox, tunnels: Tunnels, home: Path
) -> None:
    first, second, socks = free_port(), free_port(), free_port()
    local = home / "own.sock"
    way(speaker).open(
        tunnels,
        f"{first}:localhost:8000",
        f"{second}:/run/speaker/app.sock",
        f"{local}:localhost:8000",
        f"D:{socks}",
    )

    assert answers(first)
    assert answers(second)
    assert answers(str(local))
    assert stat.S_IMODE(local.stat().st_mode) == 0o600
    # SOCKS5 (RFC 1928): no authentication, then CONNECT to the name localhost, port 8000.
    with connect(socks) as proxied:
        proxied.sendall(b"\x05\x01\x00")
        assert proxied.recv(2) == b"\x05\x00"
        proxied.sendall(b"\x05\x01\x00\x03\x09localhost" + (8000).to_bytes(2, "big"))
        assert proxied.recv(10)[1] == 0
        proxied.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert proxied.recv(8) == b"HTTP/1.0"
    assert len(carriers(tunnels)) == len(doors(tunnels)) == 1

    tunnels.close([s.id for s in tunnels.list()])

    assert not ours(tunnels)
    assert not doors(tunnels)
    for port in (first, second, socks):
        with pytest.raises(ConnectionRefusedError):
            connect(port)
    assert not local.exists()
    wait_for(lambda: not supervisors(tunnels))
    left = {p.name for p in tunnels.places.runtime.iterdir()}
    assert left <= {"supervisor.lock", "supervisor.log"}
    assert not tunnels.places.wishes.exists()


def test_listens_on_loopback_alone(speaker: LiveBox, tunnels: Tunnels) -> None:
    port = free_port()
    way(speaker).open(tunnels, f"{port}:localhost:8000", f"R:{port}:localhost:{port}", allow=SHARED)

    here = process.run(["ss", "-Hltn", f"sport = :{port}"]).stdout
    assert [line.split()[3] for line in here.splitlines()] == [f"127.0.0.1:{port}"]
    there = ssh(speaker, f"cat /proc/net/tcp /proc/net/tcp6 | grep ':{port:04X} .* 0A '").stdout
    assert [line.split()[1].split(":")[0] for line in there.splitlines()] == ["0100007F"]


def test_remote_forwards_reach_this_side(
    speaker: LiveBox, tunnels: Tunnels, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as editor:
        port, there = editor.getsockname()[1], free_port()
        path = f"/home/{speaker.now.user}/editor.sock"
        specs = (f"R:{there}:localhost:{port}", f"R:{path}:localhost:{port}")
        way(speaker).open(tunnels, *specs, allow=SHARED)

        def greet() -> None:
            for _ in range(2):
                connection, _ = editor.accept()
                with connection:
                    connection.sendall(b"hello from here")

        threading.Thread(target=greet, daemon=True).start()
        ask = "import socket,sys; c=socket.socket({kind}); c.connect({where}); print(c.recv(99))"
        for kind, where in (("socket.AF_INET", ("localhost", there)), ("socket.AF_UNIX", path)):
            program = ask.format(kind=kind, where=repr(where)).replace('"', "'")
            assert "hello from here" in ssh(speaker, f'python3 -c "{program}"').stdout
    mode = ssh(speaker, f"stat -c %a {path}").stdout.strip()
    assert mode == "600"


def test_opens_a_remote_socket_that_an_earlier_ssh_left_behind(
    speaker: LiveBox, tunnels: Tunnels
) -> None:
    path = f"/home/{speaker.now.user}/left-over.sock"
    make = f"import socket; socket.socket(socket.AF_UNIX).bind('{path}')"
    ssh(speaker, f'python3 -c "{make}"')

    way(speaker).open(tunnels, f"R:{path}:localhost:1")

    assert status_of(tunnels, ":1").state == "up"


def test_asking_again_changes_nothing(speaker: LiveBox, tunnels: Tunnels) -> None:
    port = free_port()
    way(speaker).open(tunnels, f"{port}:localhost:8000")
    before = carriers(tunnels)
    with connect(port) as conversation:
        conversation.sendall(b"ECHO\n")

        way(speaker).open(tunnels, f"{port}:localhost:8000")

        conversation.sendall(b"still here\n")
        assert conversation.recv(99) == b"still here\n"
    assert carriers(tunnels) == before


def test_two_at_once_make_one_supervisor(speaker: LiveBox, tunnels: Tunnels) -> None:
    shared, spare = free_port(), free_port()
    root = speaker.workspace.root
    opened = [
        process.start([ROOST, "-w", root, "tunnel", "open", speaker.name, f"{p}:localhost:8000"])
        for p in (shared, shared, spare)
    ]
    for one in opened:
        _, said = one.communicate(timeout=60)
        assert one.returncode == 0, said

    assert answers(shared)
    assert answers(spare)
    assert len(supervisors(tunnels)) == 1
    assert len(carriers(tunnels)) == 2


def test_a_taken_port_is_named_and_nothing_is_opened(speaker: LiveBox, tunnels: Tunnels) -> None:
    # Not one of those that the kernel hands out: the next one has to be free, too.
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(UsageError) as refused:
        way(speaker).open(tunnels, f"{free_port()}:localhost:8000", f"{port}:localhost:8000")

    assert f"port {port} " in refused.value.what
    assert f"process {os.getpid()}" in str(refused.value.why)
    assert f"{port + 1}:localhost:8000" in str(refused.value.fix)
    assert not carriers(tunnels)


def test_a_file_is_not_replaced_by_a_socket(
    speaker: LiveBox, tunnels: Tunnels, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")

    with pytest.raises(UsageError, match="not a socket"):
        way(speaker).open(tunnels, f"{precious}:localhost:8000")

    assert precious.read_text() == "mine"


def test_what_could_not_all_be_opened_is_not_open(speaker: LiveBox, tunnels: Tunnels) -> None:
    port = free_port()

    with pytest.raises(RoostError, match="does not open the remote forward"):
        specs = (f"{port}:localhost:8000", "R:8000:localhost:1")
        way(speaker).open(tunnels, *specs, allow=SHARED)

    assert not tunnels.list()
    assert not ours(tunnels)


def test_a_box_that_is_not_there(
    sandbox_factory: Callable[..., dict[str, LiveBox]], tunnels: Tunnels
) -> None:
    box = sandbox_factory("box")["box"]
    reach = way(box)
    box.sandbox.engine("stop", "--time", "1", box.now.container)

    with pytest.raises(UnreachableError) as stopped:
        reach.open(tunnels, f"{free_port()}:localhost:8000")

    assert stopped.value.exit_code == ExitCode.UNREACHABLE
    assert not tunnels.list()
    assert not ours(tunnels)


def test_a_key_that_is_refused_is_explained(
    sandbox_factory: Callable[..., dict[str, LiveBox]], tunnels: Tunnels
) -> None:
    box = sandbox_factory("box")["box"]
    exec_in(box, ["sh", "-c", "rm /home/*/.ssh/authorized_keys"])

    with pytest.raises(UnreachableError, match="refuses"):
        way(box).open(tunnels, f"{free_port()}:localhost:8000")


def test_a_remote_port_that_is_taken_is_explained(speaker: LiveBox, tunnels: Tunnels) -> None:
    with pytest.raises(RoostError, match="does not open the remote forward"):
        way(speaker).open(tunnels, "R:8000:localhost:1", allow=SHARED)
    assert not tunnels.list()


def test_says_what_does_not_answer_behind_the_forward(
    sandbox_factory: Callable[..., dict[str, LiveBox]], tunnels: Tunnels
) -> None:
    box = sandbox_factory("box")["box"]
    port = free_port()

    way(box).open(tunnels, f"{port}:localhost:8000")
    [before] = status_of(tunnels, ":8000", probe=2).forwards
    give_speaker(box)
    wait_for(lambda: answers(port))
    [after] = status_of(tunnels, ":8000", probe=2).forwards

    assert (before.state, after.state) == ("refused", "answers")
    assert "localhost:8000" in before.why


def test_through_a_gateway(behind: LiveBox, tunnels: Tunnels) -> None:
    port = free_port()

    way(behind).open(tunnels, f"{port}:localhost:8000")

    assert answers(port)
    # The hop through the gateway is the tunnel's own, too: no shared connection is left behind.
    assert len(ours(tunnels)) == 2
    tunnels.close([s.id for s in tunnels.list()])
    assert not ours(tunnels)


def test_nobody_else_on_this_machine_gets_in(
    speaker: LiveBox, tunnels: Tunnels, home: Path
) -> None:
    local, control = home / "own.sock", home / "control.sock"
    way(speaker).open(tunnels, f"{local}:localhost:8000")
    runtime = tunnels.places.runtime.parent
    for folder in (home, home.parent, runtime, runtime.parent):
        folder.chmod(0o755)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(control))
        listener.listen()
        control.chmod(0o666)
        assert _as_nobody(lambda: connect(str(control))) == "no error"
    for path in (local, tunnels.places.socket, *tunnels.places.runtime.glob("*.probe")):
        assert _as_nobody(lambda path=path: connect(str(path))) == "PermissionError"
    assert answers(str(local))


def _as_nobody(action: Callable[[], object]) -> str:
    """The name of the error that ``action`` ends with for a user without any right."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            action()
            os.write(writer, b"no error")
        except BaseException as error:
            os.write(writer, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as file:
        return file.read()


def test_refuses_a_folder_that_a_stranger_has_made(tunnels: Tunnels, speaker: LiveBox) -> None:
    folder = tunnels.places.runtime
    folder.mkdir(parents=True)
    os.chown(folder, 65534, 65534)

    with pytest.raises(RoostError, match="is not a folder of yours"):
        way(speaker).open(tunnels, f"{free_port()}:localhost:8000")

    os.chown(folder, os.getuid(), os.getgid())


@pytest.mark.parametrize("megabytes", [64, pytest.param(1024, marks=pytest.mark.long)])
def test_bytes_arrive_as_they_were_sent(speaker: LiveBox, tunnels: Tunnels, megabytes: int) -> None:
    port, size = free_port(), megabytes * 1024 * 1024
    way(speaker).open(tunnels, f"{port}:localhost:8000")

    with connect(port, 60) as connection:
        connection.sendall(b"TAKE %d\n" % size)
        for _ in range(size // len(BLOCK)):
            connection.sendall(BLOCK)
        taken = connection.makefile("rb").readline().strip()
    sent = hashlib.sha256()
    with connect(port, 60) as connection:
        connection.sendall(b"SEND %d\n" % size)
        while data := connection.recv(65536):
            sent.update(data)

    expected = hashlib.sha256()
    for _ in range(size // len(BLOCK)):
        expected.update(BLOCK)
    assert taken.decode() == sent.hexdigest() == expected.hexdigest()


def test_a_slow_reader_holds_up_nobody(speaker: LiveBox, tunnels: Tunnels) -> None:
    port = free_port()
    way(speaker).open(tunnels, f"{port}:localhost:8000")

    with connect(port, 60) as slow:
        slow.sendall(b"SEND 50000000\n")
        assert slow.recv(1)
        # More than a few turns of the supervisor's own questions, while nothing is read.
        asked = wait_for(lambda: tunnels.list(probe=2.0))
        assert asked[0].forwards[0].state == "answers"
        assert answers(port)
        got = 1
        while data := slow.recv(1 << 20):
            got += len(data)
    assert got == 50_000_000
    assert status_of(tunnels, ":8000").breaks == 0


def test_many_connections_at_once(speaker: LiveBox, tunnels: Tunnels) -> None:
    port = free_port()
    way(speaker).open(tunnels, f"{port}:localhost:8000")
    open_ones = [connect(port, 60) for _ in range(200)]
    try:
        for number, one in enumerate(open_ones):
            one.sendall(b"ECHO\n%d\n" % number)
        for number, one in enumerate(open_ones):
            assert one.recv(99) == b"%d\n" % number
    finally:
        for one in open_ones:
            one.close()


def test_the_command_line(speaker: LiveBox, tunnels: Tunnels) -> None:
    port = free_port()

    opened = roost(speaker, "tunnel", "open", speaker.name, f"{port}:localhost:8000")
    assert (opened.returncode, opened.stdout) == (0, f"127.0.0.1:{port}:localhost:8000\n")
    listed = json.loads(roost(speaker, "tunnel", "list", "--json").stdout)
    assert [(t["box"], t["state"]) for t in listed] == [(speaker.name, "up")]
    assert roost(speaker, "tunnel", "open", speaker.name, "80:localhost:8000").returncode == 2
    assert roost(speaker, "tunnel", "open", speaker.name, "*:8080:localhost:1").returncode == 2
    assert roost(speaker, "tunnel", "open", speaker.name).returncode == 2
    closed = roost(speaker, "tunnel", "close", speaker.name, f"{port}:localhost:8000")
    assert closed.returncode == 0
    assert roost(speaker, "tunnel", "list", "--json").stdout == "[]\n"
    assert Forward.parse(f"{port}:localhost:8000")


def test_the_doctor_names_the_forward_that_leads_to_nothing(
    speaker: LiveBox, tunnels: Tunnels
) -> None:
    specs = [f"127.0.0.1:{free_port()}:localhost:{there}" for there in (8000, 9)]
    assert roost(speaker, "tunnel", "open", speaker.name, *specs).returncode == 0
    said = json.loads(roost(speaker, "doctor", "--json", speaker.name).stdout)
    found = {f["level"]: f for f in said if f["subject"] == f"{speaker.name} tunnel"}
    assert found["ok"]["text"] == specs[0]
    assert found["warning"]["text"] == f"{specs[1]}: nothing answers at localhost:9 on the box"
    assert found["warning"]["fix"].endswith(f": roost tunnel close {speaker.name} {specs[1]}")
    assert len(found) == 2


def test_the_inventorys_forwards_are_opened_where_none_is_named(
    speaker: LiveBox, tunnels: Tunnels
) -> None:
    port, there = free_port(), free_port()
    forwards = [f"{port}:localhost:8000", f"R:{there}:localhost:1"]
    own = speaker.workspace.inventory / "host_vars" / f"{speaker.name}.yml"
    own.parent.mkdir(exist_ok=True)
    own.write_text(json.dumps({"roost_forwards": forwards}))
    try:
        refused = roost(speaker, "tunnel", "open", speaker.name)
        assert refused.returncode == ExitCode.USAGE
        assert "R:/home/YOU/NAME.sock:localhost:1, or say --shared" in refused.stderr

        opened = roost(speaker, "tunnel", "open", speaker.name, "--shared")

        assert opened.returncode == 0, opened.stderr
        assert sorted(opened.stdout.splitlines()) == [
            f"127.0.0.1:{port}:localhost:8000",
            f"R:127.0.0.1:{there}:localhost:1",
        ]
        assert answers(port)
        # Plain ssh NAME carries none of them, so that a second one does not fail on the port.
        asked = process.run(["ssh", "-G", "-F", speaker.workspace.ssh_config, speaker.name])
        assert "forward " not in asked.stdout
        assert roost(speaker, "ssh", speaker.name, "--", "true").returncode == 0
    finally:
        own.unlink()
