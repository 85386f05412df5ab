"""What git ignores, as patterns that rsync understands."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from roost import process
from roost.errors import MissingProgramError


def ignored_by_git(sources: Sequence[str]) -> list[bytes] | None:
    """What git ignores below the sources, as rsync patterns; None where it cannot be asked."""
    patterns = []
    for source in sources:
        folder = Path(source).expanduser()
        words = ["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"]
        if not folder.is_dir():
            continue
        try:
            done = process.run(["git", "-C", folder, *words], check=False)
        except MissingProgramError:
            return None
        if done.returncode:
            return None
        top = "" if source.endswith("/") else f"{folder.absolute().name}/"
        for path in filter(None, done.stdout.split("\0")):
            patterns.append(os.fsencode("/" + re.sub(r"([*?[\\])", r"\\\1", top + path)))
    return patterns
