"""A JupyterLab page in Chromium: what a person does and sees."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, expect
from support import Server

PATIENCE = 90
"""Seconds that a page may take on a busy machine."""

expect.set_options(timeout=PATIENCE * 1000)

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def program() -> str:
    """The Chromium of this machine."""
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    path = next(filter(None, found), None)
    assert path, "these tests need Chromium: apt-get install chromium"
    return path


class Lab:
    def __init__(self, chromium: Browser, server: Server, path: str, port: int) -> None:
        self.context = chromium.new_context(viewport={"width": 1200, "height": 900})
        self.context.set_default_timeout(PATIENCE * 1000)
        self.page = self.context.new_page()
        self.server = server
        self._url = f"http://127.0.0.1:{port}/lab/tree/{path}?token={server.token}&reset"
        self.console: list[str] = []
        # A person closes these, and waits; both come up on a slow machine or link.
        told = self.page.locator(
            ".jp-Dialog", has_text=re.compile(r"Connection Error|time to load")
        )
        button = told.locator("button", has_text=re.compile("^(Close|Continue waiting)$"))
        self.page.add_locator_handler(told, lambda: button.click(), no_wait_after=True)  # noqa: PLW0108
        self.page.on("console", lambda message: self.console.append(message.text))
        self.page.on("pageerror", lambda error: self.console.append(f"error: {error}"))

    def open(self, *, kernel: bool = True) -> Lab:
        parts = [self.cell()]
        if kernel:
            # Either the kernel is idle, or it is busy with what an earlier page has started.
            status = re.compile(r"\| (Idle|Busy)")
            parts.append(self.page.locator("#jp-main-statusbar", has_text=status))
        asked = False

        def there() -> bool:
            nonlocal asked
            # Chromium drops what it loads when any network of the machine comes or goes, such as
            # a container's.
            dropped = any("ERR_NETWORK_CHANGED" in said for said in self.console)
            if dropped or not asked:
                asked = False
                self.console.clear()
                self.page.goto(self._url)
                asked = True
            for part in parts:
                expect(part).to_be_visible(timeout=2_000)
            return True

        self.wait(there, 2 * PATIENCE)
        return self

    def close(self) -> None:
        self.context.close()

    def cell(self, index: int = 0) -> Locator:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)

    def run(self, index: int = 0) -> None:
        self.cell(index).locator(".jp-InputArea-editor").click()
        self.page.keyboard.press("Control+Enter")

    def question(self, index: int = 0) -> Locator:
        """The field of an open ``input()``."""
        return self.cell(index).locator("input.jp-Stdin-input")

    def answer(self, text: str, index: int = 0) -> None:
        """Answer an ``input()``; what JupyterLab says of a lost connection takes the keys first."""

        def sent() -> bool:
            said = self.page.locator(".jp-Dialog", has_text="Server Connection Error")
            if said.count():
                said.locator("button", has_text="Close").click()
            if self.question(index).count():
                self.question(index).fill(text, timeout=5_000)
                self.question(index).press("Enter", timeout=5_000)
            return self.question(index).count() == 0

        self.wait(sent)

    def menu(self, *names: str) -> None:
        self.page.locator(".lm-MenuBar-item", has_text=names[0]).click()
        for name in names[1:]:
            self.page.locator(".lm-Menu-item", has_text=name).first.click()

    def prompt(self, index: int = 0) -> str:
        return self.cell(index).locator(".jp-InputPrompt").inner_text().strip()

    def text(self, index: int = 0) -> str:
        """What a person reads below the cell."""
        outputs = self.cell(index).locator(".jp-OutputArea-output")
        return "".join(f"{text.rstrip()}\n" for text in outputs.all_inner_texts() if text.strip())

    def wait(self, condition: Callable[[], Any], timeout: float = PATIENCE) -> None:
        deadline = time.monotonic() + timeout
        while True:
            failure = "not so"
            try:
                if condition():
                    return
            except Exception as error:  # the page is being redrawn
                failure = str(error)
            if time.monotonic() > deadline:
                raise AssertionError(f"{failure} within {timeout} s: {self._state()}")
            self.page.wait_for_timeout(100)

    def _state(self) -> str:
        self.shot("failed")
        cells = self.page.locator(".jp-Notebook .jp-CodeCell").count()
        shown = [(self.prompt(i), self.text(i)) for i in range(cells)]
        page = self.page.locator("body").inner_text()[-1000:]
        return f"{shown}\n{page}\n{self.console[-20:]}\n{self.server.log.read_text()[-3000:]}"

    def wait_text(self, part: str, index: int = 0, timeout: float = PATIENCE) -> None:
        self.wait(lambda: part in self.text(index), timeout)

    def wait_prompt(self, prompt: str, index: int = 0, timeout: float = PATIENCE) -> None:
        self.wait(lambda: self.prompt(index) == prompt, timeout)

    def shot(self, name: str) -> None:
        """A picture for a person to look at, where one was asked for."""
        folder = os.environ.get("KEEPER_SHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}.png")
