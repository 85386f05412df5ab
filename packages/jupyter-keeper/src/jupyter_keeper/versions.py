"""The releases that this package was tried with.

It leans on names in jupyter-server and jupyter-collaboration that are not public, so it only
works with releases it knows; with any other the server runs as without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

SUPPORTED = {
    "jupyter-server": ">=2.15,<2.22",
    "jupyterlab": ">=4.4.1,<4.7",
    "jupyter-server-ydoc": ">=2.4,<3.1",
    "jupyter-ydoc": ">=3.4,<4.3",
    "pycrdt": ">=0.12.30,<0.15",
}
"""Distribution name to the releases that work; ``pyproject.toml`` says the same."""


@dataclass(frozen=True)
class Finding:
    """One distribution: what is installed and what is supported."""

    name: str
    installed: str | None
    supported: str

    @property
    def fine(self) -> bool:
        return self.installed is not None and SpecifierSet(self.supported).contains(
            self.installed, prereleases=True
        )

    def __str__(self) -> str:
        return f"{self.name} {self.installed or 'is missing'} (known: {self.supported})"


def findings(pretend: Mapping[str, str] | None = None) -> list[Finding]:
    """What is installed, or pretended to be, for each supported distribution."""
    installed = {name: _installed(name) for name in SUPPORTED} | dict(pretend or {})
    return [Finding(name, installed[name], spec) for name, spec in SUPPORTED.items()]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
