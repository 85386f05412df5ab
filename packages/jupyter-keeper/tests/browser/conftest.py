from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import FLAGS, Lab, program
from playwright.sync_api import Browser, sync_playwright
from relay import Link
from remote import SSH, FarPath, RemoteServer, checked
from support import Server


@pytest.fixture(scope="session")
def make_server() -> Iterator[Callable[..., Server]]:
    """Makes servers here, or on the machine that ``KEEPER_SSH`` leads to."""
    if not SSH:
        yield Server
        return
    folder = checked("mktemp", "-d").strip()
    yield lambda *words, **more: RemoteServer(
        *words, **more, place=FarPath(checked("mktemp", "-d", "-p", folder).strip())
    )
    checked("rm", "-r", folder)


@pytest.fixture(scope="session")
def launch() -> Iterator[Callable[[], Browser]]:
    with sync_playwright() as playwright:
        yield lambda: playwright.chromium.launch(executable_path=program(), args=FLAGS)


@pytest.fixture(scope="session")
def chromium(launch: Callable[[], Browser]) -> Iterator[Browser]:
    browser = launch()
    yield browser
    browser.close()


@pytest.fixture
def name() -> str:
    return f"{uuid.uuid4().hex[:8]}.ipynb"


@pytest.fixture
def open_lab(chromium: Browser, server: Server, tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Opens a notebook as a new browser would: with no cookies, no storage, no cache."""
    labs: list[Lab] = []

    def open_it(path: str, port: int = 0, on: Server = server, kernel: bool = True) -> Lab:
        lab = Lab(chromium, on, path, port or on.port)
        labs.append(lab)
        return lab.open(kernel=kernel)

    yield open_it
    for lab in labs:
        lab.close()


@pytest.fixture
def link(server: Server) -> Iterator[Link]:
    link = server.link()
    yield link
    link.close()
