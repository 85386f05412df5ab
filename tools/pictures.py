"""Make docs/pictures anew from the real thing: ``make pictures``.

Two throwaway boxes are provisioned; what is on the pictures happened. Nothing of the user's is
touched: home and run-time folder are temporary ones.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import recording
from chromium import CHROMIUM
from playwright.sync_api import Browser, sync_playwright

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
ROOST = str(Path(sys.executable).parent / "roost")
BOXES = ("gpu1", "gpu2")
TRAINING = "import time\nfor n in range(1, 999):\n    print('epoch', n, flush=True); time.sleep(1)"
CELLS = (
    "import platform, os\nprint(platform.node(), '|', os.cpu_count(), 'cores')",
    "import time\nfor epoch in range(1, 6):\n    time.sleep(0.3)\n"
    "    print(f'epoch {epoch}/5  loss {1 / epoch:.3f}')",
    "sum(n * n for n in range(1000))",
)


class Studio:
    """A home of its own, with two boxes in it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = dict(env)

    def roost(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            [ROOST, *words], env=self.env, check=check, stdout=subprocess.PIPE, text=True
        )
        return done.stdout.strip()


@contextmanager
def studio() -> Iterator[Studio]:
    with tempfile.TemporaryDirectory(prefix="roost-", ignore_cleanup_errors=True) as top:
        home, run = Path(top) / "home", Path(top) / "run"
        home.mkdir()
        run.mkdir(mode=0o700)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("ROOST_", "XDG_"))}
        env |= {
            "HOME": str(home), "XDG_RUNTIME_DIR": str(run), "TERM": "xterm-256color",
            "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8",
            "PATH": f"{Path(ROOST).parent}:{os.environ['PATH']}",
        }  # fmt: skip
        place = Studio(env)
        try:
            yield place
        finally:
            place.roost("tunnel", "close", "--all", check=False)
            place.roost("sandbox", "down", check=False)
            place.roost("demo", "--down", check=False)


def demo(place: Studio) -> None:
    """The demo, from nothing to its end."""
    frames = recording.record(["roost", "demo"], place.env, seconds=900, rows=44)
    save("demo.svg", recording.draw(frames, "make demo, recorded"))
    place.roost("demo", "--down")


def report(place: Studio, browser: Browser) -> None:
    """The page of a run in which two boxes are provisioned."""
    place.env["ROOST_WORKSPACE"] = place.roost("sandbox", "up", *BOXES).splitlines()[-1]
    page = Path(place.env["HOME"]) / "run.html"
    place.roost("up", "--report", str(page))
    shot(browser, page.as_uri(), "report.png", 1100, 760)


def notebook(place: Studio, browser: Browser) -> None:
    """JupyterLab of a box, through the tunnel, with cells that have computed."""
    url = place.roost("lab", BOXES[0], "--print-url").splitlines()[-1]
    base, _, token = url.partition("/lab?token=")
    cells: list[dict[str, object]] = [
        {"cell_type": "code", "metadata": {}, "source": text, "outputs": [],
         "execution_count": None, "id": f"cell{n}"}
        for n, text in enumerate(CELLS)
    ]  # fmt: skip
    content = {"cells": cells, "metadata": {"kernelspec": {"name": "python3", "display_name": ""}},
               "nbformat": 4, "nbformat_minor": 5}  # fmt: skip
    body = json.dumps({"type": "notebook", "format": "json", "content": content}).encode()
    request = urllib.request.Request(  # noqa: S310 - the tunnel's own end
        f"{base}/api/contents/train.ipynb", body, {"Authorization": f"token {token}"}, method="PUT"
    )
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).close()
    tab = browser.new_page(viewport={"width": 1200, "height": 720})
    tab.goto(f"{base}/lab/tree/train.ipynb?token={token}")
    tab.locator(".jp-Notebook").wait_for(timeout=120_000)
    tab.locator("#jp-main-statusbar", has_text="| Idle").wait_for(timeout=120_000)
    tab.get_by_role("menuitem", name="Run", exact=True).click()
    tab.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    tab.get_by_text("332833500").wait_for(timeout=120_000)
    tab.screenshot(path=PICTURES / "lab.png")
    tab.close()


def status(place: Studio) -> None:
    """``status --watch``, with a job and a tunnel."""
    place.roost("run", BOXES[1], "-n", "train", "--", "python3", "-c", TRAINING)
    with recording.screen(["roost", "status", "--watch", "2"], place.env, rows=8) as shown:
        text = recording.wait_for(shown, lambda said: "gpu2" in said and " on" in said)
        shown.press("C-c")
    save("status.svg", recording.still(f"$ roost status --watch\n{text}", "roost status --watch"))


def shot(browser: Browser, url: str, name: str, width: int, height: int) -> None:
    tab = browser.new_page(viewport={"width": width, "height": height})
    tab.goto(url)
    tab.screenshot(path=PICTURES / name)
    tab.close()


def save(name: str, text: str) -> None:
    (PICTURES / name).write_text(text, "utf-8")


def main() -> None:
    """Make all of them."""
    PICTURES.mkdir(exist_ok=True)
    with studio() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which(CHROMIUM[0]), args=CHROMIUM[1:]
        )
        demo(place)
        report(place, browser)
        notebook(place, browser)
        status(place)
        browser.close()
    for path in sorted(PICTURES.iterdir()):
        print(f"{path.stat().st_size >> 10:5d} KiB  {path}")


if __name__ == "__main__":
    main()
