"""A notebook on a box, in Chromium, through a tunnel of ``roost lab`` that is cut and stalled."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
pytestmark = [pytest.mark.box, pytest.mark.browser, pytest.mark.long]

SOURCE = """
import itertools, pathlib, time
for i in itertools.count():
    print('line', i, flush=True)
    time.sleep(0.1)
    if pathlib.Path('stop').exists():
        break
print('total', i + 1)
"""


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
        assert "error" not in answer, answer
        return str(answer["result"])


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


def is_complete(text: str) -> bool:
    *lines, total = text.rstrip("\n").split("\n")
    return lines == [f"line {i}" for i in range(len(lines))] and total == f"total {len(lines)}"


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["cut", "stall"])
def test_every_line_is_there_after_a_cut_and_in_another_browser(
    shared_box: Callable[..., LiveBox], tunnels: Tunnels, fault: signal.Signals
) -> None:
    box = shared_box("workbench-debian-12", provision, os="debian:12")
    name = f"{fault.name}.ipynb"
    folder = f"/home/debian/{fault.name}"
    as_person(box, "debian", f"mkdir -p {folder}")
    cell = {"cell_type": "code", "id": f"cell-{fault.name}", "source": SOURCE, "metadata": {},
            "outputs": [], "execution_count": None}  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": [cell], "nbformat": 4, "nbformat_minor": 5,
                "metadata": {"kernelspec": kernel}}  # fmt: skip
    exec_in(box, ["tee", f"{folder}/{name}"], input=json.dumps(notebook))
    exec_in(box, ["chown", "-R", "debian:", folder])

    def saved() -> str:
        text = exec_in(box, ["cat", f"{folder}/{name}"]).stdout
        outputs = json.loads(text)["cells"][0]["outputs"] if text.endswith("}\n") else []
        return "".join("".join(output["text"]) for output in outputs)

    address = roost(box, "lab", box.name, "--print-url").stdout
    with chromium(address) as page:
        page("open", f"{fault.name}/{name}")
        page("run")
        wait_for(lambda: "line 5\n" in page("text"), "output", 90)
        [carrier] = carriers(tunnels)
        os.kill(carrier, fault)
        wait_for(lambda: carrier not in carriers(tunnels), "another connection", 120)
        seen = page("text")
        wait_for(lambda: len(page("text")) > len(seen), "output after the fault", 120)
        page("close")
        page("open", f"{fault.name}/{name}")
        wait_for(lambda: page("prompt") == "[*]:", "a cell that runs", 90)
        exec_in(box, ["touch", f"{folder}/stop"])
        wait_for(lambda: page("prompt") == "[1]:", "the end of the cell", 90)
        wait_for(lambda: is_complete(page("text")), "every line", 90)
        page("shot", f"box-{fault.name}")
        page("close")
    wait_for(lambda: is_complete(saved()), "every line on disk", 60)
