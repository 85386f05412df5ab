"""The units of systemd, as ``systemctl show`` tells of them."""

from __future__ import annotations

import os
import time

from roost.onbox.patterns import fits, paths
from roost.onbox.programs import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PROPERTIES = ("LoadState", "UnitFileState", "ActiveState", "NeedDaemonReload")
FILES = ("FragmentPath", "DropInPaths")
STARTED = "ActiveEnterTimestampMonotonic"
OLD = "started before its files"
# On the way to a state, or passing through a start anew, is as good as being there.
ALIKE = {"activating": "active", "reloading": "active"}


class Units:
    """Several units, asked for at once, while other things are looked at.

    Args:
        names: units.
        patterns: patterns of units; those that systemd has in memory.
        digest: of a file's contents.
    """

    def __init__(
        self, names: Sequence[str], patterns: Sequence[str], digest: Callable[[str], str]
    ) -> None:
        self._digest = digest
        fit = [fits(pattern) for pattern in patterns]
        # Of each unit that is named systemd sends all that it knows: not twice, then.
        self._named = [name for name in names if not any(one(name) for one in fit)]
        self._program = _show([*self._named, *patterns]) if names or patterns else None
        self._blocks: dict[str, dict[str, str]] | None = None

    def named(self, name: str) -> dict[str, str]:
        """What there is to see of one unit."""
        found = self._found()
        if name not in found:  # it fits a pattern, and is not in memory
            found.update(_blocks(_show([name]), [name]))
        block = found.get(name, {})
        seen = {key: ALIKE.get(value, value) for key, value in _only(block, PROPERTIES)}
        files = {path for _, value in _only(block, FILES) for path in value.split()}
        # Of a folder that came since its last reload systemd knows nothing, and says so of none.
        files.update(paths(f"/etc/systemd/system/{name}.d/*.conf"))
        seen.update({path: self._digest(path) for path in files})
        if seen.get("ActiveState") == "active":
            seen[OLD] = "yes" if _is_older(block.get(STARTED) or "0", files) else "no"
        return seen or {"LoadState": "unknown"}

    def like(self, pattern: str) -> dict[str, str]:
        """Which units that fit run, and whether systemd knows the files of all as they are."""
        fit = fits(pattern)
        blocks = {name: block for name, block in self._found().items() if fit(name)}
        states = {name: block.get("ActiveState", "") for name, block in blocks.items()}
        stale = any(block.get("NeedDaemonReload") == "yes" for block in blocks.values())
        running = {
            n: "active" for n, state in states.items() if ALIKE.get(state, state) == "active"
        }
        return {**running, "NeedDaemonReload": "yes" if stale else "no"}

    def _found(self) -> dict[str, dict[str, str]]:
        if self._blocks is None:
            self._blocks = _blocks(self._program, self._named) if self._program else {}
        return self._blocks


def _show(words: Sequence[str]) -> Program:
    properties = ",".join(("Id", *PROPERTIES, *FILES, STARTED))
    return Program(["systemctl", "show", "--property", properties, "--", *words])


def _blocks(program: Program, named: Sequence[str]) -> dict[str, dict[str, str]]:
    """The properties of each unit, by the name that it was asked for, else by its own."""
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in program.said()[0].rstrip("\n").split("\n\n")
    ]
    # systemd gives one block for each name, in the order of the names; those of patterns follow.
    by_name = dict(zip(named, blocks, strict=False))
    return {**{block["Id"]: block for block in blocks[len(named) :] if "Id" in block}, **by_name}


def _only(block: dict[str, str], keys: Sequence[str]) -> list[tuple[str, str]]:
    return [(key, block[key]) for key in keys if key in block]


def _is_older(started: str, files: Iterable[str]) -> bool:
    """Whether a unit runs since before one of its files was written.

    Args:
        started: its start in microseconds of CLOCK_MONOTONIC, as systemd has it.
        files: their paths.
    """
    start = time.time() - time.monotonic() + int(started) / 1e6
    # Those in /run generators write anew at every reload.
    kept = [path for path in files if not path.startswith("/run/") and os.path.exists(path)]
    return any(os.stat(path).st_mtime > start for path in kept)
