"""The role sshd on a real box: what the daemon then does, and that nobody is ever locked out."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from roles import Outcome, apply, start, wait_for
from test_roles_base import provision, sh

from boxes import LiveBox, exec_in, reboot, ssh
from roost import process

pytestmark = pytest.mark.box

DROPIN = "/etc/ssh/sshd_config.d/00-roost.conf"
PENDING = "/var/lib/roost/sshd/pending"
# No login is possible with this, and sshd itself finds nothing wrong with it.
LOCKED_OUT = {"sshd_settings": {"AllowUsers": "nobody-at-all"}}


@pytest.fixture
def plain(shared_box: Callable[..., LiveBox]) -> Iterator[LiveBox]:
    """A box with the base and with sshd as the distribution sets it up; taken back at the end."""
    box = shared_box("sshd", provision)
    yield box
    if sh(box, f"ls {DROPIN}", check=False):
        assert sshd(box, sshd_state="absent").returncode == 0
    assert sh(box, "ls /etc/ssh/sshd_config.d") == ""


def sshd(box: LiveBox, *more: str, **variables: Any) -> Outcome:
    return apply(box, ["sshd"], *more, **variables)


def effective(box: LiveBox, user: str = "root") -> dict[str, str]:
    text = sh(box, f"sshd -T -C user={user},host=h,addr=192.0.2.1")
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def can_log_in(box: LiveBox) -> bool:
    return ssh(box, "sudo -n id -u", check=False).stdout == "0\n"


def new_logins(box: LiveBox) -> int:
    return sh(box, "journalctl -q --no-pager -o cat").count("Accepted publickey")


def nothing_is_armed(box: LiveBox) -> bool:
    state = "/var/lib/roost/sshd"
    files = f"{PENDING} {state}/former {state}/rolling /etc/systemd/system/{{,*/}}roost-sshd*"
    units = "systemctl list-units --plain --no-legend 'roost-sshd*'"
    return exec_in(box, ["bash", "-c", f"ls -d {files}; {units}"], check=False).stdout == ""


def test_what_the_daemon_says_afterwards(plain: LiveBox) -> None:
    # As on a cloud image where somebody asked cloud-init for passwords.
    sh(plain, "echo 'PasswordAuthentication yes' > /etc/ssh/sshd_config.d/50-cloud-init.conf")
    try:
        check = sshd(plain, "--check", "--diff")
        assert (check.returncode, check.changed) == (0, ["Compare the configuration of sshd"])
        assert "+PasswordAuthentication no" in check.text
        assert effective(plain)["passwordauthentication"] == "yes"

        before = new_logins(plain)
        first = sshd(plain)
        assert first.returncode == 0, first.text
        # The run shares the connection of the one before: the new one is the proof.
        assert new_logins(plain) == before + 1
        said = effective(plain)
        assert said["passwordauthentication"] == "no"
        assert said["kbdinteractiveauthentication"] == "no"
        assert said["permitrootlogin"] == "without-password"
        assert said["authorizedkeysfile"].startswith("/etc/ssh/authorized_keys.d/%u ")
        assert "sntrup761x25519" in said["kexalgorithms"]
        assert "nistp" not in said["kexalgorithms"] + said["hostkeyalgorithms"]
        assert nothing_is_armed(plain)
        for again in (sshd(plain), sshd(plain, "--check")):
            assert (again.returncode, again.changed) == (0, []), again.text
    finally:
        sh(plain, "rm /etc/ssh/sshd_config.d/50-cloud-init.conf")


def test_a_configuration_without_a_way_in_is_taken_back(plain: LiveBox) -> None:
    before = sh(plain, "cat /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*", check=False)
    done = sshd(plain, sshd_guard_seconds=5, **LOCKED_OUT)
    assert done.returncode == 2
    assert "The former configuration is back and works" in done.failed[-1]
    assert can_log_in(plain)
    assert sh(plain, "cat /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*", check=False) == before
    assert nothing_is_armed(plain)


def cut_off_in_the_middle(box: LiveBox, log: Path, seconds: int) -> None:
    """Start a run that would lock everybody out, and kill it when the box has the new files."""
    run = start(box, ["sshd"], log, sshd_guard_seconds=seconds, **LOCKED_OUT)
    wait_for(lambda: "AllowUsers" in sh(box, f"cat {DROPIN}", check=False), "the change", 600)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert sh(box, f"ls {PENDING}") != ""


def test_killed_controller_the_timer_acts(plain: LiveBox, tmp_path: Path) -> None:
    cut_off_in_the_middle(plain, tmp_path / "log", 5)
    wait_for(lambda: can_log_in(plain), "the former state")
    wait_for(lambda: nothing_is_armed(plain), "the end of the guard")
    assert sshd(plain).returncode == 0


def test_killed_controller_and_reboot(plain: LiveBox, tmp_path: Path) -> None:
    # The timer is far away: only what runs at boot can help.
    cut_off_in_the_middle(plain, tmp_path / "log", 3600)
    reboot(plain)
    assert can_log_in(plain)
    assert nothing_is_armed(plain)
    assert sshd(plain).returncode == 0


def test_two_runs_at_once(plain: LiveBox, tmp_path: Path) -> None:
    runs = [start(plain, ["sshd"], tmp_path / f"log{n}") for n in range(2)]
    for number, run in enumerate(runs):
        assert run.wait(600) == 0, (tmp_path / f"log{number}").read_text()
    assert sshd(plain).changed == []
    assert nothing_is_armed(plain)


def test_a_broken_file_of_somebody_else_is_named(plain: LiveBox) -> None:
    sh(plain, "echo 'Paswords no' > /etc/ssh/sshd_config.d/99-theirs.conf")
    try:
        done = sshd(plain)
        assert done.returncode == 2
        assert "99-theirs.conf" in done.failed[0] and "Paswords" in done.failed[0]
        assert sh(plain, f"ls {DROPIN}", check=False) == ""
        assert can_log_in(plain)
    finally:
        sh(plain, "rm /etc/ssh/sshd_config.d/99-theirs.conf")


def test_a_file_that_overrides_ours_is_found(plain: LiveBox) -> None:
    assert sshd(plain).returncode == 0
    sh(plain, "echo 'PasswordAuthentication yes' > /etc/ssh/sshd_config.d/00-first.conf")
    try:
        done = sshd(plain)
        assert done.returncode == 2
        assert "PasswordAuthentication is 'yes'" in done.failed[0]
    finally:
        sh(plain, "rm /etc/ssh/sshd_config.d/00-first.conf")


def test_a_value_that_sshd_refuses_changes_nothing(plain: LiveBox) -> None:
    done = sshd(plain, sshd_settings={"MaxAuthTries": "many"})
    assert done.returncode == 2
    assert "sshd refuses the configuration" in done.failed[0]
    assert sh(plain, f"ls {DROPIN}", check=False) == ""
    assert nothing_is_armed(plain)


def test_passwords_stay_while_nobody_has_a_key(plain: LiveBox) -> None:
    done = sshd(plain, sshd_honour_own_keys=False, sshd_admins=["nobody-yet"])
    assert done.returncode == 2
    assert "Nobody who may become root" in done.failed[0]
    assert f"{plain.now.user}, nobody-yet" in done.failed[0]
    assert sh(plain, f"ls {DROPIN}", check=False) == ""


def test_a_main_file_without_include_gets_one(plain: LiveBox) -> None:
    sh(plain, "cp /etc/ssh/sshd_config /root/kept; sed -i /^Include/d /etc/ssh/sshd_config")
    try:
        assert sshd(plain).returncode == 0
        assert effective(plain)["passwordauthentication"] == "no"
    finally:
        sh(plain, "cp /root/kept /etc/ssh/sshd_config")


def test_socket_activation_listens_on_the_new_port(plain: LiveBox) -> None:
    sh(plain, "systemctl disable -q --now ssh.service; systemctl enable -q --now ssh.socket")
    try:
        assert can_log_in(plain)
        done = sshd(plain, sshd_ports=[22, 2222])
        assert done.returncode == 0, done.text
        on_new_port = process.run(
            ["ssh", "-F", plain.workspace.ssh_config, "-S", "none", "-o", "Port=2222",
             "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
             plain.name, "echo here"]
        )  # fmt: skip
        assert on_new_port.stdout == "here\n"
        assert can_log_in(plain)
        assert sshd(plain, sshd_ports=[22, 2222]).changed == []
        locked = sshd(plain, sshd_ports=[2222], sshd_guard_seconds=5)
        assert "The former configuration is back" in locked.failed[-1]
        assert can_log_in(plain)
        assert sshd(plain, sshd_state="absent").returncode == 0
        assert "2222" not in sh(plain, "ss -Hltn")
    finally:
        sh(plain, "systemctl stop -q ssh.service; systemctl disable -q --now ssh.socket;"
                  "systemctl enable -q --now ssh.service")  # fmt: skip


def test_undo_gives_the_distributions_settings_back(plain: LiveBox) -> None:
    before = effective(plain)
    assert sshd(plain).returncode == 0
    assert effective(plain) != before
    assert sshd(plain, sshd_state="absent").returncode == 0
    assert effective(plain) == before
    assert sshd(plain, sshd_state="absent").changed == []
    exec_in(plain, ["test", "!", "-e", DROPIN])
