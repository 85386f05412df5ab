"""What a box takes over from this machine: package sources, certificates, the package index."""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from roost import process
from roost.errors import ProcessError
from roost.sandbox.releases import Release

BUNDLES = (
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/cert.pem",
)
PACKAGED = "usr/share/ca-certificates"
LOCAL = "usr/local/share/ca-certificates"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

# Where the distribution itself publishes; the paths are the same on every mirror.
_ARCHIVES = {"debian": ("debian", "debian-security"), "ubuntu": ("ubuntu", "ubuntu-ports")}

Run = Callable[..., process.Completed]


def extra_certificates(root: Path = Path("/")) -> tuple[str, ...]:
    """The certificates that this machine trusts beside those that its packages bring.

    A company's proxy that opens TLS connections is such an authority: a box behind it reaches
    PyPI only if it trusts the same.

    Args:
        root: the top folder of the machine; another one in tests.
    """
    packaged = set(_certificates(sorted((root / PACKAGED).rglob("*.crt"))))
    found = _certificates(sorted((root / LOCAL).rglob("*.crt")))
    if packaged:
        # Without the packaged ones to compare with, the bundle would be taken over as a whole.
        found += _certificates([root / bundle for bundle in BUNDLES])
    return tuple(dict.fromkeys(pem for pem in found if pem not in packaged))


def _certificates(files: list[Path]) -> list[str]:
    found: list[str] = []
    for file in files:
        try:
            found += _PEM.findall(file.read_text("utf-8", errors="replace").replace("\r\n", "\n"))
        except OSError:
            continue
    return found


def package_sources(
    release: Release, facts: Mapping[str, str], run: Run = process.run
) -> tuple[str, ...]:
    """The archive lines (sources.list(5)) for ``release``, from this machine's own sources.

    A machine of the same distribution knows the mirror that works here; its suites are rewritten
    for the box's release. Repositories of others (a vendor's, a backport) are left out.

    Returns:
        Nothing where this machine has no such sources: the box keeps those of its image, and
        mmdebstrap takes those that it knows for the suite.
    """
    if facts.get("ID") != release.distribution:
        return ()
    try:
        # apt itself reads its sources: there are two formats, and any number of files.
        listed = run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)",
             "Created-By: Packages"],
            timeout=20,
        ).stdout  # fmt: skip
    except ProcessError:
        return ()
    return rewrite_sources(listed, release, facts.get("VERSION_CODENAME", ""))


def rewrite_sources(listed: str, release: Release, codename: str) -> tuple[str, ...]:
    """Archive lines for ``release`` out of ``URI SUITE COMPONENT`` lines for ``codename``."""
    suite = re.compile(rf"(?:{re.escape(codename)}|stable)(|-updates|-security)")
    archives: dict[tuple[str, str], list[str]] = {}
    for line in listed.splitlines():
        match line.split():
            case [uri, name, component] if (known := suite.fullmatch(name)) and _is_archive(
                uri, release
            ):
                archives.setdefault((uri, known[1]), []).append(component)
    if not any(pocket == "" for _, pocket in archives):
        return ()
    option = f"[signed-by={release.keyring}]"
    return tuple(
        f"deb {option} {uri} {release.codename}{pocket} {' '.join(dict.fromkeys(components))}"
        for (uri, pocket), components in archives.items()
        if "main" in components
    )


def _is_archive(uri: str, release: Release) -> bool:
    # A mirror list or a folder on this machine (mirror+file:, file:, cdrom:) does not exist
    # in the box.
    parts = urlsplit(uri)
    last = parts.path.rstrip("/").rpartition("/")[2]
    return parts.scheme in ("http", "https") and last in _ARCHIVES[release.distribution]


def package_index(environ: Mapping[str, str], files: list[Path] | None = None) -> str:
    """The Python package index that this machine is set to, or nothing for the public one.

    Args:
        environ: for ``PIP_INDEX_URL``, which wins.
        files: pip's configuration files, the strongest first; by default the machine's.

    Returns:
        An address that a box can reach. One with a password in it, on a local disk, or on this
        machine's own loopback is not passed on.
    """
    if files is None:
        home = Path(environ.get("HOME") or Path.home())
        files = [home / ".config/pip/pip.conf", home / ".pip/pip.conf", Path("/etc/pip.conf")]
    candidates = [environ.get("PIP_INDEX_URL", "")]
    for file in files:
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(file, "utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        candidates.append(parser.get("global", "index-url", fallback=""))
    url = next((c.strip() for c in candidates if c.strip()), "")
    parts = urlsplit(url)
    local = (parts.hostname or "localhost") in ("localhost", "127.0.0.1", "::1")
    return "" if parts.scheme not in ("http", "https") or local or parts.password else url
