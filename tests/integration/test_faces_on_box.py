"""The wheel alone, and plain Ansible alone, bring a bare box to the same state."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from roost import content, process

pytestmark = [pytest.mark.box, pytest.mark.timeout(1800)]


def test_plain_ansible_from_a_wheel_does_what_roost_does(installed: Path, tmp_path: Path) -> None:
    # No checkout in sight: neither its environment on the PATH, nor its folder around us.
    env = dict(os.environ) | {"PATH": os.pathsep.join([str(installed), "/usr/bin:/bin:/usr/sbin"])}

    def run(*words: str | Path, cwd: Path = tmp_path) -> process.Completed:
        return process.run(words, cwd=cwd, env=env, check=False, timeout=1200)

    made = run(installed / "roost", "sandbox", "up", "wheel")
    try:
        assert made.returncode == 0, made.stderr
        root = Path(made.stdout.strip())
        plain = run(installed / "ansible-playbook", "playbooks/site.yml", cwd=root)
        assert plain.returncode == 0, plain.stdout[-3000:]
        assert str(content.collection_root()) not in plain.stdout
        assert re.search(r"wheel +: ok=\d+ +changed=[1-9]\d* ", plain.stdout)
        again = run(installed / "roost", "-w", root, "up", "--full")
        assert again.returncode == 0, again.stderr
        assert "1 box in order, nothing to change" in again.stderr, again.stderr
    finally:
        down = run(installed / "roost", "sandbox", "down")
    assert (down.returncode, down.stdout) == (0, "wheel\n")
