"""Throwaway boxes, asked over real ssh."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cli import ROOST

from boxes import RELEASES, LiveBox, exec_in, private_network, reboot, ssh
from roost import process
from roost.errors import SandboxError, UsageError
from roost.inventory import ansible_environment, ansible_program
from roost.paths import Paths
from roost.sandbox import Sandbox, machine
from roost.sandbox import boxes as box_module
from roost.sandbox.boxes import LABEL
from roost.sandbox.engine import Engine
from roost.sandbox.image import Image, Images
from roost.sandbox.releases import parse

pytestmark = pytest.mark.box
Factory = Callable[..., dict[str, LiveBox]]


@pytest.mark.parametrize("box_os", RELEASES)
def test_a_box_is_as_bare_as_a_cloud_image(box: LiveBox, box_os: str) -> None:
    assert ssh(box, "ps -p 1 -o comm=").stdout == "systemd\n"
    assert ssh(box, "systemctl is-system-running").stdout == "running\n"
    facts = ssh(box, ". /etc/os-release; echo $ID:$VERSION_ID; hostname; id -un").stdout.split()
    assert facts == [box_os, "box", parse(box_os).user]
    assert ssh(box, "sudo -n id -un").stdout == "root\n"
    assert ssh(box, "python3 -c 'import shutil'", check=False).returncode == 1
    assert ssh(box, "test -e /usr/sbin/policy-rc.d", check=False).returncode == 1
    # One key, and no password, opens it.
    assert ssh(box, "wc -l < .ssh/authorized_keys").stdout == "1\n"
    assert exec_in(box, ["passwd", "--status", parse(box_os).user]).stdout.split()[1] == "L"
    # Its own package archive answers.
    updated = ssh(box, "sudo apt-get update && apt-cache policy tmux").stdout
    assert "Candidate: (none)" not in updated and "Candidate:" in updated


def test_ansible_finds_no_python_that_it_can_use(box: LiveBox) -> None:
    env = ansible_environment(box.workspace, os.environ)

    def ansible(module: str) -> process.Completed:
        argv = [ansible_program("ansible"), "box", "-m", module, "-a", "true"]
        argv = argv[:-2] if module == "ping" else argv
        return process.run(argv, cwd=box.workspace.root, env=env, check=False)

    assert ansible("raw").returncode == 0
    missing = ansible("ping")
    assert missing.returncode != 0 and "No module named" in missing.stdout


def test_the_machines_own_authorities_are_trusted(box: LiveBox) -> None:
    trusted = ssh(box, "cat /etc/ssl/certs/ca-certificates.crt").stdout
    own = Path("/etc/ssl/certs/ca-certificates.crt").read_text("utf-8")
    assert own.count("BEGIN CERTIFICATE") > 50
    for certificate in machine.extra_certificates():
        assert certificate in trusted


def test_each_box_has_host_keys_and_a_machine_id_of_its_own(sandbox_factory: Factory) -> None:
    made = sandbox_factory("one", "two")
    asked = [
        ssh(box, "cat /etc/machine-id /etc/ssh/ssh_host_*_key.pub | awk '{print $1 $2}'").stdout
        for box in made.values()
    ]
    assert len(set(asked[0].split()) & set(asked[1].split())) == 0
    image = exec_in(made["one"], ["true"]) and made["one"].now.container
    base = made["one"].sandbox.engine.inspect("container", [image])[0]["Image"]
    listed = made["one"].sandbox.engine("run", "--rm", "--network", "none",
        *made["one"].sandbox.engine.limits(), base, "ls", "/etc/ssh").stdout  # fmt: skip
    assert "sshd_config" in listed and "ssh_host" not in listed


def test_host_keys_are_pinned(box: LiveBox) -> None:
    exec_in(box, ["sh", "-c", "rm /etc/ssh/ssh_host_*; ssh-keygen -A; systemctl restart ssh"])
    done = ssh(box, "true", check=False)
    assert done.returncode == 255 and "Host key verification failed" in done.stderr


def test_up_again_changes_nothing(box: LiveBox) -> None:
    def state() -> dict[str, object]:
        tree = [p for p in box.workspace.root.rglob("*") if p.is_file()]
        return {"box": box.now} | {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in tree}

    before = state()
    assert box.sandbox.up() == [box.now]
    notes: list[str] = []
    box.sandbox.note = notes.append
    assert box.sandbox.up(["box"], os="ubuntu:22.04") == [box.now]
    assert notes == [f"box is there and runs {box.now.release}; it is left as it is"]
    assert state() == before


def test_a_stopped_box_starts_again_where_it_was(box: LiveBox) -> None:
    ssh(box, "echo mine > file")
    before = box.now
    box.sandbox.engine("stop", "--time", "1", before.container)
    assert not box.now.running and box.now.host == ""
    box.sandbox.up()
    assert (box.now.host, box.now.port) == (before.host, before.port)
    assert ssh(box, "cat file").stdout == "mine\n"


def test_a_reboot_is_one(box: LiveBox) -> None:
    before = ssh(box, "cat /proc/1/stat | cut -d' ' -f22").stdout
    reboot(box)
    assert ssh(box, "cat /proc/1/stat | cut -d' ' -f22").stdout != before


def test_down_removes_exactly_what_up_made(sandbox_factory: Factory) -> None:
    made = sandbox_factory("one", "two")
    sandbox = made["one"].sandbox
    engine = sandbox.engine
    image = engine.inspect("container", [made["one"].now.container])[0]["ImageName"]
    foreign = f"roost-foreign-{os.getpid()}"
    engine("create", "--name", foreign, *engine.limits(), image, "true")
    try:
        with pytest.raises(UsageError, match="three"):
            sandbox.down(["three"])
        assert sandbox.down(["one"]) == ["one"]
        assert [box.name for box in sandbox.boxes()] == ["two"]
        assert " one:" not in (sandbox.root / "inventory" / "hosts.yml").read_text()
        assert ssh(made["two"], "hostname").stdout == "two\n"
        assert sandbox.down() == ["two"]
        assert not sandbox.root.exists()
        assert sandbox.down() == []
        assert engine.inspect("container", [foreign])
    finally:
        engine.remove([foreign])


def test_ports_are_published_where_addresses_are_not_reached(
    engine: Engine, paths: Paths, tmp_path: Path
) -> None:
    sandbox = Sandbox(paths, engine=replace(engine, direct=False))
    try:
        sandbox.up(["one", "two"], os=RELEASES[0])
        one, two = (LiveBox(sandbox, name) for name in ("one", "two"))
        assert one.now.host == two.now.host == "127.0.0.1"
        assert one.now.port != two.now.port
        for box in (one, two):
            assert ssh(box, "hostname").stdout == box.name + "\n"
        # Plain Ansible, which knows the address and the port alone, reaches the right ones.
        argv = [ansible_program("ansible"), "all", "-o", "-m", "raw", "-a", "hostname"]
        env = ansible_environment(sandbox.workspace, os.environ)
        done = process.run(argv, cwd=sandbox.root, env=env)
        assert done.stdout.count("(stdout) one") == done.stdout.count("(stdout) two") == 1
    finally:
        sandbox.down()


def test_a_box_behind_a_gateway_is_reached_through_it_alone(sandbox_factory: Factory) -> None:
    gate = sandbox_factory("gate")["gate"]
    inner = private_network(gate)
    assert ssh(inner, "hostname").stdout == "inner\n"
    # No way out, and no name of the world.
    assert ssh(inner, "ip -4 route").stdout.startswith("10.99.0.0/24 ")
    assert "default" not in ssh(inner, "ip -4 route").stdout
    for rebooted in (gate, inner):
        reboot(rebooted)
        assert ssh(inner, "hostname").stdout == "inner\n"
    out = private_network(gate, "out", internet=True)
    ssh(out, "sudo apt-get update")


def broken_image(engine: Engine, init: str) -> Iterator[Image]:
    """An image whose /sbin/init is a shell script."""
    release = parse(RELEASES[0])
    # No image is built here: the one that the other boxes start from is there.
    good = Images(engine, Path("/nowhere"), Path("/nowhere"), os.environ, print).ensure(release)
    name = f"roost-broken-{os.getpid()}"
    script = f"rm /sbin/init; printf '#!/bin/sh\\n{init}\\n' > /sbin/init; chmod 755 /sbin/init"
    try:
        engine("run", "--name", name, *engine.limits(), good.reference, "sh", "-c", script)
        engine("commit", name, f"localhost/{name}")
        yield replace(good, reference=f"localhost/{name}")
    finally:
        engine.remove([name])
        engine("rmi", "--force", f"localhost/{name}", check=False)


def test_an_engine_that_cannot_start_systemd(
    engine: Engine, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    for image in broken_image(engine, "echo Failed to mount cgroup; exit 1"):
        monkeypatch.setattr(Images, "ensure", lambda self, release, image=image: image)
        sandbox = Sandbox(paths, engine=engine)
        with pytest.raises(SandboxError, match="systemd does not start") as caught:
            sandbox.up(["one"])
        assert "Failed to mount cgroup" in str(caught.value.why)
        assert "it ended while it started" in str(caught.value.why)
        assert f"cgroup {engine.cgroups}" in str(caught.value.why)
        assert sandbox.boxes() == [] and not sandbox.root.exists()


def test_a_box_that_never_comes_up_has_a_deadline(
    engine: Engine, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    for image in broken_image(engine, "echo Waiting for a disk; exec sleep 600"):
        monkeypatch.setattr(Images, "ensure", lambda self, release, image=image: image)
        monkeypatch.setattr(box_module.wait_ready, "__defaults__", (3.0,))
        sandbox = Sandbox(paths, engine=engine)
        with pytest.raises(SandboxError, match="systemd does not start") as caught:
            sandbox.up(["one"])
        assert "after 3 s" in str(caught.value.why)
        assert "Waiting for a disk" in str(caught.value.why)
        assert sandbox.boxes() == [] and not sandbox.root.exists()


def roost(*words: str, **environ: str) -> process.Completed:
    env = {**os.environ, **environ}
    return process.run([ROOST, "sandbox", *words], check=False, env=env, timeout=300)


def test_the_command_line(paths: Paths) -> None:
    up = roost("up", "one", "--os", RELEASES[0], "--group", "lab")
    try:
        assert up.returncode == 0, up.stderr
        workspace = Path(up.stdout.strip())
        assert workspace == paths.state / "sandbox" / "default"
        listed = process.run(["ssh", "-F", workspace / ".roost" / "ssh_config", "one", "hostname"])
        assert listed.stdout == "one\n"
        table = roost("list").stdout
        assert "one" in table and "running" in table and RELEASES[0] in table
        assert f'"workspace": "{workspace}"' in roost("list", "--json").stdout
        again = roost("up")
        assert again.returncode == 0 and again.stdout == up.stdout
    finally:
        down = roost("down")
    assert down.returncode == 0 and down.stdout == "one\n"
    assert not workspace.exists()
    nothing = roost("down")
    assert nothing.returncode == 0 and "nothing to remove" in nothing.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("up", "Box_1"), "host name"),
        (("up", "--os", "debian:8"), "debian:13"),
        (("up", "--group", "a-b"), "group"),
        (("down", "nobody"), "nobody"),
    ],
)
def test_what_cannot_be_is_a_usage_error(words: tuple[str, ...], says: str, paths: Paths) -> None:
    done = roost(*words)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert not (paths.state / "sandbox").exists()


def test_no_engine_says_how_to_get_one(tmp_path: Path, paths: Paths) -> None:
    done = roost("up", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "podman is not installed; docker is not installed" in done.stderr
    assert "apt-get install -y --no-install-recommends podman runc crun" in done.stderr
    assert not (paths.state / "sandbox").exists()


def containers(engine: Engine, paths: Paths) -> list[str]:
    return engine.ids(f"{LABEL}={paths.state / 'sandbox' / 'default'}")


# When the interrupt comes: as soon as the condition holds, and so many seconds later. A box is
# ready within about two.
MOMENTS = [
    ("folder", 0.0, signal.SIGINT),
    ("container", 0.0, signal.SIGINT),
    ("container", 0.0, signal.SIGTERM),
    ("container", 0.4, signal.SIGHUP),
    ("container", 0.2, signal.SIGINT),
    ("container", 0.7, signal.SIGINT),
    ("container", 1.5, signal.SIGINT),
]


@pytest.mark.parametrize(("moment", "later", "kind"), MOMENTS)
def test_an_interrupted_start_leaves_nothing(
    moment: str, later: float, kind: int, engine: Engine, paths: Paths
) -> None:
    argv = [ROOST, "sandbox", "up", "one", "two", "--os", RELEASES[0]]
    folder = paths.state / "sandbox" / "default"
    reached = folder.exists if moment == "folder" else lambda: containers(engine, paths)
    try:
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as child:
            try:
                deadline = time.monotonic() + 300
                while not reached():
                    assert child.poll() is None and time.monotonic() < deadline
                    time.sleep(0.01)
                time.sleep(later)  # the moments spread over the start
                child.send_signal(kind)
                said = child.communicate(timeout=120)[1]
            finally:
                child.kill()
        if child.returncode == 0:  # it was quicker
            assert len(containers(engine, paths)) == 2
            return
        assert child.returncode == 130, said
        assert "interrupted" in said and "Traceback" not in said
        assert containers(engine, paths) == []
        assert not (paths.state / "sandbox").exists()
    finally:
        engine.remove(containers(engine, paths))


def test_an_interrupted_second_box_leaves_the_first(
    engine: Engine, box: LiveBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = box.workspace.inventory / "hosts.yml"
    before = hosts.read_bytes()

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(box_module, "wait_ready", interrupt)
    with pytest.raises(KeyboardInterrupt):
        box.sandbox.up(["second"])
    assert [one.name for one in box.sandbox.boxes()] == ["box"]
    assert hosts.read_bytes() == before
    assert ssh(box, "hostname").stdout == "box\n"
