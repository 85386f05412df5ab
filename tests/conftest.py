"""A temporary home for every test: nothing of the user's is read or written."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from roost import content
from roost.model import Fleet
from roost.paths import Paths
from roost.workspace import Workspace, init

# How long an example takes says something about the machine alone.
settings.register_profile("roost", deadline=None)
settings.load_profile("roost")

pytest_plugins = ["boxes", "faces"]


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start: a background job of a shell passes on none."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home, and XDG folders inside it."""
    for name in [n for n in os.environ if n.startswith(("XDG_", "ROOST_", "ANSIBLE_"))]:
        monkeypatch.delenv(name)
    # As short as a real one: sockets lie in both, and pytest's own folders are too deep for them.
    with tempfile.TemporaryDirectory(prefix="t-", ignore_cleanup_errors=True) as top:
        folder, runtime = Path(top) / "home", Path(top) / "run"
        folder.mkdir(mode=0o700)
        runtime.mkdir(mode=0o700)
        monkeypatch.setenv("HOME", str(folder))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        yield folder


@pytest.fixture
def paths() -> Paths:
    return Paths.from_environment(os.environ)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace as ``roost init`` makes it."""
    root = tmp_path / "workspace"
    init(root)
    return Workspace(root)


@pytest.fixture
def load(workspace: Workspace, paths: Paths) -> Callable[..., Fleet]:
    """Write the hosts file (and others, by name) and read the fleet."""
    from roost import inventory

    def read(hosts: str, **files: str) -> Fleet:
        (workspace.inventory / "hosts.yml").write_text(hosts, "utf-8")
        for name, text in files.items():
            (workspace.inventory / "group_vars" / "all" / f"{name}.yml").write_text(text, "utf-8")
        return inventory.load(workspace, paths=paths, environ=os.environ)

    return read


@pytest.fixture(autouse=True, scope="session")
def _content_is_found() -> None:
    assert (content.collection_root() / "roles").is_dir(), "run the tests from an installation"


# Files that share a box and change it as a whole (a reboot, its login shell): one after another.
TOGETHER = {
    "based": ("test_roles_base", "test_roles_gateway"),
    "jobs": ("test_jobs", "test_jobs_survive", "test_transfer", "test_cut_connections"),
    "workbench": (
        "test_roles_tmux",
        "test_roles_jupyter",
        "test_lab",
        "test_lab_page",
        "test_doctor_box",
    ),
}
# Files whose tests share nothing, and take minutes each.
APART = ("test_molecule", "test_keeper")


class ByBox(LoadScopeScheduling):
    """A file runs on one worker, since its boxes belong to it; so do files that share a box.

    Not xdist's own groups: with pytest 9.2 and pytest-xdist 3.8 their marks have no effect.
    """

    def _split_scope(self, nodeid: str) -> str:
        name = Path(nodeid.split("::", 1)[0]).stem
        if name in APART:
            return nodeid
        return next((group for group, names in TOGETHER.items() if name in names), name)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByBox:
    return ByBox(config, log)
