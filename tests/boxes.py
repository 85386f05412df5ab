"""Real boxes for tests: containers with systemd and sshd, removed whatever happens.

Fixtures (in every test, no import needed; mark the test with ``@pytest.mark.box``)::

    def test_one(box):                        # a fresh box, gone after the test (about 2 s)
        assert ssh(box, "id -un").stdout == "debian\n"

    @pytest.mark.parametrize("box_os", RELEASES)   # from boxes
    def test_each_release(box): ...           # the same on every release that is tried here

    def test_several(sandbox_factory):        # boxes of one workspace, gone after the test
        boxes = sandbox_factory("gate", "gpu1", os="debian:12")

    def test_provisioned(shared_box):         # one box for all tests and all xdist workers
        box = shared_box("provisioned", prepare=provision)   # prepare(box) runs once

``start_boxes`` is the same as a context manager, for a fixture of another scope. A box knows
its workspace (``box.workspace``: an ordinary one, with the box in its inventory), its sandbox
and its present state (``box.now``: address, port, user, PID 1).

Helpers (``from boxes import ssh, exec_in, reboot, private_network``): ``ssh`` runs a command over
real ssh through the workspace's config, ``exec_in`` a program as root without ssh, ``reboot``
boots the box anew and waits for it; ``private_network`` starts a box that only its gateway
reaches.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from roost import process
from roost.paths import Paths
from roost.sandbox import Private, Sandbox, SandboxBox
from roost.sandbox.boxes import LABEL
from roost.sandbox.engine import Engine, find_engine
from roost.sandbox.locks import locked
from roost.workspace import Workspace

# Holds every workspace of one test run. The xdist workers inherit it from the main process,
# which removes all at the end.
RUN_FOLDER = "TEST_BOXES_FOLDER"

# $ROOST_TEST_OS (such as ubuntu:24.04) has all boxes run that; it is read once, since no test
# sees variables of ours.
_CHOSEN = os.environ.get("ROOST_TEST_OS") or None
RELEASES = [_CHOSEN] if _CHOSEN else ["debian:12", "debian:13"]

_numbers = itertools.count()
_cables: list[Cable] = []


@dataclass(frozen=True)
class LiveBox:
    """A box that a test may do anything to."""

    sandbox: Sandbox
    name: str

    @property
    def workspace(self) -> Workspace:
        return self.sandbox.workspace

    @property
    def now(self) -> SandboxBox:
        """The box as the engine sees it at this moment."""
        return next(box for box in self.sandbox.boxes() if box.name == self.name)


@dataclass(frozen=True)
class Cable:
    """A veth pair between a gateway and a box behind it."""

    gateway: LiveBox
    box: LiveBox
    network: int
    internet: bool

    def lay(self) -> None:
        """Connect the two network namespaces; a box that booted anew has lost its end."""
        outer, inner = self.gateway.now.pid, self.box.now.pid
        link = f"veth{self.network}"
        process.run(["ip", "link", "add", link, "netns", str(outer), "type", "veth",
                     "peer", "name", "eth0", "netns", str(inner)])  # fmt: skip
        for pid, device, address in ((outer, link, 1), (inner, "eth0", 2)):
            _in_network(pid, "ip", "addr", "add", f"10.99.{self.network}.{address}/24",
                        "dev", device)  # fmt: skip
            _in_network(pid, "ip", "link", "set", device, "up")
        if self.internet:
            _in_network(inner, "ip", "route", "add", "default", "via", f"10.99.{self.network}.1")
            _in_network(outer, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
            _in_network(outer, "iptables", "-t", "nat", "-A", "POSTROUTING",
                        "-s", f"10.99.{self.network}.0/24", "-j", "MASQUERADE")  # fmt: skip


def _in_network(pid: int, *argv: str) -> process.Completed:
    return process.run(["nsenter", "--target", str(pid), "--net", *argv])


def ssh(
    box: LiveBox,
    command: str,
    *,
    check: bool = True,
    timeout: float = 60,
    input: str | None = None,
    options: tuple[str, ...] = (),
) -> process.Completed:
    """Run ``command`` on the box over ssh, as a user of the workspace does."""
    config = box.workspace.ssh_config
    # No shared connection: the config's folder for sockets goes with the test that wrote it.
    argv = ["ssh", "-F", config, "-S", "none", "-o", "BatchMode=yes", *options, box.name, command]
    return process.run(argv, check=check, timeout=timeout, input=input)


def exec_in(
    box: LiveBox,
    argv: list[str],
    *,
    check: bool = True,
    timeout: float = 60,
    input: str | None = None,
) -> process.Completed:
    """Run a program on the box as root, through the engine: no ssh, no sudo."""
    interactive = [] if input is None else ["--interactive"]
    words = ["exec", *interactive, box.now.container, *argv]
    return box.sandbox.engine(*words, check=check, timeout=timeout, input=input)


def reboot(box: LiveBox) -> None:
    """Boot the box anew, and wait until sshd answers; its address stays."""
    box.sandbox.engine("restart", "--time", "3", box.now.container)
    for cable in list(_cables):
        if box in (cable.gateway, cable.box):
            cable.lay()
    box.sandbox.up([box.name])


def private_network(
    gateway: LiveBox, name: str = "inner", *, os: str | None = None, internet: bool = False
) -> LiveBox:
    """Start a box that has no network but a cable to ``gateway`` (needs root).

    Args:
        gateway: the box that it is reached through (``roost_via``).
        name: the new box.
        os: what it runs.
        internet: let it out through the gateway, for what has to be installed on it.
    """
    # A box may be the gateway of the next one: each cable of a sandbox is a network of its own.
    network = sum(cable.gateway.sandbox is gateway.sandbox for cable in _cables)
    address = f"10.99.{network}.2"
    private = Private(via=gateway.name, address=address)
    gateway.sandbox.up([name], os=os or _CHOSEN, private=private)
    cable = Cable(gateway, LiveBox(gateway.sandbox, name), network, internet)
    cable.lay()
    _cables.append(cable)
    return cable.box


@contextmanager
def start_boxes(*names: str, os: str | None = None) -> Iterator[dict[str, LiveBox]]:
    """Fresh boxes in a workspace of their own, removed at the end of the block."""
    sandbox = _sandbox(f"s{next(_numbers)}-{_worker()}")
    try:
        sandbox.up(names, os=os or _CHOSEN)
        yield {name: LiveBox(sandbox, name) for name in names}
    finally:
        sandbox.down()
        _cables[:] = [cable for cable in _cables if cable.box.sandbox is not sandbox]


def _sandbox(name: str) -> Sandbox:
    folder = Path(os.environ[RUN_FOLDER])
    paths = Paths(
        home=folder,
        config=folder / "config",
        state=folder,
        cache=folder / "cache",
        runtime=folder / "run",
    )
    return Sandbox(paths, name, environ=dict(os.environ))


def _worker() -> str:
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The container engine; without one the test fails, and says what to install."""
    return find_engine(os.environ)


@pytest.fixture
def box_os() -> str | None:
    """What ``box`` runs; parametrize it to choose."""
    return _CHOSEN


@pytest.fixture
def box(box_os: str | None) -> Iterator[LiveBox]:
    """A fresh box for one test."""
    with start_boxes("box", os=box_os) as boxes:
        yield boxes["box"]


@pytest.fixture
def sandbox_factory() -> Iterator[Callable[..., dict[str, LiveBox]]]:
    """Fresh boxes for one test: ``sandbox_factory("gate", "gpu1", os="debian:13")``."""
    with ExitStack() as stack:
        yield lambda *names, os=None: stack.enter_context(start_boxes(*names, os=os))


@pytest.fixture(scope="session")
def shared_box() -> Callable[..., LiveBox]:
    """One box per name for the whole run, also across xdist workers.

    ``shared_box(name, prepare=None, os=None)``: ``prepare(box)`` runs once, in whichever worker
    comes first; the others wait for it. Where it fails, the next one who asks tries again with
    a fresh box.
    """

    def share(
        name: str, prepare: Callable[[LiveBox], object] | None = None, os: str | None = None
    ) -> LiveBox:
        sandbox = _sandbox(f"shared-{name}")
        box = LiveBox(sandbox, "box")
        ready = sandbox.root / ".ready"
        with locked(sandbox.paths.runtime / f"shared-{name}.lock"):
            if not ready.exists():
                sandbox.down()
                sandbox.up([box.name], os=os or _CHOSEN)
                if prepare:
                    prepare(box)
                ready.touch()
        return box

    return share


def pytest_configure(config: pytest.Config) -> None:
    if RUN_FOLDER not in os.environ:
        os.environ[RUN_FOLDER] = tempfile.mkdtemp(prefix="roost-test-")
        config.stash[_OWNER] = True
        # What a CI system sends when its time is over: end as after Ctrl-C, with all clean-up.
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not config.stash.get(_OWNER, False):
        return
    folder = Path(os.environ.pop(RUN_FOLDER))
    if (folder / "sandbox").exists() or (folder / "run").exists():
        engine = find_engine(os.environ)
        for place in (folder / "sandbox").glob("*"):
            engine.remove(engine.ids(f"{LABEL}={place}"))
    shutil.rmtree(folder, ignore_errors=True)


_OWNER = pytest.StashKey[bool]()
