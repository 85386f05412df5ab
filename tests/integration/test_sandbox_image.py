"""How the boxes' image is built, in an image store of the tests' own: nothing is pulled from, or
removed from, the machine's.

The containers of that store have no network, so that it shares none with the machine's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli import ROOST

from roost import process
from roost.errors import SandboxError
from roost.paths import Paths
from roost.sandbox import Private, Sandbox
from roost.sandbox.boxes import create
from roost.sandbox.engine import Engine, find_engine
from roost.sandbox.image import Images
from roost.sandbox.releases import fallback, os_release, parse

# One after the other, on one worker: they share the store.
pytestmark = pytest.mark.box

RELEASE = fallback(os_release())


@pytest.fixture(scope="module")
def store(engine: Engine) -> Iterator[Path]:
    """A podman with a store of its own, as a program."""
    assert engine.kind == "podman", "these tests need podman"
    # Short: podman takes 50 characters for its run-time folder, and no more.
    folder = Path(tempfile.mkdtemp(prefix="store-"))
    (folder / "containers.conf").write_text('[containers]\nnetns = "none"\n')
    # A registry that is never there, whatever the machine reaches.
    (folder / "registries.conf").write_text(
        '[[registry]]\nlocation = "docker.io"\nblocked = true\n'
    )
    program = folder / "podman"
    program.write_text(
        "#!/bin/sh\n"
        f"export CONTAINERS_CONF={folder}/containers.conf\n"
        f"export CONTAINERS_REGISTRIES_CONF={folder}/registries.conf\n"
        f"exec {shutil.which('podman')} --root {folder}/root --runroot {folder}/runroot "
        f'--tmpdir {folder}/tmp "$@"\n'
    )
    program.chmod(0o755)
    yield program
    process.run([program, "rm", "--force", "--all", "--time", "0"], timeout=120)
    process.run([program, "rmi", "--force", "--all"], timeout=120, check=False)
    process.run(["umount", folder / "root" / "overlay"], check=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def environ(store: Path) -> dict[str, str]:
    return {**os.environ, "ROOST_ENGINE": str(store)}


@pytest.fixture
def own(environ: dict[str, str]) -> Engine:
    return find_engine(environ)


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def images(own: Engine, environ: dict[str, str], paths: Paths, notes: list[str]) -> Images:
    return Images(own, paths.cache / "sandbox", paths.cache / "lock", environ, notes.append)


def names(engine: Engine) -> list[str]:
    listed = engine("images", "--all", "--format", "{{.Repository}}:{{.Tag}}").stdout
    return sorted(listed.split())


def nothing_is_left(engine: Engine, paths: Paths) -> None:
    assert engine("ps", "--all", "--quiet", "--external").stdout == ""
    assert list((paths.cache / "sandbox").glob("*")) == []
    assert not (paths.state / "sandbox").exists()
    assert "mmdebstrap" not in Path("/proc/mounts").read_text()


def interrupted(
    environ: dict[str, str], reached: Callable[[], object], kind: int = signal.SIGINT
) -> str:
    """Interrupt ``sandbox up`` at a moment, and return what it said."""
    argv = [ROOST, "sandbox", "up", "--os", str(RELEASE)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, env=environ, text=True) as child:
        try:
            deadline = time.monotonic() + 600
            while not reached():
                assert child.poll() is None, child.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.01)
            child.send_signal(kind)
            said = child.communicate(timeout=120)[1]
        finally:
            child.kill()
    assert child.returncode == 130, said
    assert "Traceback" not in said
    return said


def test_an_interrupt_in_the_package_installation(
    environ: dict[str, str], own: Engine, paths: Paths
) -> None:
    # mmdebstrap has its /proc and /sys mounted by the time dpkg is unpacked.
    def installing() -> bool:
        return any((paths.cache / "sandbox").glob("build-*/mmdebstrap.*/usr/bin/dpkg"))

    interrupted(environ, installing)
    nothing_is_left(own, paths)
    assert names(own) == []


def test_a_kill_is_cleaned_up_by_the_next_start(
    environ: dict[str, str], own: Engine, images: Images, paths: Paths, notes: list[str]
) -> None:
    """The whole build, after one that could not clean up after itself."""
    argv = [ROOST, "sandbox", "up", "--os", str(RELEASE)]
    child = subprocess.Popen(argv, stderr=subprocess.DEVNULL, env=environ)
    deadline = time.monotonic() + 600
    while not any((paths.cache / "sandbox").glob("build-*/mmdebstrap.*")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.kill()
    child.wait()

    image = images.ensure(RELEASE)
    assert image.release == RELEASE
    assert any("from the package archive" in note for note in notes)
    Sandbox(paths, environ=environ, engine=own).down()
    nothing_is_left(own, paths)
    assert [name.partition(":")[0] for name in names(own)] == [
        "localhost/roost-base", "localhost/roost-box",
    ]  # fmt: skip


def test_the_image_is_built_once(images: Images, own: Engine, notes: list[str]) -> None:
    before = names(own)
    image = images.ensure(RELEASE)
    assert image.reference in before and names(own) == before and notes == []
    # Pulling failed before, so a start without any wish takes what is there, at once.
    assert images.ensure(None) == image
    assert notes == []


def test_what_the_image_depends_on_gives_it_another_name(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = images._box_name(RELEASE, "")
    assert images._box_name(parse("debian:13" if parse("debian:13") != RELEASE else "debian:12"),
                            "") != usual  # fmt: skip
    assert images._box_name(RELEASE, "sha256:pulled") != usual
    monkeypatch.setattr("roost.sandbox.machine.extra_certificates", lambda: ("another",))
    assert images._box_name(RELEASE, "") != usual


def test_an_interrupt_in_the_preparation(
    environ: dict[str, str], own: Engine, images: Images, paths: Paths
) -> None:
    ready = images.ensure(RELEASE)
    own("rmi", ready.reference)
    base = names(own)
    try:
        for _ in range(2):
            interrupted(environ, lambda: "roost-build" in own("ps", "-a").stdout)
            nothing_is_left(own, paths)
            assert names(own) == base
    finally:
        assert images.ensure(RELEASE) == ready


def test_two_starts_build_once(images: Images, own: Engine, environ: dict[str, str]) -> None:
    ready = images.ensure(RELEASE)
    own("rmi", ready.reference)
    script = (
        "import os, sys; from pathlib import Path; from roost.sandbox.image import Images\n"
        "from roost.sandbox.engine import find_engine; from roost.sandbox.releases import parse\n"
        "folder = Path(sys.argv[1])\n"
        "images = Images(find_engine(os.environ), folder, folder / 'lock', os.environ, print)\n"
        "print(images.ensure(parse(sys.argv[2])).reference)\n"
    )
    argv = [sys.executable, "-c", script, images.cache, str(RELEASE)]
    both = [
        subprocess.Popen(argv, stdout=subprocess.PIPE, env=environ, text=True) for _ in range(2)
    ]
    said = [child.communicate(timeout=300)[0] for child in both]
    assert [text.splitlines()[-1] for text in said] == [ready.reference] * 2
    assert "".join(said).count("preparing") == 1


def test_an_ubuntu_that_cannot_be_pulled_is_an_error(images: Images, paths: Paths) -> None:
    with pytest.raises(SandboxError, match=r"ubuntu:24\.04 cannot be pulled") as caught:
        images.ensure(parse("ubuntu:24.04"))
    assert caught.value.why and "--os debian:12" in str(caught.value.fix)


def test_an_archive_that_cannot_be_reached_is_an_error(
    images: Images, own: Engine, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "roost.sandbox.machine.package_sources",
        lambda *args: ("deb http://127.0.0.1:9/debian bookworm main",),
    )
    before = names(own)
    with pytest.raises(SandboxError, match="cannot be built from the package archive") as caught:
        images.ensure(RELEASE)
    assert caught.value.why and "apt-get update" in str(caught.value.fix)
    assert names(own) == before and list(images.cache.glob("*")) == []


def test_purge_removes_the_images_that_are_ours_and_unused(
    images: Images, own: Engine, environ: dict[str, str], paths: Paths
) -> None:
    image = images.ensure(RELEASE)
    own("run", "--name", "foreign", *own.limits(), image.reference, "true")
    own("commit", "foreign", "localhost/foreign:1")
    sandbox = Sandbox(paths, environ=environ, engine=own)
    create(own, str(sandbox.root), "one", image, private=Private("gate", "10.99.0.2"))
    before = names(own)
    # A container of somebody else's was made from it: it stays, and so does what it stands on,
    # and what else was made from it.
    assert sandbox.down(purge=True) == ["one"]
    assert names(own) == before
    own.remove(["foreign"])
    own("rmi", "localhost/foreign:1")
    assert image.reference in sandbox.down(purge=True)
    assert names(own) == []
