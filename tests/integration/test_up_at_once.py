"""Two people provision one bare box at the same time, each from a clone of the workspace."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml
from cli import ROOST, roost, set_variables

from boxes import LiveBox, ssh
from roost import process

pytestmark = [pytest.mark.box, pytest.mark.long]


def test_both_runs_succeed_and_nothing_is_left_to_do(box: LiveBox, tmp_path: Path) -> None:
    key = tmp_path / "ann"
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    ann = {"name": "ann", "keys": [Path(f"{key}.pub").read_text().strip()], "sudo": True}
    set_variables(box, yaml.safe_dump({"people_list": [ann]}))
    clone = tmp_path / "clone"
    shutil.copytree(box.workspace.root, clone, symlinks=True, ignore=shutil.ignore_patterns("lock"))

    runs = []
    for root in (box.workspace.root, clone):
        log = tmp_path / f"log-{root.name}"
        with log.open("w") as stream:
            argv = [ROOST, "-w", root, "up"]
            # The other person has a home of their own, and no connection that is shared.
            env = {**os.environ, "HOME": str(tmp_path)} if root is clone else dict(os.environ)
            runs.append((process.start(argv, stdout=stream, stderr=stream, env=env), log))
    try:
        for run, log in runs:
            assert run.wait(900) == 0, log.read_text()
    finally:
        for run, _ in runs:
            run.kill()
            run.wait()
    assert ssh(box, "sudo -n id -u").stdout == "0\n"
    again = roost(box, "up", "--full", timeout=900)
    assert again.returncode == 0, again.stderr
    assert "nothing to change" in again.stderr
