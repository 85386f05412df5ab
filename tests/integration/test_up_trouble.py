"""Boxes that make trouble: each ends in one clear message, the right code, and no traceback."""

from __future__ import annotations

import re

import pytest
from cli import roost, set_playbook, set_variables

from boxes import LiveBox, exec_in, ssh, start_boxes
from roost import process

pytestmark = pytest.mark.box

PING = "- name: Look\n  ansible.builtin.raw: 'true'\n  changed_when: false\n"


def expect(done: process.Completed, code: int, *patterns: str) -> None:
    assert done.returncode == code, done.stderr
    for pattern in patterns:
        assert re.search(pattern, done.stderr), done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_box_that_is_down_does_not_hold_up_the_other() -> None:
    with start_boxes("up", "gone") as boxes:
        set_playbook(boxes["up"], PING)
        gone = boxes["gone"]
        gone.sandbox.engine("stop", "--time", "1", gone.now.container)
        done = roost(gone, "up")
        expect(done, 4, r"gone: .*nothing answers at its address", r"1 box could not be reached")
        assert re.search(r"^up +in order +0 +1", done.stdout, re.M)
        assert re.search(r"^gone +unreachable", done.stdout, re.M)


def test_box_that_refuses_the_key(box: LiveBox) -> None:
    exec_in(box, ["sh", "-c", ": > /home/debian/.ssh/authorized_keys"])
    expect(roost(box, "up"), 4, r"refuses our key", r"fix: .*ssh -v")


def test_box_with_another_host_key(box: LiveBox) -> None:
    pins = box.workspace.known_hosts
    other = box.workspace.root / "other"
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other])
    key = " ".join(other.with_suffix(".pub").read_text().split()[:2])
    names = {line.split()[0] for line in pins.read_text().splitlines() if line.strip()}
    pins.write_text("".join(f"{name} {key}\n" for name in sorted(names)))
    expect(roost(box, "up"), 4, r"host key is not the one that was pinned", r"fix: .*rebuilt")


def test_box_that_is_not_pinned_is_not_trusted(box: LiveBox) -> None:
    box.workspace.known_hosts.write_text("")
    expect(roost(box, "up"), 4, r"host key is not pinned")


def test_module_on_a_box_without_python(box: LiveBox) -> None:
    set_playbook(box, "- name: Look\n  ansible.builtin.stat: {path: /etc}\n")
    expect(roost(box, "up"), 1, r"no complete Python", r"fix: run the whole playbook")


def test_full_disk_is_said_before_anything_is_installed(box: LiveBox) -> None:
    pid = str(box.now.pid)
    process.run(
        ["nsenter", "-t", pid, "-m", "mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", "/var"]
    )
    expect(roost(box, "up", "--tags", "base"), 1, r"box: base: .*(full|free)")
    assert ssh(box, "test -e /usr/bin/tmux", check=False).returncode == 1


def test_no_route_to_the_archive(box: LiveBox) -> None:
    process.run(["nsenter", "-t", str(box.now.pid), "-n", "ip", "route", "del", "default"])
    expect(
        roost(box, "up", "--tags", "base"),
        1,
        r"(cannot resolve the name|archive cannot be reached)",
        r"fix: ",
    )


def test_lock_that_is_held_is_waited_for_and_then_named(box: LiveBox) -> None:
    # apt and dpkg take record locks (fcntl(2)), and so does lockf of the box's minimal Python.
    hold = (
        "import fcntl, time\n"
        "lock = open('/var/lib/dpkg/lock-frontend', 'w')\n"
        "fcntl.lockf(lock, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "time.sleep(600)\n"
    )
    exec_in(box, ["tee", "/root/hold.py"], input=hold)
    output = "--property=StandardOutput=file:/root/out"
    exec_in(box, ["systemd-run", output, "python3", "/root/hold.py"])
    wait = "for n in $(seq 100); do grep -q held /root/out && exit; sleep 0.1; done; exit 1"
    exec_in(box, ["sh", "-c", wait])
    set_variables(box, "base_apt_lock_timeout: 3\n")
    expect(roost(box, "up", "--tags", "base"), 1, r"another program holds apt's lock", r"fix: wait")


def test_operating_system_that_is_not_supported_is_refused_untouched(box: LiveBox) -> None:
    release = "NAME=Fedora\nID=fedora\nVERSION_ID=44\nPRETTY_NAME='Fedora 44'\n"
    exec_in(box, ["tee", "/usr/lib/os-release"], input=release)
    before = exec_in(box, ["dpkg-query", "-W"]).stdout
    expect(roost(box, "up", "--tags", "base"), 1, r"Fedora 44, which is not supported")
    assert exec_in(box, ["dpkg-query", "-W"]).stdout == before
