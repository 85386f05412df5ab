"""The README's commands, typed as they stand there by somebody who has nothing but the wheel."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_near_side import Laptop, furnish_laptop

from boxes import LiveBox, exec_in, start_boxes
from pages import FOLLOWED, steps
from roost import content

pytestmark = [pytest.mark.box, pytest.mark.timeout(1800)]

README = content.collection_root() / "README.md"
# Not run, and why.
NOT_RUN = {
    "make demo": "test_demo runs what it runs",
    "make test": "it is what runs this",
    "uv tool install .": "the wheel of this checkout is installed in its place",
}
ADDRESS, PASSWORD = "me@203.0.113.7", "correct horse"
TRAINING = "print('epoch 90/90')"


def commands() -> list[str]:
    """The lines of the README's code blocks, without their comments."""
    lines = re.findall(r"^    (\S.*)$", README.read_text("utf-8"), re.M)
    return [re.sub(r"\s+#.*", "", line) for line in lines]


@pytest.fixture(scope="module")
def machines(wheel: Path) -> Iterator[tuple[Laptop, LiveBox]]:
    with start_boxes("laptop", "server") as boxes:
        furnish_laptop(boxes["laptop"], wheel)
        script = (
            "useradd --create-home --shell /bin/bash me; echo 'me ALL=(ALL) NOPASSWD: ALL'"
            " >/etc/sudoers.d/me"
        )
        exec_in(boxes["server"], ["sh", "-c", script])
        exec_in(boxes["server"], ["chpasswd"], input=f"me:{PASSWORD}\n")
        yield Laptop(boxes["laptop"]), boxes["server"]


def type_in(laptop: Laptop, server: LiveBox, lines: list[str]) -> dict[str, str]:
    """Type lines as the person does, and return what each of them printed."""
    said: dict[str, str] = {}
    folder = "~" if any(line.startswith("cd ") for line in lines) else "~/my-machines"
    for command in lines:
        line = command.replace(ADDRESS, f"me@{server.now.host}")
        if line.startswith("cd "):
            folder = line.removeprefix("cd ")
            laptop.run(f"rm -f ~/work; ln -s {folder} ~/work")
            continue
        if line.startswith("roost push"):
            laptop.run(f"echo {shlex.quote(TRAINING)} >~/train.py")
        if line.startswith("roost add") and "--" not in line:
            done = laptop.answer(dialogue(laptop), line)
        elif line.startswith("roost shell"):
            # It needs a terminal; its first screen is left again at once.
            done = laptop.answer([(r"\$ ", "exit")], line)
        else:
            done = laptop.run(f"cd {folder} && {line}", check=False)
        said[command] = done.stdout + done.stderr
        assert done.returncode == 0, (command, said[command])
        assert "Traceback" not in said[command]
    return said


def dialogue(laptop: Laptop) -> list[tuple[str, str]]:
    """What `roost add` asks: a person who has a key and the Include line is asked less."""
    host_key = (r"\[y/N\]", "y")
    if laptop.run("test -e ~/.ssh/id_ed25519", check=False).returncode == 0:
        return [host_key]
    return [
        (r"Enter passphrase.*: ", ""),
        (r"same passphrase again: ", ""),
        host_key,
        (r"'s password: ", PASSWORD),
        (r"at the top of .*\[y/N\]", "y"),
    ]


def test_every_command_of_the_readme_does_what_it_says(
    machines: tuple[Laptop, LiveBox],
) -> None:
    laptop, server = machines
    typed = [c for c in commands() if c not in NOT_RUN]
    assert f"roost add gpu1 {ADDRESS}" in typed, "the README has lost its walk"
    said = type_in(laptop, server, typed)
    assert "http://127.0.0.1:" in said["roost lab gpu1"]
    assert "epoch 90/90" in said["roost logs -f gpu1 train"]
    assert re.search(r"train\b.*\b0\b", said["roost jobs"])
    laptop.run("cd ~/my-machines && roost tunnel close --all")


# What the pages begin with: the README's walk was before them.
FRESH = "roost tunnel close --all; rm -rf my-machines"
BEFORE = {"tutorial.md": FRESH, "howto/remote.md": f"{FRESH}; roost init my-machines"}


@pytest.mark.long
@pytest.mark.parametrize("page", FOLLOWED["test_readme"])
def test_the_page_can_be_followed(machines: tuple[Laptop, LiveBox], page: str) -> None:
    laptop, server = machines
    laptop.run(BEFORE.get(page, "true"))
    lines = [line for step in steps(page) for line in step.lines if line not in NOT_RUN]
    assert lines
    said = type_in(laptop, server, lines)
    if page == "tutorial.md":
        assert "1 box in order" in said["roost up gpu1"]
        assert "step 3" in said["roost logs -f gpu1 count"]
        assert "a cell computes in python3" in said["roost doctor gpu1"]


def test_what_is_not_run_still_stands_in_the_readme() -> None:
    missing = [c for c in NOT_RUN if c not in commands()]
    assert missing == []
    assert shlex.split(next(c for c in commands() if c.startswith("roost run")))[-1] == "train.py"
