"""The README's commands, typed as they stand there by somebody who has nothing but the wheel."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_near_side import Laptop, furnish_laptop

from boxes import LiveBox, exec_in, start_boxes
from roost import content

pytestmark = [pytest.mark.box, pytest.mark.timeout(1800)]

README = content.collection_root() / "README.md"
# Not run, and why.
NOT_RUN = {
    "make demo": "test_demo runs what it runs",
    "make test": "it is what runs this",
    "uv tool install roost": "the wheel of this checkout is installed in its place",
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
            " >/etc/sudoers.d/me; cd /home/me; printf '%s\\n' \"$1\" >train.py"
        )
        exec_in(boxes["server"], ["sh", "-c", script, "sh", TRAINING])
        exec_in(boxes["server"], ["chpasswd"], input=f"me:{PASSWORD}\n")
        yield Laptop(boxes["laptop"]), boxes["server"]


def test_every_command_of_the_readme_does_what_it_says(
    machines: tuple[Laptop, LiveBox],
) -> None:
    laptop, server = machines
    typed = [c for c in commands() if c not in NOT_RUN]
    assert f"roost add gpu1 {ADDRESS}" in typed, "the README has lost its walk"
    said: dict[str, str] = {}
    folder = "~"
    for command in typed:
        line = command.replace(ADDRESS, f"me@{server.now.host}")
        if line.startswith("cd "):
            folder = f"~/{line.removeprefix('cd ')}"
            continue
        if line.startswith("roost add"):
            dialogue = [
                (r"Enter passphrase.*: ", ""),
                (r"same passphrase again: ", ""),
                (r"\[y/N\]", "y"),
                (r"'s password: ", PASSWORD),
                (r"at the top of .*\[y/N\]", "y"),
            ]
            laptop.run(f"mkdir -p ~/work; rm -rf ~/work; ln -s {folder} ~/work")
            done = laptop.answer(dialogue, line)
        elif line.startswith("roost shell"):
            # It needs a terminal; its first screen is left again at once.
            done = laptop.answer([(r"\$ ", "exit")], line)
        else:
            done = laptop.run(f"cd {folder} && {line}", check=False)
        said[command] = done.stdout + done.stderr
        assert done.returncode == 0, (command, said[command])
        assert "Traceback" not in said[command]
    assert "http://127.0.0.1:" in said["roost lab gpu1"]
    assert "epoch 90/90" in said["roost logs -f gpu1 train"]
    assert re.search(r"train\b.*\b0\b", said["roost jobs"])
    laptop.run(f"cd {folder} && roost tunnel close --all")


def test_what_is_not_run_still_stands_in_the_readme() -> None:
    missing = [c for c in NOT_RUN if c not in commands()]
    assert missing == []
    assert shlex.split(next(c for c in commands() if c.startswith("roost run")))[-1] == "train.py"
