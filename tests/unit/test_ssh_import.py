"""Hosts of a lived-in ssh config, into an inventory and out again to the same answers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from test_ssh_config import ask, write

from roost import ssh_import
from roost.cli.main import main
from roost.errors import ExitCode, UsageError
from roost.inventory import load
from roost.model import Box, Fleet
from roost.paths import Paths
from roost.workspace import Workspace

CONFIG = """\
IgnoreUnknown UseKeychain
Host gate bastion
  HostName gate.example.com
  User=ops
  Port 2222
  IdentityFile ~/.ssh/ops
Host quoted
  IdentityFile "~/.ssh/ops key"
Host inner
  HostName 10.0.0.5
  ProxyJump gate
  LocalForward 8888 localhost:8888
  RemoteForward 9000 localhost:9000
  DynamicForward 1080
  SendEnv A
  SendEnv B
  Compression yes
Host old
  ProxyCommand ssh -W %h:%p gate
Host corporate
  ProxyCommand corkscrew proxy 8080 %h %p
Host elsewhere
  ProxyJump me@nowhere.example.com:22
Host behind
  ProxyJump elsewhere
Host github.com
  User git
Host *.lab !x.lab
  User lab
Match host probe exec "true"
  Port 7
Host token
  IdentityFile ~/.ssh/%h
Host there
  HostName 192.0.2.1
Host *
  User someone
"""


@pytest.fixture
def config(home: Path) -> Path:
    path = home / ".ssh" / "config"
    path.parent.mkdir(mode=0o700)
    path.write_text(CONFIG)
    return path


def test_what_can_be_taken_and_what_cannot(config: Path) -> None:
    plan = ssh_import.plan(config, Fleet(boxes=(Box("there", "192.0.2.1"),)))
    boxes = {box.name: box for box in plan.boxes}
    assert list(boxes) == ["gate", "bastion", "quoted", "inner", "old"]
    assert (boxes["gate"].host, boxes["gate"].port, boxes["gate"].user) == (
        "gate.example.com", 2222, "ops",
    )  # fmt: skip
    assert boxes["bastion"].identity == "~/.ssh/ops"
    assert boxes["quoted"].identity == "~/.ssh/ops key"
    assert boxes["inner"].via == boxes["old"].via == "gate"
    assert [str(f) for f in boxes["inner"].forwards] == [
        "8888:localhost:8888", "R:9000:localhost:9000", "D:1080",
    ]  # fmt: skip
    assert ssh_import.variables(boxes["inner"])["roost_ssh_options"] == {
        "sendenv": ["A", "B"],
        "compression": "yes",
    }
    left = {item.what: item.why for item in plan.left}
    assert list(left) == [
        "Host *.lab", "Host !x.lab", 'Match host probe exec "true"', "Host *", "corporate",
        "elsewhere", "github.com", "token", "there", "behind",
    ]  # fmt: skip
    assert "corkscrew" in left["corporate"]
    assert "me@nowhere" in left["elsewhere"]
    assert "elsewhere is not taken" in left["behind"]
    assert "% token" in left["token"]
    places = {item.what: item.place for item in plan.left}
    assert places["corporate"] == f"{config}:20"


def test_what_was_taken_is_answered_as_before(config: Path, tmp_path: Path) -> None:
    plan = ssh_import.plan(config, Fleet())
    rendered = write(tmp_path, Fleet(boxes=plan.boxes))
    for box in plan.boxes:
        before, after = ask(config, box.name), ask(rendered, box.name)
        for key in ("hostname", "port", "user", "proxyjump", "sendenv", "compression"):
            if key == "proxyjump" and box.name == "old":
                assert after[key] == ["gate"]
            else:
                assert after[key] == before[key], (box.name, key)


def test_a_name_that_is_not_there(config: Path) -> None:
    with pytest.raises(UsageError, match="does not name 'nobody'"):
        ssh_import.plan(config, Fleet(), ["nobody"])


def test_into_the_inventory(
    config: Path, workspace: Workspace, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    pins = config.parent / "known_hosts"
    pins.write_text("[gate.example.com]:2222 ssh-ed25519 AAAAC3NzaC1l\n")
    words = ["-w", str(workspace.root), "ssh-config", "import", "--config", str(config), "--json"]
    before = (workspace.inventory / "hosts.yml").read_text()
    assert main([*words, "--dry-run", "gate"]) == ExitCode.OK
    assert (workspace.inventory / "hosts.yml").read_text() == before
    capsys.readouterr()

    assert main(words) == ExitCode.OK
    said = json.loads(capsys.readouterr().out)
    assert [box["name"] for box in said["boxes"]] == [
        "gate", "bastion", "quoted", "inner", "old", "there",
    ]  # fmt: skip
    assert said["without_host_key"] == ["quoted", "inner", "old", "there"]
    assert config.read_text() == CONFIG
    fleet = load(workspace, paths=paths, environ=os.environ)
    assert fleet.box("inner").via == "gate"
    assert fleet.box("inner").forwards[0].listen == "8888"
    assert ask(workspace.ssh_config, "inner")["sendenv"][:2] == ["A", "B"]
    assert "AAAAC3NzaC1l" in workspace.known_hosts.read_text()

    # A second import finds nothing new, and changes nothing.
    there = (workspace.inventory / "hosts.yml").read_text()
    assert main(words) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["boxes"] == []
    assert (workspace.inventory / "hosts.yml").read_text() == there
