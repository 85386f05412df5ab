"""The operating systems that a sandbox box can run, and the one that this machine runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from roost.errors import UsageError


@dataclass(frozen=True)
class Release:
    """One release of a distribution.

    Attributes:
        distribution: ``debian`` or ``ubuntu``; also the default user of its cloud images.
        version: the version, as in ``VERSION_ID`` of os-release(5).
        codename: the suite of its package archive.
    """

    distribution: str
    version: str
    codename: str

    def __str__(self) -> str:
        return f"{self.distribution}:{self.version}"

    @property
    def user(self) -> str:
        """The default user, as the distribution's cloud images name it."""
        return self.distribution

    @property
    def reference(self) -> str:
        """The official image in the public registry, written so that no engine guesses."""
        return f"docker.io/library/{self}"

    @property
    def keyring(self) -> str:
        """The archive's keys, where the distribution's own packages put them."""
        return f"/usr/share/keyrings/{self.distribution}-archive-keyring.gpg"


RELEASES = (
    Release("debian", "12", "bookworm"),
    Release("debian", "13", "trixie"),
    Release("ubuntu", "22.04", "jammy"),
    Release("ubuntu", "24.04", "noble"),
    Release("ubuntu", "26.04", "resolute"),
)
DEFAULT = "ubuntu:24.04"
FALLBACK = "debian:12"


def parse(text: str) -> Release:
    """The release that ``--os`` names.

    Raises:
        UsageError: it is none of those that boxes can run.
    """
    for release in RELEASES:
        if text.strip().lower() in (str(release), release.codename):
            return release
    raise UsageError(
        f"no sandbox box can run {text!r}",
        why=f"there are: {', '.join(map(str, RELEASES))}",
        fix=f"--os {DEFAULT}",
    )


def os_release(path: Path = Path("/etc/os-release")) -> Mapping[str, str]:
    """This machine's os-release(5), empty where there is none (macOS)."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def machine_release(facts: Mapping[str, str]) -> Release | None:
    """This machine's own release, from its os-release(5); None where a box cannot run it."""
    name = f"{facts.get('ID', '')}:{facts.get('VERSION_ID', '')}"
    return next((release for release in RELEASES if str(release) == name), None)


def fallback(facts: Mapping[str, str]) -> Release:
    """What a box runs where no image can be pulled: a Debian, the machine's own if it is one."""
    own = machine_release(facts)
    return own if own is not None and own.distribution == "debian" else parse(FALLBACK)
