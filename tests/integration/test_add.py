"""``roost add`` and ``remove`` on a real box: keys, host keys, passwords, certificates."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import provision_with, roost

from boxes import LiveBox, exec_in, start_boxes
from roost import process, ssh
from roost.inventory import load
from roost.paths import Paths
from roost.ssh_failure import HostKeyError
from roost.workspace import Workspace

pytestmark = pytest.mark.box

PASSWORD = "correct horse $battery 'staple\" \\"


@pytest.fixture(scope="module")
def target() -> Iterator[LiveBox]:
    """A box with a user who has a password, and a key file without a final line feed."""
    with start_boxes("target") as boxes:
        box = boxes["target"]
        exec_in(box, ["useradd", "--create-home", "--shell", "/bin/sh", "bob"])
        exec_in(box, ["chpasswd"], input=f"bob:{PASSWORD}\n")
        yield box


@pytest.fixture(autouse=True)
def as_new(target: LiveBox) -> None:
    """Nobody's key is on the box."""
    exec_in(target, ["rm", "-rf", "/home/bob/.ssh"])


@pytest.fixture
def askpass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ssh asks this program for the password; it notes how often."""
    script, count = tmp_path / "askpass", tmp_path / "asked"
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD + "\n")
    script.write_text(f"#!/bin/sh\necho x >>{shlex.quote(str(count))}\ncat {secret}\n")
    script.chmod(0o700)
    monkeypatch.setenv("SSH_ASKPASS", str(script))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    count.touch()
    return count


def fingerprint(box: LiveBox, kind: str = "ed25519") -> str:
    words = ["ssh-keygen", "-l", "-f", f"/etc/ssh/ssh_host_{kind}_key.pub"]
    return exec_in(box, words).stdout.split()[1]


def inventory_of(workspace: Workspace) -> str:
    return (workspace.inventory / "hosts.yml").read_text()


def connect(workspace: Workspace, paths: Paths, words: list[str]) -> process.Completed:
    fleet = load(workspace, paths=paths, environ=os.environ)
    config = ssh.ensure_config(workspace.root, fleet, paths, user_config=False)
    try:
        return ssh.run(config, fleet.box("gpu1"), words, fleet=fleet)
    finally:
        ssh.disconnect(config, "gpu1")


def test_a_box_comes_and_goes(
    target: LiveBox, workspace: Workspace, paths: Paths, home: Path, askpass: Path
) -> None:
    template = inventory_of(workspace)
    where = f"bob@{target.now.host}"
    dry = roost(workspace, "add", "gpu1", where, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "+    gpu1:" in dry.stdout
    assert not (home / ".ssh").exists()
    assert inventory_of(workspace) == template

    # Nobody is there to look at the host key, and none was given: nothing is changed.
    alone = roost(workspace, "add", "gpu1", where)
    assert alone.returncode == 2
    assert fingerprint(target) in alone.stderr
    assert inventory_of(workspace) == template
    assert askpass.read_text() == ""

    words = ["add", "gpu1", where, "--group", "gpu", "--json"]
    done = roost(workspace, *words, "--fingerprint", fingerprint(target, "ecdsa"))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["key_installed"] is True
    assert fingerprint(target) in [key["fingerprint"] for key in said["host_keys"]]
    # Once, however many connections it took; and it is written nowhere.
    assert askpass.read_text() == "x\n"
    assert PASSWORD not in done.stdout + done.stderr + inventory_of(workspace)
    key = home / ".ssh" / "id_ed25519"
    assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    listed = exec_in(target, ["stat", "-c", "%U %a", "/home/bob/.ssh/authorized_keys",
                              "/home/bob/.ssh"]).stdout  # fmt: skip
    assert listed == "bob 600\nbob 700\n"

    assert connect(workspace, paths, ["id", "-un"]).stdout == "bob\n"
    assert load(workspace, paths=paths, environ=os.environ).groups["gpu"] == ("gpu1",)

    again = roost(workspace, "add", "gpu1")
    assert again.returncode == 0, again.stderr
    keys = exec_in(target, ["cat", "/home/bob/.ssh/authorized_keys"]).stdout
    assert keys == key.with_suffix(".pub").read_text()

    gone = roost(workspace, "remove", "gpu1")
    assert gone.returncode == 0, gone.stderr
    assert load(workspace, paths=paths, environ=os.environ).boxes == ()
    assert workspace.known_hosts.read_text() == ""
    assert inventory_of(workspace).replace("    gpu:\n      hosts: {}\n", "") == template


def test_the_key_is_appended_once_to_what_is_there(
    target: LiveBox, workspace: Workspace, home: Path, askpass: Path
) -> None:
    script = (
        "mkdir -m 755 /home/bob/.ssh; cd /home/bob/.ssh;"
        " printf '# first\\nssh-ed25519 AAAAnobody other' >authorized_keys;"
        " chmod 644 authorized_keys; chown -R bob: /home/bob/.ssh"
    )
    exec_in(target, ["sh", "-c", script])
    words = ["add", "gpu1", f"bob@{target.now.host}", "--fingerprint", fingerprint(target)]
    done = roost(workspace, *words)
    assert done.returncode == 0, done.stderr
    public = (home / ".ssh" / "id_ed25519.pub").read_text()
    keys = exec_in(target, ["cat", "/home/bob/.ssh/authorized_keys"]).stdout
    assert keys == f"# first\nssh-ed25519 AAAAnobody other\n{public}"


def test_what_is_refused_changes_nothing(
    target: LiveBox, workspace: Workspace, askpass: Path
) -> None:
    before = (inventory_of(workspace), workspace.known_hosts.read_text())
    where = f"bob@{target.now.host}"
    right = fingerprint(target)
    wrong = "SHA256:" + "A" * 43
    for words, code, complaint in (
        (["gpu1", where, "--fingerprint", wrong], 4, "does not have the host key"),
        (["gpu1", where, "--fingerprint", "MD5:1:2"], 2, "no SHA256 fingerprint"),
        (["gpu1", where, "--fingerprint", right, "--key-installed"], 2, "does not accept"),
        (["gpu1", f"bob@{target.now.host}:1"], 4, "refuses the connection"),
        (["gpu1", "bob@no-such-host.invalid"], 4, "a name that nobody knows"),
        (["gpu1", "bob@"], 2, "is no [USER@]HOST[:PORT]"),
        (["gpu1"], 2, "where is gpu1?"),
        (["gpu1", where, "--via", "gate"], 2, "no box or group is called 'gate'"),
        (["gpu1", where, "--identity", "/no/such/key"], 2, "there is no key file"),
        (["g*", where], 2, "cannot be the name of a host"),
    ):
        done = roost(workspace, "add", *words)
        assert done.returncode == code, done.stderr
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr
        assert (inventory_of(workspace), workspace.known_hosts.read_text()) == before
    assert askpass.read_text() == ""


def test_a_changed_host_key_stops_everything(
    target: LiveBox, workspace: Workspace, paths: Paths, askpass: Path
) -> None:
    old = fingerprint(target)
    words = ["add", "gpu1", f"bob@{target.now.host}", "--fingerprint", old]
    assert roost(workspace, *words).returncode == 0
    script = (
        "rm /etc/ssh/ssh_host_*; ssh-keygen -q -A;"
        " systemctl restart ssh.service 2>/dev/null || systemctl restart ssh.socket"
    )
    exec_in(target, ["sh", "-c", script])
    new = fingerprint(target)
    assert new != old

    with pytest.raises(HostKeyError) as caught:
        connect(workspace, paths, ["true"])
    assert old in (caught.value.why or "")
    assert new in (caught.value.why or "")
    assert caught.value.fix is not None
    stopped = roost(workspace, "add", "gpu1")
    assert stopped.returncode == 4
    assert old in stopped.stderr
    assert new in stopped.stderr

    command = caught.value.fix.partition("roost ")[2].split()
    assert roost(workspace, *command, "--fingerprint", new).returncode == 0
    assert connect(workspace, paths, ["echo", "again"]).stdout == "again\n"
    assert old not in workspace.known_hosts.read_text()


def test_an_authority_vouches_for_the_host_key(
    target: LiveBox, workspace: Workspace, paths: Paths, home: Path, tmp_path: Path, askpass: Path
) -> None:
    authority = tmp_path / "authority"
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", authority])
    host_key = tmp_path / "host.pub"
    host_key.write_text(exec_in(target, ["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout)
    sign = ["ssh-keygen", "-q", "-s", authority, "-I", "target", "-h", "-n", target.now.host]
    process.run([*sign, host_key])
    exec_in(target, ["tee", "/etc/ssh/host-cert.pub"],
            input=(tmp_path / "host-cert.pub").read_text())  # fmt: skip
    exec_in(target, ["tee", "/etc/ssh/sshd_config.d/cert.conf"],
            input="HostCertificate /etc/ssh/host-cert.pub\n")  # fmt: skip
    exec_in(target, ["sh", "-c", "systemctl reload ssh.service 2>/dev/null || true"])
    try:
        (home / ".ssh").mkdir(mode=0o700)
        line = f"@cert-authority 10.*,192.168.*,127.* {authority.with_suffix('.pub').read_text()}"
        (home / ".ssh" / "known_hosts").write_text(line)
        done = roost(workspace, "add", "gpu1", f"bob@{target.now.host}", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["host_keys"] == []
        assert workspace.known_hosts.read_text() == line
        assert connect(workspace, paths, ["id", "-un"]).stdout == "bob\n"
    finally:
        exec_in(target, ["rm", "-f", "/etc/ssh/sshd_config.d/cert.conf"])
        exec_in(target, ["sh", "-c", "systemctl reload ssh.service 2>/dev/null || true"])


def test_names_are_hidden_where_the_users_ssh_hides_them(
    target: LiveBox, workspace: Workspace, paths: Paths, askpass: Path, tmp_path: Path
) -> None:
    words = ["add", "gpu1", f"bob@{target.now.host}", "--fingerprint", fingerprint(target)]
    assert roost(workspace, *words).returncode == 0
    config = workspace.ssh_config
    asked = process.run(["ssh", "-G", "-F", config, "gpu1"]).stdout
    hidden = "hashknownhosts yes" in asked
    pins = workspace.known_hosts.read_text()
    assert (target.now.host not in pins) == hidden
    found = process.run(["ssh-keygen", "-F", target.now.host, "-f", workspace.known_hosts])
    assert "ssh-ed25519" in found.stdout


def test_remove_undoes_the_box_and_takes_the_key_away(
    box: LiveBox, paths: Paths, tmp_path: Path
) -> None:
    """What ``site`` did is undone, then the key goes; whoever else had one still has it."""
    provision_with(box, "rmate")
    keys = f"/home/{box.now.user}/.ssh/authorized_keys"
    ours = exec_in(box, ["cat", keys]).stdout
    exec_in(box, ["sh", "-c", f"echo 'ssh-ed25519 AAAAnobody other' >>{keys}"])
    exec_in(box, ["test", "-e", "/usr/local/bin/rmate"])
    before = inventory_of(box.workspace)

    dry = roost(box, "remove", "box", "--purge", "--take-key", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "undo the roles on box" in dry.stdout
    assert inventory_of(box.workspace) == before
    done = roost(box, "remove", "box", "--purge", "--take-key", "--json", timeout=900)

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["purged"], told["key_taken"]) == (True, True)
    exec_in(box, ["test", "!", "-e", "/usr/local/bin/rmate"])
    assert exec_in(box, ["cat", keys]).stdout == "ssh-ed25519 AAAAnobody other\n"
    assert ours
    assert box.workspace.known_hosts.read_text() == ""
    assert load(box.workspace, paths=paths, environ=os.environ).boxes == ()
    assert not list((paths.state / "cm").glob("*"))
