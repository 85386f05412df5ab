"""The page of a run, in Chromium: all of it is there, on a phone too, with nothing fetched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from chromium import CHROMIUM
from playwright.sync_api import Request, sync_playwright

from roost.events import Event, Kind, Outcome
from roost.run_page import page

pytestmark = pytest.mark.browser

DIFF = "--- before\n+++ after\n@@ -1 +1 @@\n-<b>old & grey</b>\n+" + "new " * 80 + "\n"
EVENTS = [
    Event(Kind.OK, "gpu1", "base", "Look at the box", 1000.0, 2.0),
    Event(Kind.CHANGED, "gpu1", "tmux", "Install tmux", 1002.0, 6.0, diff=DIFF),
    Event(Kind.FAILED, "gpu1", "jupyter", "Build the release", 1008.0, 2.0,
          message="No space left on device"),
    Event(Kind.UNREACHABLE, "gate", "base", "Look at the box", 1000.0, 5.0,
          message="Connection timed out"),
    Event(Kind.STATS, stats={"gpu1": {"ok": 2, "changed": 1, "failures": 1},
                             "gate": {"unreachable": 1}}),
]  # fmt: skip


@pytest.fixture
def written(tmp_path: Path) -> Path:
    outcome = Outcome(seconds=10.0)
    for event in EVENTS:
        outcome.add(event)
    text = page(outcome, EVENTS, title="Provisioned gpu1, gate", ended=1010.0,
                versions={"roost": "1.2.3"})  # fmt: skip
    file = tmp_path / "run.html"
    file.write_text(text, "utf-8")
    return file


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_shows_what_happened(written: Path, scheme: str, width: int, tmp_path: Path) -> None:
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which(CHROMIUM[0]), args=CHROMIUM[1:]
        )
        tab = browser.new_page(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        tab.on("request", note)
        tab.goto(written.as_uri())
        assert asked == [written.as_uri()]
        assert tab.title() == "Provisioned gpu1, gate"
        # Nothing sticks out of the page to the right.
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 19, 21)"
        assert dark == (scheme == "dark")
        text = tab.inner_text("body")
        assert "its disk is full" in text and "jupyter: Build the release" in text
        assert "roost 1.2.3" in text
        diff = tab.locator("details", has_text="tmux: Install tmux")
        assert not diff.locator("pre").is_visible()
        diff.locator("summary").click()
        assert "-<b>old & grey</b>" in diff.inner_text()
        # Ten seconds in all: base took the first fifth of gpu1's line, and tmux three.
        bar = tab.locator(".bar").first
        whole = bar.bounding_box()
        spans = [bar.locator("span").nth(n).bounding_box() for n in range(3)]
        assert whole and all(spans)
        shares = [round(span["width"] / whole["width"], 1) for span in spans if span]
        assert shares == [0.2, 0.6, 0.2]
        tab.screenshot(path=tmp_path / "page.png", full_page=True)
        browser.close()
