"""A checkout with pyproject.toml: cloned where it is missing, and what it asks for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from box import Owner, Runner, StepError, as_owner
from uv_tool import Uv

# Nobody is there to answer: without these git and ssh would ask on a terminal that is none.
SILENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}


def folder_of(project: Mapping[str, Any], owner: Owner) -> Path:
    """Where the checkout is; ``~`` is the owner's home."""
    return Path(re.sub(r"^~(?=/)", str(owner.home), str(project["path"])))


def clone(project: Mapping[str, Any], owner: Owner, runner: Runner, *, check: bool) -> bool:
    """Clone the project where nothing is in its place; True where that changes something.

    What is there already is its owner's work, and stays as it is.

    Raises:
        StepError: it cannot be cloned.
    """
    folder = folder_of(project, owner)
    url = str(project.get("git") or "")
    if not url or as_owner(owner, partial(os.path.lexists, folder)):
        return False
    if not check:
        version = str(project.get("version") or "")
        branch = ["--branch", version] if version else []
        words = ["git", "clone", "--quiet", *branch, "--", url, str(folder)]
        try:
            runner(words, owner=owner, env=SILENT)
        except StepError as error:
            raise StepError(
                f"{url} cannot be cloned: {error}",
                error.fix or f"see that {owner.name} may read it from the box, or clone it by hand",
            ) from None
    return True


def requirements(project: Mapping[str, Any], owner: Owner, uv: Uv) -> tuple[str, list[str]]:
    """What a checkout asks for, in the requirements format of pip, and flags for uv beside that.

    Raises:
        StepError: it is not there, or its lock file is not right.
    """
    folder = folder_of(project, owner)
    if not (folder / "pyproject.toml").is_file():
        raise StepError(
            f"{folder} has no pyproject.toml",
            "check it out, or name its repository (project.git), then run again",
        )
    extras = list(project.get("extras") or [])
    groups = list(project.get("groups") or [])
    if not (folder / "uv.lock").is_file():
        wanted = f"[{','.join(extras)}]" if extras else ""
        flags = [f"--group={folder / 'pyproject.toml'}:{group}" for group in groups]
        return f"--editable {folder}{wanted}", flags
    words = ["export", "--quiet", "--frozen", "--no-default-groups", "--no-header"]
    words += [f"--extra={e}" for e in extras] + [f"--group={g}" for g in groups]
    lock = uv(*words, "--project", str(folder), owner=owner, cwd=folder).stdout
    return re.sub(r"^-e \.$", f"-e {folder}", lock, flags=re.MULTILINE), []
