"""A real server, a real kernel, and clients that come and go."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support import Page, Server

OUTPUTS = ("stream", "display_data", "execute_result", "error", "update_display_data")
LINES = "import time\nfor i in range({count}):\n    print('line', i, flush=True)\n    time.sleep({pause})"


def lines(count: int) -> str:
    return "".join(f"line {number}\n" for number in range(count))


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
        assert {"execution_state": "idle"} in page.got("status")
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
        path = server.notebook(LINES.format(count=40, pause=0.1), name=name)
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
