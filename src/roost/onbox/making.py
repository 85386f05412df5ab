"""Take the seal of a box away, and make it anew; what a seal is, ``sealing`` tells."""

from __future__ import annotations

import marshal
import os
import time

from roost.onbox.drift import differences, name_of
from roost.onbox.files import read_json, replace, write_json
from roost.onbox.observe import look
from roost.onbox.sealing import FOLDER, SEAL, read, salted, without_contents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from roost.onbox.observe import Leaf, Seen

FORMER = FOLDER + "/former"
RUN = FOLDER + "/run"


def begin(run: str, differs: list[Any]) -> None:
    """Take the seal away, before a run changes anything, and note which run it is.

    Args:
        run: its name; empty for a run that will not seal the box.
        differs: what ``verify`` found, so that it can be said in the end what the run left as
            it was.
    """
    if run:
        os.makedirs(FOLDER, mode=0o700, exist_ok=True)
        os.chmod(FOLDER, 0o700)
        write_json(RUN, {"run": run, "differs": differs})
        if os.path.lexists(SEAL):
            os.replace(SEAL, FORMER)
    else:
        _remove(SEAL, FORMER, RUN)


def _remove(*paths: str) -> None:
    for path in paths:
        if os.path.lexists(path):
            os.unlink(path)


def _unmended(told: Mapping[str, Any], found: Mapping[str, Seen]) -> list[Any]:
    """What differed from the former seal before the run, and differs alike after it."""
    former = read(FORMER)
    left = []
    for leaf, before in former.get("leaves", []):
        seen = found.get(_key(leaf))
        if name_of(leaf) in told and seen is not None:
            wrong = differences(leaf, before, without_contents(former["salt"], seen))
            if wrong == told[name_of(leaf)]:
                left.append([name_of(leaf), wrong])
    return left


def _key(leaf: Leaf) -> str:
    return repr(sorted((k, v) for k, v in leaf.items() if k != "expect"))


def seal(request: Mapping[str, Any]) -> dict[str, Any]:
    """Look at everything that a run left behind, and keep it.

    Args:
        request: ``run`` (what ``begin`` was told), ``basis``, ``leaves``, each with what it is
            expected to be (``expect``), and ``unbegun``: ``begin`` could not be told, because the
            box had no Python yet.

    Returns:
        ``refused``: why there is no seal; or ``unmended``: what is in it although it differed
        from the former seal, since the run did not change it.
    """
    noted = read_json(RUN)
    begun = noted.get("run")
    if begun is None and request["unbegun"] and not os.path.lexists(SEAL):
        os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    elif begun != request["run"]:
        return {"refused": f"another run has {'begun' if begun else 'ended'} on this box"}
    leaves = request["leaves"]
    salt = os.urandom(16).hex()
    kept: list[tuple[dict[str, Any], Seen]] = []
    found = dict(zip(map(_key, leaves), look(leaves), strict=True))
    for leaf, seen in zip(leaves, found.values(), strict=True):
        for key, value in (leaf.get("expect") or {}).items():
            if seen.get(key) != value:
                return {"refused": f"{name_of(leaf)} is not what the run made of it ({key})"}
        plain = {key: value for key, value in leaf.items() if key != "expect"}
        kept.append((plain, without_contents(salt, seen)))
    made = {"made": int(time.time()), "by": os.environ.get("SUDO_USER", "root")}
    basis = salted(salt, request["basis"])
    replace(SEAL, marshal.dumps({"salt": salt, "basis": basis, "leaves": kept, **made}))
    unmended = _unmended(dict(noted.get("differs") or []), found)
    _remove(FORMER, RUN)
    return {"unmended": unmended}
