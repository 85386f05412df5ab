"""The three faces of the repository, each built and installed into a clean place once."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import pytest

from roost import content, process
from roost.inventory import ansible_program

REPOSITORY = content.collection_root()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    process.run([*pip, "--wheel-dir", folder, REPOSITORY], timeout=300)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a virtual environment with the wheel in it and no checkout in sight."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    process.run([folder / "bin" / "pip", "install", "--quiet", wheel], timeout=600)
    return folder / "bin"


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``collections_path`` into which the built collection was installed."""
    folder = tmp_path_factory.mktemp("collection")
    galaxy = ansible_program("ansible-galaxy")
    process.run(
        [galaxy, "collection", "build", "--output-path", folder], cwd=REPOSITORY, timeout=120
    )
    (built,) = folder.glob("*.tar.gz")
    target = folder / "installed"
    process.run([galaxy, "collection", "install", built, "-p", target, "--offline"], timeout=120)
    return target
