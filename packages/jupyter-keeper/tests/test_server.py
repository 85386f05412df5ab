"""A real server, a real kernel, and clients that come and go."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Awaitable, Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from relay import Relay
from support import (
    Page,
    Server,
    as_text,
    flooding,
    is_complete,
    lines,
    printing,
    printing_until,
)

OUTPUTS = ("stream", "display_data", "execute_result", "error", "update_display_data")


@pytest.fixture
def name() -> str:
    return f"{uuid.uuid4().hex[:8]}.ipynb"


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())


@pytest.mark.parametrize("protocol", [True, False])
def test_outputs_arrive_as_changes_of_the_notebook_once(
    server: Server, name: str, protocol: bool
) -> None:
    async def test() -> None:
        path = server.notebook("print('é' * 3); 6 * 7", name=name)
        page = await Page(server, path, protocol=protocol).open()
        page.run(0)
        await page.until(lambda: page.state() == ("idle", 1))
        assert page.text() == "ééé\n42\n"
        await page.until(lambda: page.got("execute_reply"))
        await page.until(lambda: {"execution_state": "idle"} in page.got("status"))
        assert not [kind for kind in OUTPUTS if page.got(kind)]
        await page.until(lambda: server.saved_text(name=name) == "ééé\n42\n")
        await page.close()

    run(test)


def test_a_console_stays_stock(server: Server, name: str) -> None:
    async def test() -> None:
        page = await Page(server, server.notebook("1", name=name)).open()
        page.execute("print('here')", {"cellId": "of-a-console"})
        await page.until(lambda: page.got("stream"))
        assert page.got("stream")[0]["text"] == "here\n"
        await page.close()

    run(test)


def test_nobody_there_while_it_runs_and_a_newcomer_in_the_middle(server: Server, name: str) -> None:
    async def test() -> None:
        path = server.notebook(printing(count=40, pause=0.1), name=name)
        first = await Page(server, path).open()
        first.run(0)
        await first.until(lambda: "line 3\n" in first.text())
        await first.close()
        second = await Page(server, path).open()
        await second.until(lambda: "line 12\n" in second.text())
        assert second.state() == ("running", None)
        await second.until(lambda: {"execution_state": "busy"} in second.got("status"))
        await second.close()
        await asyncio.sleep(0)
        third = await Page(server, path).open()
        await third.idle()
        assert third.text() == lines(40)
        assert third.state() == ("idle", 1)
        await third.until(lambda: server.saved_text(name=name) == lines(40))
        await third.close()

    run(test)


def test_a_cell_that_waits_for_its_kernel_counts_as_running(server: Server, name: str) -> None:
    """However long the kernel takes: only cells that were loaded as running are put right."""

    async def test() -> None:
        page = await Page(server, server.notebook("print(1)", name=name)).open(kernel=False)
        page.document.ycells[0]["execution_state"] = "running"
        other = await Page(server, name).open(kernel=False)
        await other.until(lambda: other.state()[0] == "running")
        await server.request("GET", "/api/keeper")  # looks through all open notebooks
        third = await Page(server, name).open(kernel=False)
        assert third.state()[0] == "running"
        for one in (page, other, third):
            await one.close()

    run(test)


def test_run_all_with_nobody_there_stops_at_the_error(server: Server, name: str) -> None:
    async def test() -> None:
        sources = ("import time; time.sleep(1); print(1)", "print(2); 1 / 0", "print(3)")
        path = server.notebook(*sources, name=name)
        first = await Page(server, path).open()
        for index in range(3):
            first.run(index)
        await first.until(lambda: first.got("execute_input"))
        await first.close()
        second = await Page(server, path).open(kernel=False)
        await second.until(lambda: [second.state(i)[0] for i in range(3)] == ["idle"] * 3)
        assert [second.text(i) for i in range(3)] == [
            "1\n", "2\nZeroDivisionError: division by zero", ""
        ]  # fmt: skip
        assert [second.state(i)[1] for i in range(3)] == [1, 2, None]
        await second.close()

    run(test)


RICH = """
import sys, time
from IPython.display import HTML, display, clear_output
display(HTML("<b>bold</b>"))
print("err", file=sys.stderr, flush=True)
print("\\033[31mred\\033[0m", flush=True)
handle = display("before", display_id=True)
for percent in range(0, 101, 10):
    print(f"\\r{percent:3d}%|{'█' * (percent // 10):10}|", end="", file=sys.stderr, flush=True)
handle.update("after")
"""


def test_rich_outputs_progress_bars_and_updates(server: Server, name: str) -> None:
    async def test() -> None:
        clear = "for i in range(5):\n    clear_output(wait=True)\n    print('frame', i)\n"
        path = server.notebook(RICH, "handle.update('from another cell')", clear, name=name)
        page = await Page(server, path).open()
        for index in range(3):
            page.run(index)
            await page.until(lambda: page.state(index) == ("idle", index + 1))  # noqa: B023
        outputs = page.outputs(0)
        assert [o["output_type"] for o in outputs] == [
            "display_data", "stream", "stream", "display_data", "stream"
        ]  # fmt: skip
        assert outputs[0]["data"]["text/html"] == "<b>bold</b>"
        assert (outputs[1]["name"], outputs[1]["text"]) == ("stderr", "err\n")
        assert outputs[2]["text"] == "\x1b[31mred\n\x1b[0m"
        assert outputs[3]["data"]["text/plain"] == "'from another cell'"
        assert outputs[4]["text"] == "100%|██████████|"
        assert page.text(2) == "frame 4\n"
        await page.close()

    run(test)


@pytest.mark.parametrize("who", ["same", "other", "both"])
def test_input_asked_while_nobody_is_there(server: Server, name: str, who: str) -> None:
    async def test() -> None:
        code = "import time; time.sleep(0.7); print('hello', input('name?'))"
        path = server.notebook(code, name=name)
        first = await Page(server, path).open()
        request = first.run(0)
        await first.until(lambda: first.got("execute_input"))
        await first.close()
        if who == "both":
            # a newcomer before the question is asked: the stock server then forgets the first
            await (await Page(server, path).open()).close()
        await asyncio.sleep(1)
        session = first.session if who == "same" else ""
        second = await Page(server, path, session=session).open()
        if who == "same":
            await second.until(lambda: second.got("input_request"))
        else:
            await second.until(lambda: second.got("keeper_input"))
            question = second.got("keeper_input")[0]
            assert question["open"] and question["prompt"] == "name?" and not question["password"]
            assert question["cell_id"] == second.document.ycells[0]["id"]
            assert question["parent_header"]["msg_id"] == request
        second.answer("ann")
        await second.idle()
        assert second.text().endswith("hello ann\n")
        await second.close()

    run(test)


def test_input_is_put_to_both_browsers_and_withdrawn_from_the_other(
    server: Server, name: str
) -> None:
    async def test() -> None:
        path = server.notebook("print(input('name?') * 2)", name=name)
        first = await Page(server, path).open()
        second = await Page(server, path).open()
        first.run(0)
        await first.until(lambda: first.got("input_request"))
        await second.until(lambda: second.got("keeper_input"))
        assert not second.got("input_request")
        second.answer("ab")
        await first.until(lambda: [q for q in first.got("keeper_input") if not q["open"]])
        await first.idle()
        assert first.text() == "abab\n"
        await first.close()
        await second.close()

    run(test)


def test_interrupt_by_a_newcomer(server: Server, name: str) -> None:
    async def test() -> None:
        path = server.notebook(printing(count=1000, pause=0.05), name=name)
        first = await Page(server, path).open()
        first.run(0)
        await first.until(lambda: "line 2\n" in first.text())
        await first.close()
        second = await Page(server, path).open()
        await second.until(lambda: "line 6\n" in second.text())
        await server.request("POST", f"/api/kernels/{second.kernel_id}/interrupt", {})
        await second.idle()
        assert second.text().endswith("KeyboardInterrupt: ")
        await second.close()

    run(test)


def test_cleared_by_hand_in_the_middle(server: Server, name: str) -> None:
    async def test() -> None:
        path = server.notebook(printing(count=30, pause=0.05), name=name)
        page = await Page(server, path).open()
        page.run(0)
        await page.until(lambda: "line 9\n" in page.text())
        seen = page.text().count("\n")
        page.document.ycells[0]["outputs"].clear()
        await page.idle()
        text = page.text()
        assert lines(30).endswith(text)
        assert 10 <= text.count("\n") <= 30 - seen
        await page.close()

    run(test)


def test_run_again_while_it_runs(server: Server, name: str) -> None:
    async def test() -> None:
        path = server.notebook(printing(count=10, pause=0.1), name=name)
        page = await Page(server, path).open()
        page.run(0)
        await page.until(lambda: "line 2\n" in page.text())
        page.run(0)
        await page.until(lambda: page.state() == ("idle", 2))
        assert page.text() == lines(10)
        await page.close()

    run(test)


@pytest.mark.parametrize("away", [False, True])
def test_kernel_killed_while_it_runs(server: Server, name: str, away: bool) -> None:
    async def test() -> None:
        code = (
            "import os, time\nprint('before', flush=True)\ntime.sleep(1)\nos.kill(os.getpid(), 9)"
        )
        path = server.notebook(code, "print('again')", name=name)
        page = await Page(server, path).open()
        page.run(0)
        page.run(1)
        await page.until(lambda: "before" in page.text())
        if away:
            await page.close()
            page = await Page(server, path).open(kernel=False)
        await page.until(lambda: page.state(0)[0] == page.state(1)[0] == "idle")
        note = "The kernel died and was restarted while this cell was running.\n"
        assert page.text(0) == f"before\n{note}"
        await page.close()
        again = await Page(server, path).open()
        again.run(1)
        await again.until(lambda: again.state(1) == ("idle", 1))
        assert again.text(1) == "again\n"
        await again.close()

    run(test)


def test_restarted_by_hand_then_run_all(server: Server, name: str) -> None:
    async def test() -> None:
        path = server.notebook(printing(count=1000, pause=0.05), "print(2)", name=name)
        page = await Page(server, path).open()
        for _ in range(3):  # the first lines of a process that just started are easily missed
            page.run(0)
            await page.until(lambda: "line 2\n" in page.text())
            await server.request("POST", f"/api/kernels/{page.kernel_id}/restart", {})
            page.run(1)
            await page.until(lambda: page.state(1) == ("idle", 1))
            assert page.text(1) == "2\n"
            assert page.state(0)[0] == "idle"
        await page.close()

    run(test)


@pytest.mark.parametrize("delay", [0, 2])
def test_left_at_once_after_a_restart(server: Server, name: str, delay: int) -> None:
    # Two seconds are longer than a socket that is closed waits for the other side.
    config = server.folder / "home" / "ipython" / "profile_default" / "ipython_kernel_config.py"

    async def test() -> None:
        path = server.notebook("print(1)", name=name)
        page = await Page(server, path).open()
        other = await Page(server, path).open()
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(f"import time\ntime.sleep({delay})\n")
        await server.request("POST", f"/api/kernels/{page.kernel_id}/restart", {})
        page.run(0)
        await page.close()
        await other.until(lambda: other.state() == ("idle", 1))
        assert other.text() == "1\n"
        await other.close()

    try:
        run(test)
    finally:
        config.unlink()


def test_left_in_the_moment_of_running(server: Server, name: str) -> None:
    """The request and the farewell of a page are read together; another page stays."""

    async def test() -> None:
        path = server.notebook("print(1)", name=name)
        other = await Page(server, path).open()
        for count in range(1, 6):
            page = await Page(server, path).open()
            page.run(0)
            await page.close()
            expected = ("idle", count)
            await other.until(lambda expected=expected: other.state() == expected, 20)
            assert other.text() == "1\n"
        await other.close()

    run(test)


@pytest.mark.timeout(120)
def test_busy_while_it_computes_whatever_is_asked_beside(
    new_server: Callable[..., Server],
) -> None:
    """What the kernel answers beside a cell makes it idle to the stock server, which ends it."""
    server = new_server(
        "--MappingKernelManager.cull_idle_timeout=3", "--MappingKernelManager.cull_interval=1"
    )

    async def test() -> None:
        path = server.notebook("import time; time.sleep(9); print('late')")
        page = await Page(server, path).open()
        page.run(0)
        await page.until(lambda: page.got("execute_input"))
        page.send("control", "usage_request", {})
        await page.until(lambda: page.got("usage_reply"))
        await page.close()
        newcomer = await Page(server, path).open(kernel=False)
        await newcomer.idle()
        assert newcomer.text() == "late\n"
        await newcomer.close()
        # And once it is idle it is ended.
        while await server.request("GET", "/api/kernels"):
            await asyncio.sleep(0.1)

    run(test)


def test_shut_down_while_it_runs(server: Server, name: str) -> None:
    async def test() -> None:
        path = server.notebook(printing(count=1000, pause=0.05), name=name)
        page = await Page(server, path).open()
        page.run(0)
        await page.until(lambda: "line 2\n" in page.text())
        await server.request("DELETE", f"/api/kernels/{page.kernel_id}")
        await page.idle()
        assert page.text().endswith("KeyboardInterrupt: ")
        while (await server.request("GET", "/api/keeper"))["kernels"]:
            await asyncio.sleep(0.1)
        await page.close()

    run(test)


def test_two_pages_and_copies_of_one_notebook(server: Server, name: str) -> None:
    """Copies have the same cell ids; the kernel's session tells them apart."""

    async def test() -> None:
        path = server.notebook("print(__name__)", name=name)
        copy = f"copy-{name}"
        (server.root / copy).write_bytes((server.root / name).read_bytes())
        one = await Page(server, path).open()
        other = await Page(server, copy).open()
        assert one.document.ycells[0]["id"] == other.document.ycells[0]["id"]
        other.run(0)
        await other.until(lambda: other.state() == ("idle", 1))
        assert (one.text(), other.text()) == ("", "__main__\n")
        await one.close()
        await other.close()

    run(test)


def test_two_people_each_with_a_server_of_their_own(
    server: Server, name: str, tmp_path: Path
) -> None:
    """The one who only looks sees it grow, and takes nothing away."""
    theirs = Server(tmp_path)
    theirs.root = server.root

    async def test() -> None:
        path = server.notebook(printing_until(f"{name}.stop"), name=name)
        page = await Page(server, path).open()
        reader = await Page(theirs, path).open(kernel=False)
        page.run(0)
        await reader.until(lambda: "line 5\n" in reader.text())
        (server.root / f"{name}.stop").touch()
        await page.idle()
        for looking in (page, reader):
            await looking.until(lambda looking=looking: is_complete(looking.text()))
        await page.until(lambda: is_complete(server.saved_text(name=name)))
        await reader.close()
        await page.close()

    try:
        theirs.start()
        run(test)
    finally:
        theirs.stop()


def test_thousands_of_small_outputs(server: Server, name: str) -> None:
    async def test() -> None:
        code = "from IPython.display import display\nfor i in range(4_000):\n    display(i)"
        path = server.notebook(code, name=name)
        page = await Page(server, path).open()
        page.run(0)
        await page.until(lambda: page.state() == ("idle", 1), 120)
        shown = [output["data"]["text/plain"] for output in page.outputs()]
        assert shown == [str(number) for number in range(4_000)]
        await page.close()

    run(test)


def test_late_output_of_a_thread(server: Server, name: str) -> None:
    async def test() -> None:
        code = (
            "import threading, time\n"
            "def late():\n    time.sleep(1)\n    print('late', flush=True)\n"
            "threading.Thread(target=late).start()\nprint('first')"
        )
        path = server.notebook(code, name=name)
        page = await Page(server, path).open()
        page.run(0)
        await page.until(lambda: page.state() == ("idle", 1))
        await page.until(lambda: page.text() == "first\nlate\n")
        assert page.state() == ("idle", 1)
        await page.close()

    run(test)


def test_renamed_while_it_runs(server: Server, name: str) -> None:
    async def test() -> None:
        path = server.notebook(printing(count=30, pause=0.1), name=name)
        page = await Page(server, path).open()
        page.run(0)
        await page.until(lambda: "line 2\n" in page.text())
        moved = f"moved-{name}"
        await server.request("PATCH", f"/api/contents/{path}", {"path": moved})
        await page.idle()
        await page.until(lambda: server.saved_text(name=moved) == lines(30))
        assert not (server.root / path).exists()
        await page.close()

    run(test)


@pytest.mark.parametrize("outputs", ["older", "removed"])
def test_edited_on_disk_while_it_runs(server: Server, name: str, outputs: str) -> None:
    async def test() -> None:
        path = server.notebook(printing_until(f"{name}.stop"), "'second cell'", name=name)
        page = await Page(server, path).open()
        page.run(0)
        await page.until(lambda: server.saved_text(name=name) != "")
        file = server.root / path

        def changed() -> bool:
            text = file.read_text()
            # a save may come at the same time
            if text.endswith("}\n") and "changed by git" not in text:
                content = json.loads(text)
                content["cells"][1]["source"] = "'changed by git'"
                if outputs == "removed":
                    content["cells"][0]["outputs"] = []
                file.write_text(json.dumps(content))
            return "changed by git" in str(page.document.ycells[1]["source"])

        await page.until(changed)
        await page.until(lambda: page.state() == ("running", None))
        (server.root / f"{name}.stop").touch()
        await page.idle()
        assert is_complete(page.text())
        await page.until(lambda: is_complete(server.saved_text(name=name)))
        await page.until(lambda: "changed by git" in file.read_text())
        await page.close()

    run(test)


def test_an_older_file_just_after_the_end(server: Server, name: str) -> None:
    """As a save leaves it that was overtaken by a renaming."""

    async def test() -> None:
        path = server.notebook(printing(count=10, pause=0), "'second cell'", name=name)
        page = await Page(server, path).open()
        file = server.root / path
        content = json.loads(file.read_text())
        content["cells"][1]["source"] = "'older'"
        page.run(0)
        await page.until(lambda: page.state() == ("idle", 1))

        def taken() -> bool:
            # What comes in the middle of a save is written over, or taken for what was saved.
            if "older" in file.read_text():
                file.touch()
            else:
                file.write_text(json.dumps(content))
            return "older" in str(page.document.ycells[1]["source"])

        await page.until(taken)
        await page.until(lambda: page.text() == lines(10) and page.state() == ("idle", 1))
        await page.until(lambda: server.saved_text(name=name) == lines(10))
        await page.close()

    run(test)


def test_deleted_while_it_runs(server: Server, name: str) -> None:
    async def test() -> None:
        path = server.notebook(printing(count=40, pause=0.1), name=name)
        page = await Page(server, path).open()
        page.run(0)
        await page.until(lambda: "line 2\n" in page.text())
        await server.request("DELETE", f"/api/contents/{path}")
        await page.idle()
        assert page.text() == lines(40)
        assert not (server.root / path).exists()
        # Once, if a save was about to begin.
        assert server.log.read_text().count("could not save a notebook") <= 1
        assert (await server.request("GET", "/api/keeper"))["active"]
        await page.close()

    run(test)


def test_a_silent_link(server: Server, name: str) -> None:
    """The page neither gets anything nor is known to be gone; then it comes back."""

    async def test() -> None:
        relay = Relay(server.port)
        code = printing(count=20, pause=0.1) + "\nprint('hello', input('name?'))"
        path = server.notebook(code, name=name)
        first = await Page(server, path, port=relay.port).open()
        first.run(0)
        await first.until(lambda: "line 3\n" in first.text())
        relay.stall()
        watcher = await Page(server, path).open()
        await watcher.until(lambda: watcher.got("keeper_input"))
        relay.cut()
        relay.mend()
        again = await Page(server, path, port=relay.port, session=first.session).open()
        await again.until(lambda: again.got("keeper_input"))
        again.answer("ann")
        await again.idle()
        assert again.text() == lines(20) + "hello ann\n"
        for page in (first, watcher, again):
            await page.close()
        relay.close()

    run(test)


WIDGET = """
import ipywidgets as widgets, time
from IPython.display import display
out = widgets.Output()
display(out)
with out:
    print("one")
    display("shown")
    time.sleep(1)
    print("two")
print("outside")
"""


def test_output_widgets_take_their_outputs(server: Server, name: str) -> None:
    async def test() -> None:
        path = server.notebook(WIDGET, "out.outputs", "out.clear_output(); out.outputs", name=name)
        page = await Page(server, path).open()
        page.run(0)
        await page.idle()
        assert "outside" in page.text()
        assert "one" not in page.text()

        def states() -> list[Any]:
            updates = [m["data"].get("state", {}) for m in page.got("comm_msg")]
            return [state["outputs"] for state in updates if "outputs" in state]

        await page.until(lambda: states() and as_text(states()[-1]) == "one\n'shown'\ntwo\n")
        page.run(1)
        await page.until(lambda: page.state(1)[1] == 2)
        assert "'text': 'one\\n'" in page.text(1)
        assert "two" in page.text(1)
        await page.close()
        other = await Page(server, path).open()
        other.run(2)
        await other.until(lambda: other.state(2)[1] == 3)
        other.run(1)
        await other.until(lambda: other.state(1)[1] == 4)
        assert other.text(1) == "()\n"
        await other.close()

    run(test)


def test_a_flood_with_nobody_there(server: Server, name: str) -> None:
    async def test() -> None:
        code = f"import time; time.sleep(0.5)\n{flooding(2_000_000)}"
        path = server.notebook(code, name=name)
        first = await Page(server, path).open()
        first.run(0)
        await first.until(lambda: first.got("execute_input"))
        await first.close()
        second = await Page(server, path).open(kernel=False)
        await second.until(lambda: second.state() == ("idle", 1), 120)
        text = second.text()
        assert "[jupyter-keeper left out" in text
        assert text.startswith(f"0 {'x' * 92}\n")
        assert text.endswith(f"1999999 {'x' * 92}\n")
        assert len(text) < 1_100_000
        await second.close()

    run(test)


@pytest.mark.parametrize("room_comes", ["while it runs", "after the end"])
def test_a_full_disk_does_not_stop_anything(
    new_server: Callable[..., Server], room_comes: str
) -> None:
    async def test() -> None:
        server = new_server("--KeeperExtension.save_interval=0.2")
        path = server.notebook(printing(count=40, pause=0.1), "#" * 200_000)
        page = await Page(server, path).open()
        page.run(0)
        await page.until(lambda: "line 2\n" in page.text())
        # No file but the log may grow any more: writes of the server fail as on a full disk.
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (100_000, limits[1]))
        await page.until(lambda: "line 20\n" in page.text())
        before = server.root.joinpath(path).read_text()
        await page.until(lambda: "line 25\n" in page.text())
        assert server.root.joinpath(path).read_text() == before
        if room_comes == "after the end":
            await page.idle()
            failures = server.log.read_text().count("Error saving file")
            await page.until(
                lambda: server.log.read_text().count("Error saving file") > failures + 1
            )
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
        await page.idle()
        assert page.text() == lines(40)
        await page.until(lambda: server.saved_text() == lines(40))
        await page.close()

    run(test)


def test_the_server_is_stopped_while_a_cell_runs(new_server: Callable[..., Server]) -> None:
    """It stops though a page is open; what was printed is on disk, and the cell does not run."""

    async def test() -> None:
        server = new_server("--KeeperExtension.save_interval=1000")
        path = server.notebook(printing(count=1000, pause=0.05))
        page = await Page(server, path).open()
        page.run(0)
        await page.until(lambda: "line 20\n" in page.text())
        await asyncio.get_running_loop().run_in_executor(None, server.stop)
        await page.close()
        assert lines(20) in server.saved_text()
        server.start()
        page = await Page(server, path).open()
        await page.idle()
        assert lines(20) in page.text()
        page.run(0)
        await page.until(lambda: "line 3\n" in page.text())
        await page.close()

    run(test)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--KeeperExtension.enabled=False"], "enabled is False"),
        (["--YDocExtension.disable_rtc=True"], "disable_rtc is True"),
        (["--ServerApp.kernel_websocket_connection_class="
          "jupyter_server.services.kernels.connection.base.BaseKernelWebsocketConnection"],
         "kernel_websocket_connection_class is BaseKernelWebsocketConnection"),
        (["--KeeperExtension.pretend={'pycrdt': '99.0'}"], "not tried with pycrdt 99.0"),
    ],
)  # fmt: skip
def test_falls_back_to_stock_with_one_line(
    new_server: Callable[..., Server], options: list[str], reason: str
) -> None:
    async def test() -> None:
        server = new_server(*options)
        status = await server.request("GET", "/api/keeper")
        assert not status["active"]
        assert reason in status["reason"]
        log = [line for line in server.log.read_text().splitlines() if "jupyter-keeper" in line]
        assert len(log) == 1
        assert reason in log[0]
        if "connection_class" not in options[0]:
            page = await Page(server, server.notebook("print('stock')")).open()
            page.run(0)
            await page.until(lambda: page.got("stream"))
            await page.close()

    run(test)


def test_status_needs_the_token(server: Server) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{server.url}/api/keeper")
    assert error.value.code == 403


def test_the_module_says_whether_it_fits() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_keeper"], capture_output=True, check=False
    )
    report = json.loads(done.stdout)
    assert report["fine"]
    assert done.returncode == 0
    declared = metadata.requires("jupyter-keeper")
    declared = {Requirement(line).name: Requirement(line).specifier for line in declared}
    for name, versions in report["versions"].items():
        assert declared[name] == SpecifierSet(versions["supported"]), name


def test_other_messages_wait_for_the_page_that_left(server: Server, name: str) -> None:
    """As in the stock server: what is not kept in the notebook is sent when the page is back."""

    async def test() -> None:
        code = (
            "import time\nfrom comm import create_comm\ntime.sleep(1)\n"
            "for i in range(50):\n    create_comm(target_name='t', data={'i': i})\nprint('done')"
        )
        path = server.notebook(code, name=name)
        first = await Page(server, path).open()
        first.run(0)
        await first.until(lambda: first.got("execute_input"))
        await first.close()
        watcher = await Page(server, path).open(kernel=False)
        await watcher.until(lambda: watcher.state() == ("idle", 1))
        again = await Page(server, path, session=first.session).open()
        await again.until(lambda: len(again.got("comm_open")) == 50)
        assert [content["data"]["i"] for content in again.got("comm_open")] == list(range(50))
        assert not again.got("stream")
        await again.close()
        await watcher.close()

    run(test)
