"""The files with hosts that a user's own ssh includes: one for each workspace."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from roost import files
from roost.errors import InventoryError, RoostError
from roost.paths import Paths


def folder(paths: Paths) -> Path:
    """The folder of roost's own that the user's ssh config includes."""
    return paths.config / "ssh"


def file_for(paths: Paths, workspace: Path) -> Path:
    """The file that holds the hosts of one workspace."""
    root = str(workspace.absolute())
    name = re.sub(r"[^A-Za-z0-9._-]", "-", Path(root).name).lstrip(".") or "workspace"
    return folder(paths) / f"{name}-{hashlib.sha256(root.encode()).hexdigest()[:8]}.conf"


def write(target: Path, text: str) -> bool:
    """Write the hosts of one workspace, and return whether anything changed.

    Raises:
        InventoryError: ssh does not understand the text; it would refuse every host then.
        RoostError: roost's folder cannot be written.
    """
    data = text.encode()
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if target.is_file() and target.read_bytes() == data:
            return False
        from roost import ssh_probe

        with files.staged(target, data) as fresh:
            if complaint := ssh_probe.complaint(fresh):
                raise InventoryError(
                    "ssh does not take the hosts of this workspace",
                    why=complaint,
                    fix="correct roost_ssh_options",
                )
            fresh.replace(target)
        return True
    except OSError as error:
        raise RoostError(f"{target} cannot be written: {error.strerror}") from error
