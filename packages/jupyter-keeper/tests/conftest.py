from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Server


@pytest.fixture(scope="session")
def make_server() -> Callable[..., Server]:
    return Server


@pytest.fixture(scope="session")
def shared_server(
    make_server: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One server for all tests that need nothing special of it."""
    server = make_server(tmp_path_factory.mktemp("server"), "--KeeperExtension.save_interval=0.5")
    server.start()
    yield server
    server.close()


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    yield shared_server
    # A kernel for each test would be left, and some of them compute.
    shared_server.end_kernels()


@pytest.fixture
def new_server(
    make_server: Callable[..., Server], tmp_path: Path
) -> Iterator[Callable[..., Server]]:
    """Starts a server with options of its own."""
    started: list[Server] = []

    def start(*options: str, keeper: bool = True) -> Server:
        folder = tmp_path / f"server{len(started)}"
        folder.mkdir()
        server = make_server(folder, *options, keeper=keeper)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.close()
