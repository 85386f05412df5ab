"""Every variable that is changed here is seen in the program that it is for."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host


@pytest.fixture
def user(host: Host) -> str:
    """The login user of the connection."""
    return str(host.user().name)


def sshd(host: Host, user: str) -> dict[str, str]:
    with host.sudo():
        text = host.check_output(f"sshd -T -C user={user},host=x,addr=192.0.2.1")
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def test_base(host: Host) -> None:
    assert host.package("jq").is_installed
    assert host.check_output("timedatectl show -p Timezone --value") == "Europe/Zurich"
    assert "de_CH.utf8" in host.check_output("locale -a").splitlines()
    assert "LANG=de_CH.UTF-8" in host.check_output("localectl status")
    shown = host.check_output("apt-config shell on APT::Periodic::Unattended-Upgrade")
    assert shown == "on='0'"
    assert "-m 7" in host.check_output("systemctl show earlyoom -p Environment -p ExecStart") or (
        "-m 7" in host.check_output("cat /proc/$(pidof earlyoom)/cmdline | tr '\\0' ' '")
    )


def test_people(host: Host) -> None:
    ann = host.user("ann-lee2")
    assert (ann.gecos, "video" in ann.groups) == ("Ann Lee", True)
    assert not host.user("gone").exists
    keys = host.file("/etc/ssh/keys.d/ann-lee2")
    assert (keys.user, keys.mode & 0o022) == ("root", 0)
    with host.sudo():
        assert 'from="192.0.2.0/24",no-agent-forwarding ssh-ed25519 ' in keys.content_string
        rights = host.check_output("sudo -l -U ann-lee2")
    assert "ALL" in rights
    assert "NOPASSWD" not in rights


def test_sshd(host: Host, user: str) -> None:
    effective = sshd(host, user)
    wanted = {
        "permitrootlogin": "no",
        "allowagentforwarding": "no",
        "x11forwarding": "yes",
        "clientaliveinterval": "45",
        "maxsessions": "77",
        "logingracetime": "33",
        "ciphers": "aes256-gcm@openssh.com",
        "allowtcpforwarding": "yes",
    }
    assert {k: effective[k] for k in wanted} == wanted
    assert "/etc/ssh/keys.d/%u" in effective["authorizedkeysfile"]
    assert effective["authorizedprincipalsfile"] == "/etc/ssh/principals.d/%u"
    for setting, comment in (("trustedusercakeys", "our people"), ("revokedkeys", "lost")):
        assert comment in host.check_output(f"ssh-keygen -lf {effective[setting]}")
    assert host.file("/etc/ssh/principals.d/ann-lee2").contains("^ann-lee2$")
    assert (effective["banner"], sshd(host, "ann-lee2")["banner"]) == ("none", "/etc/issue.net")
    assert host.file("/etc/ssh/sshd_config.d/50-cloud-init.conf").contains("PasswordA.* yes")
    assert effective["passwordauthentication"] == "no"
    # systemd listens, and hands the connections on.
    assert host.service("ssh.socket").is_running
    assert host.socket("tcp://0.0.0.0:2222").is_listening
    scan = host.check_output("ssh-keyscan -p 2222 -t ed25519 127.0.0.1")
    assert "[127.0.0.1]:2222 ssh-ed25519 " in scan


def test_gateway(host: Host) -> None:
    # Whoever is neither an admin nor the login user.
    effective = sshd(host, "nobody")
    assert effective["permittty"] == "no"
    assert effective["permitopen"] == "inner:22 *:443"
    assert "No shell here." in effective["forcecommand"]
    assert effective["maxstartups"] == "20:40:60"
    assert sshd(host, "ann-lee2")["permittty"] == "yes"


def test_tmux(host: Host) -> None:
    wanted = {
        "prefix": "C-q",
        "mode-keys": "vi",
        "mouse": "off",
        "history-limit": "1234",
        "base-index": "0",
        "default-terminal": "screen-256color",
        "display-time": "4321",
        "status": "off",
    }
    asked = " \\; ".join(f"show -g{'w' if name == 'mode-keys' else ''}v {name}" for name in wanted)
    shown = host.check_output(f"tmux -L test start-server \\; {asked}").splitlines()
    assert dict(zip(wanted, shown, strict=True)) == wanted
    assert host.check_output("tmux -L test start-server \\; show -sv escape-time") == "77"


def test_python(host: Host) -> None:
    code = "import six; print(six.__name__)"
    assert host.check_output(f"/srv/envs/tools/bin/python -c '{code}'") == "six"
    with host.sudo("ann-lee2"):
        own = host.check_output("stat -c %U /home/ann-lee2/venvs/anns/bin/python")
    assert own == "ann-lee2"
    listed = host.check_output("/srv/jupyter/current/bin/jupyter kernelspec list --json")
    specs = {name: entry["spec"] for name, entry in json.loads(listed)["kernelspecs"].items()}
    assert specs["python3"]["display_name"] == "The default one"
    assert specs["tools"]["display_name"] == "Six tools"
    assert specs["tools"]["env"]["ANSWER"] == "42"


def test_jupyter(host: Host, user: str) -> None:
    for name, limit in ((user, "4G"), ("ann-lee2", "5G")):
        shown = host.check_output(
            f"systemctl show roost-lab@{name} -p ActiveState -p MemoryHigh -p MemoryMax"
            " -p CPUQuotaPerSecUSec -p TasksMax -p UMask"
        )
        found = dict(line.split("=", 1) for line in shown.splitlines())
        assert found == {
            "ActiveState": "active",
            "MemoryHigh": str(3 * 1024**3),
            "MemoryMax": str(int(limit[0]) * 1024**3),
            "CPUQuotaPerSecUSec": "1.500000s",
            "TasksMax": "4000",
            "UMask": "0027",
        }
        with host.sudo():
            assert host.file(f"/run/labs/{name}/jupyter.sock").mode == 0o600
            assert host.file(f"/var/lib/labs/{name}/token").mode == 0o600
    assert host.file(f"/home/{user}/work").is_directory
    # root may not read another process's environment in a container: the unit is asked.
    environment = host.check_output(f"systemctl show -p Environment --value roost-lab@{user}")
    assert "GREETING=hello" in environment.split()
    # Nobody may stop a server by sudo without a password where that is switched off.
    with host.sudo():
        assert "roost-lab" not in host.check_output("sudo -l -U ann-lee2")


def test_rmate(host: Host) -> None:
    said = host.run("rmate ~/.profile")
    assert said.rc == 1
    assert f"{host.user().home}/.editor.sock or localhost:52700" in said.stderr
