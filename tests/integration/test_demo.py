"""The demo, as ``make demo`` runs it: it is true, it may be run again, and it leaves nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import ROOST

from roost import process
from roost.paths import Paths

pytestmark = [pytest.mark.box, pytest.mark.timeout(1800)]


@pytest.fixture(autouse=True)
def taken_down(tmp_path: Path) -> Iterator[None]:
    yield
    demo(tmp_path, "--down")


def demo(cwd: Path, *words: str) -> process.Completed:
    return process.run(
        [ROOST, "demo", *words], cwd=cwd, env=dict(os.environ), check=False, timeout=1500
    )


def test_demo_twice_and_gone(tmp_path: Path, home: Path, paths: Paths) -> None:
    for _ in range(2):
        done = demo(tmp_path)
        assert done.returncode == 0, done.stderr
        assert re.search(r"JupyterLab answers at http://127\.0\.0\.1:\d+/lab$", done.stderr, re.M)
        assert "332833500 on demo" in done.stderr
        assert "epoch 5/5  loss 0.200" in done.stderr
        assert "roost logs demo train" in done.stdout
    assert "nothing to change" in done.stderr
    assert not (home / ".ssh").exists()
    # The token opens everything: it is on no screen and in no file of this side.
    config = next((paths.state / "sandbox").rglob("ssh_config"))
    told = process.run(["ssh", "-F", config, "demo", "cat /var/lib/roost-jupyter/$(id -un)/token"])
    token = told.stdout.strip()
    assert len(token) > 20
    assert token not in done.stdout + done.stderr
    written = [p for p in (*home.rglob("*"), *paths.runtime.rglob("*")) if p.is_file()]
    assert [p for p in written if token.encode() in p.read_bytes()] == []

    gone = demo(tmp_path, "--down")
    assert (gone.returncode, gone.stdout) == (0, "demo\n")
    assert [p for p in home.rglob("*") if p.is_file() and paths.cache not in p.parents] == []
    assert _processes_of(home) == []
    again = demo(tmp_path, "--down")
    assert again.returncode == 0
    assert "nothing to remove" in again.stderr


def test_purge_alone_is_a_usage_error(tmp_path: Path) -> None:
    done = demo(tmp_path, "--purge")
    assert (done.returncode, done.stdout) == (2, "")


def _processes_of(home: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(home) in words:
                found.append(words.replace("\0", " "))
    return found
