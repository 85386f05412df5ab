"""The Jupyter kernels of a box: registered, listed and taken away by the program that is there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roost import ssh
from roost.errors import RoostError
from roost.model import Box, Fleet

PROGRAM = "roost-kernel"
# ipykernel and what it needs may have to be downloaded on the box.
_INSTALL_SECONDS = 600.0
_NOT_FOUND = 127


def call(
    config: Path,
    box: Box,
    words: Sequence[str],
    *,
    fleet: Fleet | None = None,
    everybody: bool = False,
) -> str:
    """Run ``roost-kernel`` on the box, and return what it prints.

    Args:
        config: the ssh config that knows the box.
        box: where it runs.
        words: its arguments, such as ``["add", "papers/.venv"]``, paths from the home on.
        fleet: where the gateways are found that an error may be about.
        everybody: about the kernels of all people, for which it has to run as root.

    Raises:
        UnreachableError: the box does not answer, or does not let us in.
        RoostError: the program is not there, or it refuses.
    """
    verb, *rest = words
    argv = [PROGRAM, verb, *rest]
    if everybody:
        argv = ["sudo", "-n", PROGRAM, verb, "--everybody", *rest]
    script = f"command -v {PROGRAM} >/dev/null || exit {_NOT_FOUND}; exec {shlex.join(argv)}"
    done = ssh.run(config, box, script, fleet=fleet, timeout=_INSTALL_SECONDS, check=False)
    if done.returncode == _NOT_FOUND:
        raise RoostError(
            f"{PROGRAM} is not on {box.name}", fix=f"roost up {box.name} --tags python"
        )
    if done.returncode != 0:
        what, _, fix = done.stderr.strip().removeprefix(f"{PROGRAM}: ").partition("\n  fix: ")
        raise RoostError(f"{box.name}: {what}", fix=f"on {box.name}: {fix}" if fix else None)
    return done.stdout.strip()


def listing(config: Path, box: Box, *, fleet: Fleet | None = None) -> list[dict[str, Any]]:
    """The kernels of the user that logs in, and everybody's.

    Each has name, display_name, path (its folder), interpreter, roost (whether roost made it) and
    dangling (whether its interpreter is gone).

    Raises:
        UnreachableError: the box does not answer, or does not let us in.
        RoostError: the program is not there.
    """
    found: list[dict[str, Any]] = json.loads(call(config, box, ["list", "--json"], fleet=fleet))
    return found
