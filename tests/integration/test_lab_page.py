"""A notebook on a box, in Chromium, through a tunnel of ``roost lab`` that is cut and stalled."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli import roost
from keeper_suite import python_of
from roles import wait_for
from tunnel_rig import carriers, tunnels
from workbench import as_person, provision

from boxes import LiveBox, exec_in
from roost import process
from roost.tunnels import Tunnels

__all__ = ["tunnels"]
pytestmark = [pytest.mark.box, pytest.mark.browser]

HOME = "/home/debian"
SOURCE = """
import itertools, pathlib, time
for i in itertools.count():
    print('line', i, flush=True)
    pathlib.Path('lines').write_text(str(i))
    time.sleep(0.1)
    if pathlib.Path('stop').exists():
        break
print('total', i + 1)
"""


class PageError(AssertionError):
    """The page could not do or say something at that moment."""


class Page:
    """Chromium in a process of its own; see lab_page.py."""

    def __init__(self, running: subprocess.Popen[str]) -> None:
        self._running = running

    def __call__(self, verb: str, *words: str) -> str:
        assert self._running.stdin and self._running.stdout
        print(json.dumps([verb, *words]), file=self._running.stdin, flush=True)
        line = self._running.stdout.readline()
        assert line, "the browser's process has ended"
        answer = json.loads(line)
        if "error" in answer:
            raise PageError(f"{verb}: {answer['error']}")
        return str(answer["result"])

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until ``condition`` is true; a page that is just being redrawn is asked again."""
        trouble = ""

        def met() -> bool:
            nonlocal trouble
            try:
                return condition()
            except PageError as error:
                trouble = f"\n{error}"
                return False

        try:
            wait_for(met, what, 120)
        except AssertionError as error:
            raise AssertionError(f"{error}{trouble}\n{self('state')}") from None


@contextmanager
def chromium(address: str) -> Iterator[Page]:
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/lab\?token=(\w+)\n", address)
    assert found, address
    program = [python_of("newest"), Path(__file__).with_name("lab_page.py"), found[1]]
    environ = {**os.environ, "JUPYTER_TOKEN": found[2]}
    with process.start(program, env=environ, stdin=subprocess.PIPE, stderr=None) as running:
        try:
            yield Page(running)
        finally:
            assert running.stdin
            running.stdin.close()


@contextmanager
def shown_at_failure(tunnels: Tunnels) -> Iterator[None]:
    """What the tunnel has been through stands beside what the page shows."""
    try:
        yield
    except Exception as error:
        error.add_note(str(tunnels.list()))
        raise


def is_complete(text: str) -> bool:
    *lines, total = text.rstrip("\n").split("\n")
    return lines == [f"line {i}" for i in range(len(lines))] and total == f"total {len(lines)}"


@dataclass(frozen=True)
class Notebook:
    """A notebook on the box that prints a line every tenth of a second."""

    box: LiveBox
    name: str

    @property
    def path(self) -> str:
        return f"{self.name}/{self.name}.ipynb"

    def put(self) -> None:
        cell = {"cell_type": "code", "id": f"cell-{self.name}", "source": SOURCE, "metadata": {},
                "outputs": [], "execution_count": None}  # fmt: skip
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = {"cells": [cell], "nbformat": 4, "nbformat_minor": 5,
                    "metadata": {"kernelspec": kernel}}  # fmt: skip
        as_person(self.box, "debian", f"mkdir -p {self.name}")
        exec_in(self.box, ["tee", f"{HOME}/{self.path}"], input=json.dumps(notebook))
        exec_in(self.box, ["chown", "-R", "debian:", f"{HOME}/{self.name}"])

    def printed(self) -> str:
        """The number of the last line."""
        lines = f"{HOME}/{self.name}/lines"
        return str(wait_for(lambda: exec_in(self.box, ["cat", lines]).stdout, "a line"))

    def stop(self) -> None:
        exec_in(self.box, ["touch", f"{HOME}/{self.name}/stop"])

    def saved(self) -> str:
        text = exec_in(self.box, ["cat", f"{HOME}/{self.path}"]).stdout
        outputs = json.loads(text)["cells"][0]["outputs"] if text.endswith("}\n") else []
        return "".join("".join(output["text"]) for output in outputs)


@pytest.fixture
def box(shared_box: Callable[..., LiveBox]) -> LiveBox:
    return shared_box("workbench-debian-12", provision, os="debian:12")


def run_through(page: Page, notebook: Notebook, tunnels: Tunnels, fault: signal.Signals) -> None:
    """Run the cell, break the connection, and see that the page goes on."""
    page("open", notebook.path)
    page("run")
    page.wait(lambda: "line 5\n" in page("text"), "output")
    [carrier] = carriers(tunnels)
    os.kill(carrier, fault)
    wait_for(lambda: carrier not in carriers(tunnels), "another connection", 120)
    line = f"line {notebook.printed()}\n"
    page.wait(lambda: line in page("text"), "output after the fault")


def test_the_page_goes_on_after_a_cut(box: LiveBox, tunnels: Tunnels) -> None:
    notebook = Notebook(box, "goes-on")
    notebook.put()
    address = roost(box, "lab", box.name, "--print-url").stdout
    with chromium(address) as page, shown_at_failure(tunnels):
        run_through(page, notebook, tunnels, signal.SIGKILL)
        notebook.stop()
        page.wait(lambda: is_complete(page("text")), "every line")


@pytest.mark.long
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["cut", "stall"])
def test_every_line_is_there_after_a_cut_and_in_another_browser(
    box: LiveBox, tunnels: Tunnels, fault: signal.Signals
) -> None:
    notebook = Notebook(box, fault.name)
    notebook.put()
    address = roost(box, "lab", box.name, "--print-url").stdout
    with chromium(address) as page, shown_at_failure(tunnels):
        run_through(page, notebook, tunnels, fault)
        page("close")
        page("open", notebook.path)
        page.wait(lambda: page("prompt") == "[*]:", "a cell that runs")
        notebook.stop()
        page.wait(lambda: page("prompt") == "[1]:", "the end of the cell")
        page.wait(lambda: is_complete(page("text")), "every line")
        page("shot", f"box-{fault.name}")
        page("close")
    wait_for(lambda: is_complete(notebook.saved()), "every line on disk", 60)
