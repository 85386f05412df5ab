"""Every Molecule scenario, whole: check on bare boxes, converge, idempotence, verify."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import pytest

from roost import content, process

pytestmark = [pytest.mark.box, pytest.mark.timeout(2400)]

REPOSITORY = content.collection_root()
SCENARIOS = sorted(path.parent.name for path in REPOSITORY.glob("molecule/*/molecule.yml"))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Short: the path of ssh's control socket has to fit below it.
    with tempfile.TemporaryDirectory(prefix="molecule-") as home:
        env = {
            **os.environ,
            "HOME": home,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            # The galaxy.yml at the root makes molecule look for another layout.
            "MOLECULE_GLOB": "molecule/*/molecule.yml",
            "NO_COLOR": "1",
        }
        argv = ["molecule", "test", "--scenario-name", scenario]
        try:
            done = process.run(argv, cwd=REPOSITORY, env=env, timeout=2300, check=False)
            said = done.stdout + done.stderr
            assert done.returncode == 0, said[-8000:]
            for action in ("check", "converge", "idempotence", "verify"):
                assert f"{action}: Executed: Successful" in said, said[-2000:]
        finally:
            argv[1:2] = ["destroy"]
            process.run(argv, cwd=REPOSITORY, env=env, timeout=300, check=False)


@pytest.mark.parametrize("scenario", ["default", "alternative"])
def test_every_role_is_looked_at(scenario: str) -> None:
    (tests,) = (REPOSITORY / "molecule" / scenario / "tests").glob("test_*.py")
    listed = process.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", tests]
    ).stdout
    names = set(re.findall(r"::test_([a-z]+)", listed))
    assert names >= {path.name for path in (REPOSITORY / "roles").iterdir()}, listed
