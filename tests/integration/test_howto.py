"""The how-to pages, followed word for word in a real terminal on a real box."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import ROOST
from test_near_side import Laptop, furnish_laptop
from workplace import equip, terminal

from boxes import LiveBox, exec_in, start_boxes
from pages import steps
from roost import process

pytestmark = pytest.mark.box


@pytest.fixture(scope="module")
def gpu1() -> Iterator[LiveBox]:
    with start_boxes("gpu1") as boxes:
        equip(boxes["gpu1"])
        yield boxes["gpu1"]


@pytest.mark.parametrize("page", ["howto/overnight.md", "howto/data.md"])
def test_the_page_can_be_followed(
    gpu1: LiveBox, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(ROOST).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("ROOST_WORKSPACE", str(gpu1.workspace.root))
    monkeypatch.chdir(tmp_path)
    found = steps(page)
    assert found
    for step in found:
        *quiet, last = [line.strip() for line in step.text.splitlines()]
        for line in quiet if step.keys else [*quiet, last]:
            done = process.run(["bash", "-c", line], check=False, timeout=120)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        if step.keys:
            on_a_terminal(tmp_path, last, step.keys)


# A stand-in for VS Code: it lists the extension, and connects as that does, by plain ssh.
EDITOR = """#!/bin/sh
case $1 in
    --list-extensions) echo ms-vscode-remote.remote-ssh ;;
    --remote) ssh -o BatchMode=yes "${2#ssh-remote+}" "hostname; cd '$3' && pwd" >~/opened ;;
esac
"""


@pytest.mark.timeout(1800)
def test_the_page_about_editors_can_be_followed(wheel: Path) -> None:
    """By a person with an ``~/.ssh`` of their own, on a box that plays the laptop."""
    with start_boxes("laptop", "gpu1") as boxes:
        furnish_laptop(boxes["laptop"], wheel)
        exec_in(boxes["laptop"], ["tee", "/usr/local/bin/code"], input=EDITOR)
        exec_in(boxes["laptop"], ["chmod", "755", "/usr/local/bin/code"])
        exec_in(boxes["gpu1"], ["useradd", "--create-home", "--shell", "/bin/bash", "me"])
        exec_in(boxes["gpu1"], ["install", "-d", "-o", "me", "/home/me/project"])
        exec_in(boxes["gpu1"], ["chpasswd"], input="me:secret\n")
        laptop = Laptop(boxes["laptop"])
        key = "mkdir -m 700 ~/.ssh; ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519"
        laptop.run(f"{key}; roost init ~/work")
        known = [(r"\[y/N\]", "y"), (r"'s password: ", "secret"), (r"Include.*\s.*\[y/N\]", "n")]
        added = laptop.answer(known, f"roost add gpu1 me@{boxes['gpu1'].now.host}")
        assert added.returncode == 0, added.stdout
        early = laptop.run("cd ~/work; roost code gpu1 project", check=False)
        assert early.returncode == 1
        assert "roost ssh-config install" in early.stderr
        lines = [line.strip() for step in steps("howto/edit.md") for line in step.text.splitlines()]
        assert lines[:2] == ["roost ssh-config install", "roost code gpu1 project"]
        for line in lines:
            done = laptop.answer([], line)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert laptop.run("cat ~/opened").stdout == "gpu1\n/home/me/project\n"
        found = json.loads(laptop.run("cd ~/work; roost doctor --json gpu1", check=False).stdout)
        (editor,) = (f for f in found if f["subject"] == "editor")
        assert (editor["level"], editor["text"]) == ("ok", "code finds gpu1: roost code gpu1")


def on_a_terminal(folder: Path, line: str, keys: tuple[str, ...]) -> None:
    """Run a line, wait for what stands in quotes, press what does not, and see it end."""
    with terminal(folder, *shlex.split(line)[1:]) as screen:
        for key in keys:
            if key.startswith('"'):
                screen.shows(key.strip('"'))
            else:
                screen.type(key)
        # Ctrl-C is how this one ends, by its exit code, too.
        screen.shows("exit 130" if "--watch" in line else "exit 0")
