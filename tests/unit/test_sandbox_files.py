"""The workspace of a sandbox, the lock and the interrupts, without any container."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from roost import inventory, process
from roost.errors import SandboxError, UsageError
from roost.paths import Paths
from roost.sandbox import Sandbox, files
from roost.sandbox.boxes import SandboxBox
from roost.sandbox.interrupts import deferred
from roost.sandbox.locks import locked

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGlulPNPj4CkaHa+zuN1fkXoguv77rChAYBA6BErqBUL"


def box(name: str, host: str, port: int = 22, via: str = "", *groups: str) -> SandboxBox:
    container = f"roost-0-{name}"
    return SandboxBox(
        name, container, True, "debian:12", "debian", host, port, via, groups, 1, "/state"
    )


def test_the_workspace_is_an_ordinary_one(paths: Paths, tmp_path: Path) -> None:
    space = files.ensure_workspace(tmp_path / "sandbox")
    listed = [
        box("gate", "10.88.200.1", 22, "", "gateways", "lab"),
        box("inner", "10.99.0.2", 22, "gate", "lab"),
        box("here", "127.0.0.1", 40022),
    ]
    files.write_boxes(space, listed, {b.name: (KEY,) for b in listed}, paths)

    fleet = inventory.load(space, paths=paths, environ=os.environ)
    assert {(b.name, b.host, b.port, b.user, b.via) for b in fleet} == {
        ("gate", "10.88.200.1", 22, "debian", ""),
        ("inner", "10.99.0.2", 22, "debian", "gate"),
        ("here", "127.0.0.1", 40022, "debian", ""),
    }
    assert fleet.groups["lab"] == ("gate", "inner")

    for one in fleet:
        asked = process.run(["ssh", "-G", "-F", space.ssh_config, one.name]).stdout.splitlines()
        settings = dict(line.split(" ", 1) for line in asked if " " in line)
        assert (settings["hostname"], settings["port"]) == (one.host, str(one.port))
        assert settings["identityfile"] == str(space.root / "id_ed25519")
        assert settings["userknownhostsfile"] == str(space.known_hosts)
        # What ssh looks the host key up by is in the file.
        alias = settings.get("hostkeyalias", "")
        name = one.host if one.port == 22 else f"[{one.host}]:{one.port}"
        found = process.run(["ssh-keygen", "-F", alias or name, "-f", space.known_hosts])
        assert KEY in found.stdout


def test_the_key_pair_is_private_and_stays(tmp_path: Path) -> None:
    files.ensure_workspace(tmp_path)
    key = tmp_path / "id_ed25519"
    before = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    files.ensure_workspace(tmp_path)
    assert key.read_bytes() == before
    derived = process.run(["ssh-keygen", "-y", "-f", key]).stdout.split()[:2]
    assert derived == files.public_key(tmp_path).split()[:2]


@pytest.mark.parametrize(
    "name", ["", "Gpu1", "gpu_1", "-x", "x-", "1", "a b", "a" * 41, "ä", "a.b"]
)
def test_names_that_are_no_host_names_are_refused(name: str, paths: Paths) -> None:
    with pytest.raises(UsageError):
        Sandbox(paths, name)
    with pytest.raises(UsageError):
        Sandbox(paths).up([name])


def test_ansible_group_names_are_checked(paths: Paths) -> None:
    with pytest.raises(UsageError, match="group"):
        Sandbox(paths).up(["gpu1"], groups=["gpu-boxes"])


def test_a_lock_is_held_by_one_and_leaves_no_file(tmp_path: Path) -> None:
    lock = tmp_path / "sub" / "lock"
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        with locked(lock, waiting.set):
            order.append("second")

    with locked(lock):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert not lock.exists()


def test_a_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = (
        "import sys, os, signal; from pathlib import Path\n"
        "from roost.sandbox.locks import locked\n"
        "with locked(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, lock], check=False)
    assert lock.exists()
    with locked(lock, lambda: pytest.fail("nobody holds it")):
        pass


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SandboxError, match="cannot be written"), locked(tmp_path / "file" / "lock"):
        pass


def test_an_interrupt_waits_for_the_end_of_the_step() -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        with deferred():
            steps.append("begun")
            signal.raise_signal(signal.SIGINT)
            steps.append("ended")
        steps.append("never")
    assert steps == ["begun", "ended"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
