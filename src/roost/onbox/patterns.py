"""Names by pattern, as a shell has them: glob(7)."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def fits(pattern: str) -> Callable[[str], bool]:
    """Tells of a name whether it fits ``pattern``."""
    first, star, last = pattern.partition("*")
    if star and not set("*?[") & {*first, *last}:
        # The usual one, without fnmatch: its import takes as long as a program of C runs.
        size = len(first) + len(last)
        return lambda name: len(name) >= size and name.startswith(first) and name.endswith(last)
    from fnmatch import fnmatchcase

    return lambda name: fnmatchcase(name, pattern)


def paths(pattern: str) -> list[str]:
    """The paths that fit, in order; what begins with a dot only where the pattern does."""
    found = [""]  # each ends with a slash, unless it is the beginning
    for part in pattern.split("/"):
        if set("*?[") & set(part):
            fit = fits(part)
            found = [
                f"{folder}{name}/"
                for folder in found
                for name in names(folder)
                if fit(name) and (name[0] != "." or part[0] == ".")
            ]
        else:
            found = [f"{folder}{part}/" for folder in found]
    return sorted(path[:-1] for path in found if os.path.lexists(path[:-1]))


def names(folder: str) -> list[str]:
    """What is in a folder; nothing where it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []
