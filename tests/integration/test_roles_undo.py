"""``undo.yml`` as a whole: a converged box is what it was, and nobody is locked out by it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from cli import roost, set_variables
from roles import Outcome, outcome
from test_roles_base import sh

from boxes import LiveBox, ssh
from roost import process
from roost.inventory import ansible_program
from roost.sandbox.files import IDENTITY

pytestmark = pytest.mark.box

OURS = "find /etc /usr/local /root -xdev -iname '*roost*'"
# The environments stay, with what they run on, as docs/what-it-changes.md says.
PROGRAMS = (
    "find /opt/roost ! -type d ! -path '/opt/roost/envs/*' ! -path '/opt/roost/python/*';"
    "find /run/roost-jupyter /var/lib/roost-jupyter ! -type d"
)
UNITS = "systemctl list-unit-files --plain --no-legend 'roost-*'"


def undo(box: LiveBox, **variables: object) -> Outcome:
    extra = box.workspace.root / "undo.json"
    extra.write_text(yaml.safe_dump(variables))
    env = {**os.environ, "ANSIBLE_CONFIG": str(box.workspace.ansible_cfg)}
    argv = [ansible_program("ansible-playbook"), "roost.box.undo", "-e", f"@{extra}"]
    done = process.run(argv, env=env, cwd=box.workspace.root, check=False, timeout=900)
    return outcome(done.returncode, done.stdout + done.stderr)


def test_everything_is_taken_back(box: LiveBox, tmp_path: Path) -> None:
    # sshd as the distribution sets it up; what the roles install decides the rest.
    before = sh(box, "sshd -T")
    key = tmp_path / "ann"
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    me = {"name": box.now.user, "sudo": True,
          "keys": [(box.workspace.root / f"{IDENTITY}.pub").read_text().strip()]}  # fmt: skip
    ann = {"name": "ann", "keys": [Path(f"{key}.pub").read_text().strip()], "sudo": True}
    set_variables(box, yaml.safe_dump({"people_list": [me, ann]}))
    # A check works on a bare box, where it changes nothing, and on one that has everything.
    packages = sh(box, "dpkg-query -W")
    bare = roost(box, "check")
    assert bare.returncode == 2, bare.stdout + bare.stderr
    assert "Say that Python would be installed first" in bare.stdout
    assert (sh(box, "dpkg-query -W"), sh(box, OURS)) == (packages, "")
    done = roost(box, "up", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    check = roost(box, "check", "--full")
    assert check.returncode == 0, check.stdout + check.stderr
    assert "" not in (sh(box, OURS), sh(box, PROGRAMS), sh(box, UNITS))
    ssh(box, "echo mine > work.txt")

    # Where the only key of the connection is one that the roles placed, there is no way back
    # without a lock-out: it stops there, and everybody still gets in.
    own = f"/home/{box.now.user}/.ssh/authorized_keys"
    sh(box, f"mv {own} {own}.kept")
    refused = undo(box, sshd_guard_seconds=5)
    assert refused.returncode == 2
    assert "The former configuration is back and works" in refused.failed[-1]
    assert ssh(box, "sudo -n id -u").stdout == "0\n"
    sh(box, f"mv {own}.kept {own}")

    undone = undo(box)
    assert undone.returncode == 0, undone.text
    assert sh(box, "sshd -T") == before
    assert sh(box, OURS) == ""
    assert sh(box, PROGRAMS, check=False) == ""
    assert sh(box, UNITS, check=False) == ""
    assert sh(box, "ls -d /etc/ssh/authorized_keys.d /etc/sudoers.d/roost*", check=False) == ""
    assert ssh(box, "cat work.txt; sudo -n id -u").stdout == "mine\n0\n"
    assert sh(box, "getent passwd ann") != ""
    assert sh(box, "systemctl is-system-running", check=False) == "running\n"
    again = undo(box)
    assert (again.returncode, again.changed) == (0, []), again.text

    # And forth again.
    done = roost(box, "up", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
