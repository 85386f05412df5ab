"""CPU time and peak memory of the server while a cell prints 3,000 lines in 30 s.

    python bench/cpu.py [SECONDS]

Beside stock JupyterLab (the same server, without collaboration and keeper) and collaboration
alone; with a page connected, and with the page closed after the first lines. Needs psutil.
Prints one line of JSON per case: CPU seconds of the server process from the start of the cell
to its end, its largest resident size in MB, lines on disk at the end of lines printed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psutil
from support import Page, Server

LINES = 3000
STACKS = {
    "stock": ([], False),
    "collaboration": ([], False),
    "keeper": ([], True),
}


class StockPage:
    """A page without collaboration: the kernel's WebSocket alone; nothing is saved here."""

    def __init__(self, server: Server, path: str) -> None:
        self._page = Page(server, path)

    async def open(self) -> StockPage:
        body = {"path": self._page.path, "type": "notebook", "name": "nb",
                "kernel": {"name": "python3"}}  # fmt: skip
        model = await self._page.server.request("POST", "/api/sessions", body)
        self._page.kernel_id = model["kernel"]["id"]
        self._page._room = None
        await self._page.connect()
        return self

    def run(self, code: str) -> None:
        self._page.execute(code)

    async def close(self) -> None:
        await self._page.close()

    def seen(self) -> int:
        return "".join(content["text"] for content in self._page.got("stream")).count("\n")


class SharedPage(StockPage):
    async def open(self) -> SharedPage:
        await self._page.open()
        return self

    def run(self, code: str) -> None:
        self._page.run(0)

    def seen(self) -> int:
        shown = self._page.text().count("\n")
        return shown or super().seen()


async def measure(stack: str, alone: bool, seconds: float) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        options, keeper = STACKS[stack]
        server = Server(Path(folder), *options, keeper=keeper).start()
        try:
            code = (
                "import time\nstart = time.monotonic()\n"
                f"for i in range({LINES}):\n    print('line', i, flush=True)\n"
                f"    time.sleep(max(0, start + i * {seconds / LINES} - time.monotonic()))"
            )
            path = server.notebook(code)
            page = await (StockPage if stack == "stock" else SharedPage)(server, path).open()
            assert server.process is not None
            process = psutil.Process(server.process.pid)
            await asyncio.sleep(2)
            before = process.cpu_times()
            page.run(code)
            while page.seen() < 5:
                await asyncio.sleep(0.1)
            if alone:
                await page.close()
            peak, deadline = 0, time.monotonic() + seconds + 3
            while time.monotonic() < deadline:
                peak = max(peak, process.memory_info().rss)
                await asyncio.sleep(0.5)
            after = process.cpu_times()
            used = after.user + after.system - before.user - before.system
            if not alone:
                await page.close()
            return {
                "stack": stack,
                "page": "closed" if alone else "connected",
                "cpu_s": round(used, 2),
                "peak_mb": round(peak / 1e6),
                "lines_on_disk": server.saved_text().count("\n"),
                "lines_printed": LINES,
            }
        finally:
            server.stop()


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    for stack in STACKS:
        for alone in (False, True):
            print(json.dumps(asyncio.run(measure(stack, alone, seconds))), flush=True)


if __name__ == "__main__":
    main()
