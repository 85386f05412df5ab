"""``roost remove``: what goes on this side, and what has to be asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from roost import keys, known_hosts, process
from roost.cli.main import main
from roost.errors import ExitCode
from roost.known_hosts import HostKey
from roost.model import Fleet
from roost.paths import Paths
from roost.tunnels import Tunnels
from roost.workspace import Workspace

HOSTS = """\
all:
  hosts:
    gate: {ansible_host: 127.0.0.1, ansible_port: 1}
    gpu1: {ansible_host: 10.0.0.5, roost_via: gate}
    gpu10: {ansible_host: 10.0.0.6, roost_via: gate}
    lone: {ansible_host: 127.0.0.1, ansible_port: 1}
"""
KEY = HostKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5")


@pytest.fixture
def fleet(load: Callable[..., Fleet]) -> Fleet:
    return load(HOSTS)


@pytest.fixture
def remove(workspace: Workspace, fleet: Fleet) -> Callable[..., int]:
    return lambda *words: main(["-w", str(workspace.root), "remove", *words])


def names(workspace: Workspace) -> list[str]:
    text = (workspace.inventory / "hosts.yml").read_text()
    return [line.split(":")[0].strip() for line in text.splitlines()[2:]]


def test_everything_of_the_box_goes_and_nothing_of_another(
    workspace: Workspace, paths: Paths, remove: Callable[..., int]
) -> None:
    for name in ("gpu1", "gpu10"):
        known_hosts.pin(workspace.known_hosts, name, [KEY], hashed=False)
        folder = workspace.inventory / "host_vars"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.yml").write_text("{}\n")
    tunnels = Tunnels(paths, dict(os.environ))
    for name in ("gpu1", "gpu10"):
        for use in ("lab", "socks", "pac"):
            tunnels.same_port_as_ever(use, workspace.ssh_config, name, 20000, [])
    assert remove("gpu1") == ExitCode.OK
    assert names(workspace) == ["gate", "gpu10", "lone"]
    assert not known_hosts.pinned(workspace.known_hosts, "gpu1")
    assert known_hosts.pinned(workspace.known_hosts, "gpu10") == [KEY]
    remembered = tunnels.port_memory.path.read_text()
    assert ' gpu1"' not in remembered
    assert remembered.count(' gpu10"') == 3
    asked = process.run(["ssh", "-G", "-F", workspace.ssh_config, "gpu1"]).stdout
    assert "hostname gpu1\n" in asked


def test_says_what_is_left(
    workspace: Workspace, remove: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workspace.inventory / "host_vars"
    (folder / "gpu1").mkdir(parents=True)
    (folder / "gpu10.yml").write_text("{}\n")
    capsys.readouterr()
    assert remove("gpu1", "--json") == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told["left"] == [str(folder / "gpu1")]
    assert (told["removed"], told["purged"], told["key_taken"]) == (True, False, False)


def test_a_dry_run_shows_it_and_changes_nothing(
    workspace: Workspace, remove: Callable[..., int], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / ".ssh").mkdir(mode=0o700)
    keys.make(home / ".ssh", "me", ask=False)
    before = sorted(p for p in workspace.root.rglob("*") if not p.is_symlink())
    text = (workspace.inventory / "hosts.yml").read_text()
    capsys.readouterr()

    assert remove("gpu1", "--dry-run") == ExitCode.OK
    shown = capsys.readouterr().out
    assert "-    gpu1: {ansible_host: 10.0.0.5, roost_via: gate}" in shown.splitlines()
    assert "undo the roles" not in shown
    assert "off gpu1" not in shown
    assert remove("gpu1", "--dry-run", "--json", "--purge", "--take-key") == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told["removed"] is False
    assert told["steps"][:2] == [
        "undo the roles on gpu1",
        "take ~/.ssh/id_ed25519 off gpu1",
    ]
    assert (workspace.inventory / "hosts.yml").read_text() == text
    assert sorted(p for p in workspace.root.rglob("*") if not p.is_symlink()) == before


@pytest.mark.parametrize("words", [("--purge",), ("--take-key",)])
def test_a_box_that_cannot_be_asked_stays(
    workspace: Workspace,
    remove: Callable[..., int],
    home: Path,
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (home / ".ssh").mkdir(mode=0o700)
    keys.make(home / ".ssh", "me", ask=False)
    assert remove("lone", *words) == ExitCode.UNREACHABLE
    assert "lone is still in; on this side alone: roost remove lone" in capsys.readouterr().err
    assert "lone" in names(workspace)


def test_what_is_refused(
    workspace: Workspace, remove: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (("gate",), "would be cut off: reached through gate"),
        (("gpu",), "did you mean"),
        (("gpu1", "--take-key"), "there is no key of yours"),
    ):
        assert remove(*words) == ExitCode.USAGE
        assert said in capsys.readouterr().err
    assert names(workspace) == ["gate", "gpu1", "gpu10", "lone"]
