"""What the defaults make of a bare box, as the programs on it tell."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host


@pytest.fixture
def user(host: Host) -> str:
    """The login user of the connection."""
    name = host.user().name
    return str(name)


def sshd(host: Host, user: str = "debian") -> dict[str, str]:
    with host.sudo():
        text = host.check_output(f"sshd -T -C user={user},host=x,addr=192.0.2.1")
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def test_system_is_healthy(host: Host) -> None:
    with host.sudo():
        failed = host.check_output("systemctl --failed --plain --no-legend")
        assert host.check_output("dpkg --audit") == ""
    assert failed == ""


def test_sshd_takes_keys_alone(host: Host) -> None:
    effective = sshd(host)
    assert effective["passwordauthentication"] == "no"
    assert effective["kbdinteractiveauthentication"] == "no"
    assert effective["permitrootlogin"] in {"without-password", "prohibit-password"}
    assert "/etc/ssh/authorized_keys.d/%u" in effective["authorizedkeysfile"]


def test_tmux_that_runs_has_the_configuration(host: Host) -> None:
    run = "tmux -L test start-server \\; show -gv prefix \\; show -gv prefix2 \\; show -gv mouse"
    assert host.check_output(run).split() == ["C-b", "C-a", "on"]


def test_jupyterlab_listens_on_a_socket_of_its_owner_alone(host: Host, user: str) -> None:
    unit = host.service(f"roost-jupyter@{user}")
    assert unit.is_running
    assert unit.is_enabled
    socket = host.file(f"/run/roost-jupyter/{user}/jupyter.sock")
    assert (socket.user, socket.mode) == (user, 0o600)
    assert host.file(f"/run/roost-jupyter/{user}").mode == 0o700
    assert host.file(f"/var/lib/roost-jupyter/{user}/token").mode == 0o600
    with host.sudo():
        listening = host.check_output("ss -Hltnp")
    assert "jupyter" not in listening
    assert "python" not in listening


def test_default_kernel_computes(host: Host) -> None:
    jupyter = "/opt/roost/jupyter/current/bin/jupyter"
    listed = json.loads(host.check_output(f"{jupyter} kernelspec list --json"))
    spec = listed["kernelspecs"]["python3"]["spec"]
    assert spec["display_name"] == "Python 3 (roost)"
    assert host.check_output(f"{spec['argv'][0]} -c 'import ipykernel; print(6 * 7)'") == "42"
