"""A JupyterLab page in Chromium that does what it is told on standard input.

Runs in the environment of the keeper's tests, which has Playwright: PYTHON lab_page.py PORT, with
the token in $JUPYTER_TOKEN. Each line is a JSON list, a method of ``Pages`` and its arguments; each
answer is a JSON object with ``result`` or ``error``.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

KEEPER_TESTS = Path(__file__).parents[2] / "packages" / "jupyter-keeper" / "tests"
sys.path[:0] = [str(KEEPER_TESTS), str(KEEPER_TESTS / "browser")]

from lab import FLAGS, Lab, program  # noqa: E402
from playwright.sync_api import Browser, sync_playwright  # noqa: E402


class FarServer:
    """What a page has to know of a server that others have started."""

    def __init__(self, port: int, token: str, log: Path) -> None:
        self.port, self.token, self.log = port, token, log


class Pages:
    """One page at a time, each as in a browser of its own."""

    def __init__(self, chromium: Browser, server: FarServer) -> None:
        self._chromium, self._server = chromium, server

    def open(self, path: str) -> None:
        self._lab: Any = Lab(self._chromium, self._server, path, self._server.port)
        self._lab.open()

    def run(self) -> None:
        self._lab.run()

    def text(self) -> str:
        # Lets the page work, too: Playwright does nothing between two calls.
        self._lab.page.wait_for_timeout(50)
        return str(self._lab.text())

    def prompt(self) -> str:
        return str(self._lab.prompt())

    def shot(self, name: str) -> None:
        self._lab.shot(name)

    def state(self) -> str:
        return str(self._lab._state())

    def close(self) -> None:
        self._lab.close()


def main() -> None:
    with sync_playwright() as playwright, tempfile.NamedTemporaryFile() as log:
        browser = playwright.chromium.launch(executable_path=program(), args=FLAGS)
        server = FarServer(int(sys.argv[1]), os.environ["JUPYTER_TOKEN"], Path(log.name))
        pages = Pages(browser, server)
        for line in sys.stdin:
            verb, *words = json.loads(line)
            try:
                answer = {"result": getattr(pages, verb)(*words)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        browser.close()


if __name__ == "__main__":
    main()
