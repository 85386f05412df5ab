"""The how-to pages, followed word for word in a real terminal on a real box."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli import ROOST
from workplace import equip, terminal

from boxes import LiveBox, start_boxes
from roost import process

pytestmark = [pytest.mark.box, pytest.mark.long]

PAGES = Path(__file__).parents[2] / "docs" / "howto"


@dataclass(frozen=True)
class Step:
    """A block of commands, and the keys that are pressed once the last of them runs."""

    text: str
    keys: tuple[str, ...] = ()


def steps(page: str) -> list[Step]:
    text = (PAGES / page).read_text("utf-8")
    blocks = re.findall(r"(?:<!-- keys: (.*?) -->\n)?^ *```sh\n(.*?)^ *```$", text, re.S | re.M)
    return [Step(body, tuple(re.findall(r'"[^"]*"|\S+', keys))) for keys, body in blocks]


@pytest.fixture(scope="module")
def gpu1() -> Iterator[LiveBox]:
    with start_boxes("gpu1") as boxes:
        equip(boxes["gpu1"])
        yield boxes["gpu1"]


@pytest.mark.parametrize("page", ["overnight.md", "data.md", "edit.md"])
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
