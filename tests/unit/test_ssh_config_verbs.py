"""``roost ssh-config show``, ``install`` and ``undo`` on a config that is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_ssh_config import ask

from roost import ssh
from roost.cli.main import main
from roost.errors import ExitCode
from roost.model import Box, Fleet
from roost.workspace import Workspace

HOSTS = """\
all:
  hosts:
    gpu1: {ansible_host: 192.0.2.1, ansible_user: me, roost_forwards: ["1:localhost:1"]}
"""
OWN = b"Host *\r\n  User other\r\nHost gpu2\r\n HostName 192.0.2.9"


@pytest.fixture
def own(home: Path) -> Path:
    path = home / ".ssh" / "config"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(OWN)
    return path


@pytest.fixture
def run(workspace: Workspace, own: Path, capsys: pytest.CaptureFixture[str]):
    (workspace.inventory / "hosts.yml").write_text(HOSTS)

    def call(*words: str, code: int = ExitCode.OK) -> str:
        argv = ["-w", str(workspace.root), "ssh-config", *words, "--config", str(own)]
        assert main(argv) == code
        shown = capsys.readouterr()
        return shown.out if code == ExitCode.OK else shown.err

    return call


def test_show_install_and_undo(run, own: Path, workspace: Workspace, paths) -> None:
    text = run("show")
    assert "Host gpu1\n    HostName 192.0.2.1\n" in text
    before = json.loads(run("show", "--json"))
    assert (before["installed"], before["effective"], before["at"]) == (False, False, None)
    assert before["text"] == text

    dry = run("install", "--dry-run")
    assert f"+{before['line']}" in dry.splitlines()
    assert "+    HostName 192.0.2.1" in dry.splitlines()
    assert own.read_bytes() == OWN
    assert not Path(before["file"]).exists()

    assert json.loads(run("install", "--json"))["changed"] is True
    assert json.loads(run("install", "--json"))["changed"] is False
    after = json.loads(run("show", "--json"))
    assert (after["installed"], after["effective"], after["at"]) == (True, True, 1)
    assert ask(own, "gpu1")["user"] == ["me"]
    assert ask(own, "gpu1-tunnel")["localforward"] == ["1 [localhost]:1"]
    assert ask(own, "gpu2")["user"] == ["other"]

    assert json.loads(run("undo", "--dry-run", "--json"))["changed"] is True
    assert ask(own, "gpu1")["user"] == ["me"]
    assert json.loads(run("undo", "--json")) == {
        "changed": True, "config": str(own), "files": [before["file"]],
    }  # fmt: skip
    assert json.loads(run("undo", "--json"))["changed"] is False
    assert own.read_bytes() == OWN
    assert not Path(before["file"]).exists()


def test_a_name_that_is_taken_is_refused_with_its_line(run, own, workspace) -> None:
    (workspace.inventory / "hosts.yml").write_text(HOSTS.replace("gpu1", "gpu2"))
    said = run("install", code=ExitCode.USAGE)
    assert f"{own}:3 defines 'gpu2' already, as 192.0.2.9" in said
    assert own.read_bytes() == OWN
    # The same machine under the same name harms nobody.
    (workspace.inventory / "hosts.yml").write_text(
        HOSTS.replace("gpu1", "gpu2").replace("192.0.2.1", "192.0.2.9")
    )
    run("install")
    assert ask(own, "gpu2")["user"] == ["me"]


def test_a_name_of_another_workspace_is_refused(run, own, workspace, tmp_path, capsys) -> None:
    run("install")
    other = tmp_path / "other"
    assert main(["init", str(other)]) == ExitCode.OK
    (other / "inventory" / "hosts.yml").write_text(HOSTS)
    argv = ["-w", str(other), "ssh-config", "install", "--config", str(own)]
    assert main(argv) == ExitCode.USAGE
    assert "another workspace has a box called 'gpu1'" in capsys.readouterr().err


def test_a_read_only_config_is_told_what_to_add(run, own, workspace) -> None:
    own.unlink()
    own.symlink_to("/nix/store/0-home-manager/config")
    said = run("install", code=ExitCode.FAILED)
    assert "is not ours to write" in said
    assert "Include " in said


def test_another_home_than_sshs_is_not_touched(workspace: Workspace, capsys) -> None:
    assert main(["-w", str(workspace.root), "ssh-config", "install"]) == ExitCode.FAILED
    assert "--config FILE" in capsys.readouterr().err


def test_what_is_installed_follows_the_inventory(run, own, workspace, paths) -> None:
    """A colleague's change arrives with git; the next call of roost brings it to plain ssh."""
    fleet = Fleet(boxes=(Box("gpu1", "192.0.2.1"),))
    ssh.ensure_config(workspace.root, fleet, paths)
    assert not list(paths.config.glob("ssh/*"))
    run("install")
    moved = Fleet(boxes=(Box("gpu1", "192.0.2.77"), Box("gpu3", "192.0.2.3")))
    ssh.ensure_config(workspace.root, moved, paths)
    assert ask(own, "gpu1")["hostname"] == ["192.0.2.77"]
    assert ask(own, "gpu3")["hostname"] == ["192.0.2.3"]
