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


def sshd(host: Host, user: str) -> dict[str, str]:
    with host.sudo():
        text = host.check_output(f"sshd -T -C user={user},host=x,addr=192.0.2.1")
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def test_system_is_healthy(host: Host) -> None:
    with host.sudo():
        failed = host.check_output("systemctl --failed --plain --no-legend")
        assert host.check_output("dpkg --audit") == ""
    assert failed == ""


def test_base(host: Host, user: str) -> None:
    assert "LANG=C.UTF-8" in host.check_output("localectl status")
    shown = host.check_output("apt-config shell on APT::Periodic::Unattended-Upgrade")
    assert shown == "on='1'"
    assert host.service("earlyoom").is_enabled
    assert host.check_output(f"systemctl show -P MemoryMax user-$(id -u {user}).slice").isdigit()


def test_people(host: Host) -> None:
    assert host.user("ann").shell == "/bin/bash"
    keys = host.file("/etc/ssh/authorized_keys.d/ann")
    assert (keys.user, keys.mode & 0o022) == ("root", 0)
    assert host.check_output(f"ssh-keygen -lf {keys.path}").endswith(" ann@laptop (ED25519)")
    with host.sudo():
        rights = host.check_output("sudo -l -U ann")
    # Their own notebook server, and nothing else.
    assert "(ALL" not in rights


def test_sshd(host: Host, user: str) -> None:
    effective = sshd(host, user)
    assert host.file("/etc/ssh/sshd_config.d/50-cloud-init.conf").contains("PasswordA.* yes")
    assert effective["passwordauthentication"] == "no"
    assert effective["kbdinteractiveauthentication"] == "no"
    assert effective["permitrootlogin"] in {"without-password", "prohibit-password"}
    assert "/etc/ssh/authorized_keys.d/%u" in effective["authorizedkeysfile"]
    assert effective["permittty"] == "yes"


def test_gateway(host: Host) -> None:
    effective = sshd(host, "ann")
    wanted = {
        "permittty": "no",
        "allowtcpforwarding": "local",
        "allowstreamlocalforwarding": "no",
        "permitopen": "any",
        "maxstartups": "100:30:200",
    }
    assert {k: effective[k] for k in wanted} == wanted
    assert "This is a gateway" in effective["forcecommand"]


def test_tmux(host: Host) -> None:
    run = "tmux -L test start-server \\; show -gv prefix \\; show -gv prefix2 \\; show -gv mouse"
    assert host.check_output(run).split() == ["C-b", "C-a", "on"]


def test_jupyter(host: Host, user: str) -> None:
    unit = host.service(f"roost-jupyter@{user}")
    # On a socket of its owner alone.
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


def test_python(host: Host) -> None:
    jupyter = "/opt/roost/jupyter/current/bin/jupyter"
    listed = json.loads(host.check_output(f"{jupyter} kernelspec list --json"))
    spec = listed["kernelspecs"]["python3"]["spec"]
    assert spec["display_name"] == "Python 3 (roost)"
    assert host.check_output(f"{spec['argv'][0]} -c 'import ipykernel; print(6 * 7)'") == "42"
    assert host.file("/usr/local/bin/uv").linked_to == "/opt/roost/uv/bin/uv"
    assert host.run("uv --version").rc == 0


def test_rmate(host: Host) -> None:
    said = host.run("rmate ~/.profile")
    assert said.rc == 1
    assert f"{host.user().home}/.rmate.sock or localhost:52698" in said.stderr
