"""The image that boxes start from: built once, and named by everything that it depends on."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from roost import process
from roost.errors import ProcessError, SandboxError
from roost.sandbox import bootstrap, machine, releases
from roost.sandbox.engine import Engine, Run
from roost.sandbox.interrupts import deferred
from roost.sandbox.locks import locked
from roost.sandbox.releases import Release

LABEL = "roost.image"  # on every image of ours: "base" or "box"
RELEASE_LABEL = "roost.os"
_BASE = "localhost/roost-base:"
_BOX = "localhost/roost-box:"
# What makes a machine of an image, and what a cloud image has for whoever logs in first. Python
# is there, but without its standard library, as on minimal images.
PACKAGES = (
    "ca-certificates", "dbus", "iproute2", "libpam-systemd", "openssh-server", "python3-minimal",
    "sudo", "systemd", "systemd-sysv",
)  # fmt: skip
# Seconds. Where there is another way to a base image, a registry that does not answer is not
# waited for.
PULL_TIMEOUT = 600
PULL_TIMEOUT_WITH_FALLBACK = 60
BUILD_TIMEOUT = 900.0

Note = Callable[[str], None]


@dataclass(frozen=True)
class Image:
    """A prepared image: what an engine knows it by, and the release in it."""

    reference: str
    release: Release


@dataclass(frozen=True)
class Images:
    """Finds or builds the images of one engine on this machine.

    Attributes:
        engine: the container engine.
        cache: the folder for large temporary files.
        lock: held while something is built.
        environ: for the package index of this machine.
        note: told what takes long.
        facts: this machine's os-release(5).
        run: what runs programs; another function in tests.
    """

    engine: Engine
    cache: Path
    lock: Path
    environ: Mapping[str, str]
    note: Note
    facts: Mapping[str, str] = field(default_factory=releases.os_release)
    run: Run = process.run
    _known_sources: dict[Release, tuple[str, ...]] = field(default_factory=dict, init=False)

    def ensure(self, release: Release | None) -> Image:
        """The image for ``release``, built where it is missing.

        Args:
            release: None for Ubuntu where the engine can pull it, else a Debian.

        Raises:
            SandboxError: it cannot be built.
        """
        found = self._ready(release)
        if found:
            return found
        with locked(self.lock, lambda: self.note("waiting for another build to end")):
            # Somebody else may have built it while we waited.
            return self._ready(release) or self._build(release)

    def purge(self) -> list[str]:
        """Remove the images of ours that no container uses; returns what they were called."""
        listed = self.engine("images", "--quiet", "--no-trunc", "--filter", f"label={LABEL}")
        images = self.engine.inspect("image", list(dict.fromkeys(listed.stdout.split())))
        # An image that somebody made from ours has our label too, but not our name.
        named = [
            (name, image["Config"]["Labels"].get(RELEASE_LABEL, ""))
            for prefix in (_BOX, _BASE)  # a base can go only after what was built upon it
            for image in images
            for name in image.get("RepoTags") or ()
            if name.startswith(prefix)
        ]
        removed: list[str] = []
        kept: set[str] = set()
        for name, release in named:
            # Without --force: an image that somebody's container uses stays, and its base.
            if release not in kept and self.engine("rmi", name, check=False).returncode == 0:
                removed.append(name)
            else:
                kept.add(release)
        return removed

    def _ready(self, release: Release | None) -> Image | None:
        if release is not None:
            return self._find(release, self._pulled(release)) or self._find(release, "")
        preferred, fallback = self._defaults()
        # A Debian that was bootstrapped tells that pulling failed before: it is not tried anew
        # at every start.
        return self._find(preferred, self._pulled(preferred)) or self._find(fallback, "")

    def _defaults(self) -> tuple[Release, Release]:
        return releases.parse(releases.DEFAULT), releases.fallback(self.facts)

    def _find(self, release: Release, pulled: str | None) -> Image | None:
        if pulled is None:
            return None
        name = self._box_name(release, pulled)
        return Image(name, release) if self.engine.inspect("image", [name]) else None

    def _pulled(self, release: Release) -> str | None:
        found = self.engine.inspect("image", [release.reference])
        return str(found[0]["Id"]) if found else None

    def _build(self, release: Release | None) -> Image:
        self.cache.mkdir(parents=True, exist_ok=True)
        for leftover in self.cache.glob("build-*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=self.cache, prefix="build-") as name:
            folder = Path(name)
            if release is None:
                preferred, fallback = self._defaults()
                refused = self._pull(preferred, folder, PULL_TIMEOUT_WITH_FALLBACK)
                if refused is None:
                    return self._prepare(preferred, preferred.reference, self._pulled(preferred))
                self.note(f"{preferred} cannot be pulled ({refused}); taking {fallback}")
                return self._bootstrap(fallback, folder)
            can_bootstrap = release.distribution == "debian"
            timeout = PULL_TIMEOUT_WITH_FALLBACK if can_bootstrap else PULL_TIMEOUT
            refused = self._pull(release, folder, timeout)
            if refused is None:
                return self._prepare(release, release.reference, self._pulled(release))
            if can_bootstrap:
                return self._bootstrap(release, folder)
            raise SandboxError(
                f"the image of {release} cannot be pulled",
                why=refused,
                fix=f"take a Debian, which needs no registry: --os {releases.FALLBACK}",
            )

    def _pull(self, release: Release, folder: Path, timeout: float) -> str | None:
        """Pull the official image; returns why that failed, or None where it is there."""
        if self._pulled(release):
            return None
        self.note(f"pulling {release.reference}")
        try:
            # The engine's own temporary files go with the folder.
            self.run(
                self.engine.argv("pull", "--quiet", release.reference),
                timeout=timeout,
                env={**os.environ, "TMPDIR": str(folder)},
            )
        except ProcessError as error:
            return (error.why or error.what).rpartition(": ")[2]
        return None

    def _bootstrap(self, release: Release, folder: Path) -> Image:
        sources = self._sources(release)
        base = f"{_BASE}{_slug(release)}-{_digest(str(release), *PACKAGES, *sources)}"
        if not self.engine.inspect("image", [base]):
            self.note(f"building {release} from the package archive (once, about a minute)")
            tar = folder / "base.tar"
            bootstrap.build(release, tar, sources, PACKAGES, environ=self.environ, run=self.run)
            with deferred():
                self.engine(
                    "import", *_labels("base", release), str(tar), base, timeout=BUILD_TIMEOUT
                )
        return self._prepare(release, base, "")

    def _prepare(self, release: Release, base: str, pulled: str | None) -> Image:
        name = self._box_name(release, pulled or "")
        self.note(f"preparing {release}")
        with self._container(f"roost-build-{name.rpartition('-')[2]}", base) as container:
            self.engine(
                "start", "--attach", "--interactive", container,
                input=self._script(release), timeout=BUILD_TIMEOUT,
            )  # fmt: skip
            labels = _labels("box", release)
            with deferred():
                self.engine("commit", *labels, container, name, timeout=BUILD_TIMEOUT)
        return Image(name, release)

    @contextmanager
    def _container(self, name: str, base: str) -> Iterator[str]:
        self.engine.remove([name])  # of a process that was killed
        try:
            with deferred():
                self.engine(
                    "create", "--name", name, "--interactive", *self.engine.limits(),
                    base, "sh", "-s",
                )  # fmt: skip
            yield name
        finally:
            with deferred():
                self.engine.remove([name])

    def _sources(self, release: Release) -> tuple[str, ...]:
        if release not in self._known_sources:  # apt takes half a second to say them
            found = machine.package_sources(release, self.facts, self.run)
            self._known_sources[release] = found
        return self._known_sources[release]

    def _script(self, release: Release) -> str:
        values = {
            "box_user": release.user,
            "box_packages": " ".join(PACKAGES),
            "box_sources": "\n".join(self._sources(release)),
            "box_certificates": "\n".join(machine.extra_certificates()),
            "box_index": machine.package_index(self.environ),
        }
        head = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
        return head + resources.files("roost.sandbox").joinpath("prepare.sh").read_text("utf-8")

    def _box_name(self, release: Release, pulled: str) -> str:
        # The script holds the sources, the certificates and the packages.
        digest = _digest(str(release), pulled, self._script(release))
        return f"{_BOX}{_slug(release)}-{digest}"


def _labels(kind: str, release: Release) -> list[str]:
    # One by one: "podman import" takes a second pair for a part of the first one's value.
    return ["--change", f"LABEL {LABEL}={kind}", "--change", f"LABEL {RELEASE_LABEL}={release}"]


def _slug(release: Release) -> str:
    return f"{release.distribution}-{release.version}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
