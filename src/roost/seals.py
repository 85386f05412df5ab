"""The seals of boxes: look at them, take them away, and make them after a run (docs/seal.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from roost import onbox, ssh
from roost.errors import RoostError, UnreachableError
from roost.job_stream import Remote, bundle

MARK = "\x1eseal "
TIMEOUT = 60.0
# -S: it needs no packages, and is there earlier.
PYTHON = "/usr/bin/python3 -I -S -X utf8 -"
AS_ROOT = f'if [ "$(id -u)" = 0 ]; then exec {PYTHON}; else exec sudo -n {PYTHON}; fi'
EVERY_BOX = "*"


@dataclass(frozen=True)
class Look:
    """How a box stands to its seal.

    Attributes:
        box: its name.
        state: ``in order``, ``differs``, ``none`` (there is no seal), ``stale`` (it was made for
            something else than what is wanted now), ``unreachable``, or ``unknown``.
        count: the things that were verified.
        differs: each thing that is not as it was, with what of it.
        why: what stands in the way where the box could not be asked.
    """

    box: str
    state: str
    count: int = 0
    differs: list[tuple[str, list[str]]] = field(default_factory=list)
    why: str = ""


@dataclass
class Record:
    """What a run left behind, by box, as the callback wrote it down.

    Attributes:
        whole: the run came to its end.
        leaves: what can be looked at.
        uncovered: tasks whose outcome nobody can look at, and why.
    """

    whole: bool = False
    leaves: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    uncovered: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Record:
        """Read the lines of the callback.

        Raises:
            ValueError: a line is cut off.
        """
        record = cls()
        for line in text.splitlines():
            said = json.loads(line)
            box = said["box"]
            record.whole |= bool(said.get("end"))
            if "uncovered" in said:
                record.uncovered.setdefault(box, []).append(said["uncovered"])
            elif "leaf" in said:
                # The task that comes last decides what a thing has to be.
                plain = {k: v for k, v in said["leaf"].items() if k != "expect"}
                key = json.dumps(plain, sort_keys=True)
                record.leaves.setdefault(box, {})[key] = said["leaf"]
        return record

    def obstacles(self, box: str) -> list[str]:
        """Why a box cannot be sealed; empty where it can."""
        if not self.whole:
            return ["the run was not recorded to its end"]
        found = [*self.uncovered.get(box, []), *self.uncovered.get(EVERY_BOX, [])]
        if not (found or self.leaves.get(box)):
            return ["the run left nothing that could be looked at"]
        return list(dict.fromkeys(found))


def look(remote: Remote, basis: Callable[[], str], *, run: str | None = None) -> Look:
    """Compare a box with its seal; one that cannot be asked is a state, not an error.

    Args:
        remote: the box.
        basis: makes the fingerprint of what its state depends on now, while the login is under way.
        run: the name of the run that begins where it is not in order, and takes the seal away.
    """
    name = remote.box.name
    try:
        more = {} if run is None else {"run": run}
        said = _ask(remote, lambda: {"basis": basis(), **more})
    except UnreachableError as error:
        return Look(name, "unreachable", why=error.why or error.what)
    except RoostError as error:
        return Look(name, "unknown", why=error.why or error.what)
    differs = [(thing, list(what)) for thing, what in said.get("differs", [])]
    return Look(name, said["state"], said.get("count", 0), differs)


def begin(remote: Remote, run: str) -> str:
    """Take the seal of a box away, since a run begins; why that failed, if so.

    Args:
        remote: the box.
        run: the name of the run; empty for one that will not seal the box.
    """
    try:
        _ask(remote, lambda: {"run": run})
    except RoostError as error:
        return error.why or error.what
    return ""


@dataclass(frozen=True)
class Sealed:
    """What came of sealing a box.

    Attributes:
        refused: why it is not sealed; empty where it is.
        unmended: what differed from the former seal, and the run did not change.
    """

    refused: str = ""
    unmended: list[tuple[str, list[str]]] = field(default_factory=list)


def seal(remote: Remote, record: Record, *, run: str, basis: str, unbegun: bool) -> Sealed:
    """Seal a box after a run that ended well.

    Args:
        remote: the box.
        record: what the run left behind.
        run: its name.
        basis: the fingerprint of what the state of the box depends on.
        unbegun: the box could not be asked when the run began.
    """
    leaves = list(record.leaves[remote.box.name].values())
    try:
        told = {"run": run, "basis": basis, "leaves": leaves, "unbegun": unbegun}
        said = _ask(remote, lambda: told)
    except RoostError as error:
        return Sealed(error.why or error.what)
    unmended = [(thing, list(what)) for thing, what in said.get("unmended", [])]
    return Sealed(str(said.get("refused", "")), unmended)


def _ask(remote: Remote, request: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    def program() -> str:
        # Python, not JSON: the box need not import that.
        return bundle(onbox.SEALING, f"sealing.main({dict(request())!a})")

    done = ssh.run(
        remote.config, remote.box, AS_ROOT, fleet=remote.fleet, timeout=TIMEOUT,
        input=program, check=False,
    )  # fmt: skip
    _, found, answer = done.stdout.rpartition(MARK)
    if not found:
        said = done.stderr.strip().splitlines()
        raise RoostError("the box cannot be asked", why=said[-1].strip() if said else None)
    value = json.loads(answer)
    return value if isinstance(value, dict) else {}
