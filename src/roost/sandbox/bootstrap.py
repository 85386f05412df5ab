"""Build a Debian base image from the package archive, where no registry is reached."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from roost import process
from roost.errors import ProcessError, SandboxError
from roost.sandbox import advice
from roost.sandbox.engine import Run
from roost.sandbox.releases import Release

TIMEOUT = 900.0


def build(
    release: Release,
    tar: Path,
    sources: Sequence[str],
    packages: Sequence[str],
    *,
    environ: Mapping[str, str],
    run: Run = process.run,
) -> None:
    """Write the root file system of ``release`` to ``tar``.

    Args:
        release: a Debian release.
        tar: the file to write; temporary files go beside it.
        sources: archive lines (sources.list(5)); they stay in the image. Without any,
            mmdebstrap takes those that it knows for the suite.
        packages: what it holds beside the required packages.
        environ: for the search of the programs.
        run: what runs programs; another function in tests.

    Raises:
        SandboxError: it cannot be built here.
    """
    what = f"a base image of {release} can neither be pulled nor built"
    if os.geteuid() != 0:
        raise SandboxError(
            what,
            why="building one from the package archive needs root",
            fix="let the engine reach docker.io, or run as root: sudo roost sandbox up",
        )
    if process.which("mmdebstrap", environ) is None or not Path(release.keyring).exists():
        raise SandboxError(
            what,
            why="building one needs mmdebstrap and the keys of the package archive",
            fix=advice.install("mmdebstrap debian-archive-keyring", os.geteuid()),
        )
    # Namespaces of its own: however it ends, its processes end with it, and the /proc and /sys
    # that it mounts below the folder are gone before that folder is removed.
    argv = [
        "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
        "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}",
        release.codename, tar, *sources,
    ]  # fmt: skip
    try:
        run(argv, timeout=TIMEOUT, env={**os.environ, "TMPDIR": str(tar.parent)})
    except ProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("E: ")]
        raise SandboxError(
            f"the base image of {release} cannot be built from the package archive",
            why=lines[0][3:] if lines else error.why or error.what,
            fix="look whether the archive is reached: apt-get update",
        ) from error
