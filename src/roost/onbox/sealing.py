"""The seal of a box: what it was when a run had ended well, and whether it still is.

What a box in order does not need is imported where it is used: a look takes hardly longer.
Runs as root. The seal is root's alone; what it holds of contents are hashes with a salt of its own.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import stat
import sys

from roost.onbox.observe import look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from roost.onbox.observe import Seen

FOLDER = "/var/lib/roost/seal"
SEAL = FOLDER + "/seal"
HEX = frozenset("0123456789abcdef")


def salted(salt: str, text: str) -> str:
    """A short hash of a text that is worth nothing without the salt (RFC 7693, keyed)."""
    return hashlib.blake2b(text.encode(), key=salt.encode(), digest_size=16).hexdigest()


def without_contents(salt: str, seen: Seen) -> Seen:
    """The same with every hash salted, so that nobody can try contents against it."""
    return {
        key: salted(salt, value) if _is_digest(key, value) else value for key, value in seen.items()
    }


def _is_digest(key: str, value: str) -> bool:
    return key == "answer" or (len(value) == 64 and set(value) <= HEX)


def verify(basis: str) -> dict[str, Any]:
    """Compare the box with its seal.

    Args:
        basis: the fingerprint of what the outcome depends on, as it is now.

    Returns:
        ``state`` (``none``, ``stale``, ``differs`` or ``in order``), ``count`` of the things that
        were looked at, and ``differs``: the name and the differences of each that is not as it was.
    """
    seal = read()
    if not seal:
        return {"state": "none"}
    if seal["basis"] != salted(seal["salt"], basis):
        return {"state": "stale"}
    found = []
    now = look([leaf for leaf, _ in seal["leaves"]])
    kept = [without_contents(seal["salt"], seen) for seen in now]
    for (leaf, before), seen in zip(seal["leaves"], kept, strict=False):
        if seen != before:
            from roost.onbox.drift import differences, name_of

            if wrong := differences(leaf, before, seen):
                found.append([name_of(leaf), wrong])
    state = "differs" if found else "in order"
    return {"state": state, "count": len(now), "differs": found}


def read(path: str = SEAL) -> dict[str, Any]:
    """The seal; empty where there is none that root wrote for itself alone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return {}
    with open(fd, "rb") as file:
        info = os.fstat(fd)
        if info.st_uid != 0 or stat.S_IMODE(info.st_mode) & 0o077:
            return {}
        try:
            # Not JSON, whose import takes longer than a look: this Python's own form of data.
            found = marshal.loads(file.read())  # noqa: S302 - root's alone
        except (ValueError, EOFError, TypeError):  # another Python's, or cut off
            return {}
    return found if isinstance(found, dict) else {}


def main(request: Mapping[str, Any]) -> None:
    """Do what is asked, and print the answer as JSON behind a mark.

    Args:
        request: ``basis`` to verify; with ``run``, take the seal away for that run, unless all is
            in order; with ``leaves``, seal.
    """
    os.umask(0o077)
    if "leaves" in request:
        from roost.onbox.making import seal

        answer = seal(request)
    else:
        answer = verify(request["basis"]) if request.get("basis") else {"state": "none"}
        if "run" in request and answer["state"] != "in order":
            from roost.onbox.making import begin

            begin(request["run"], answer.get("differs") or [])
    if answer.get("state") == "in order":
        said = f'{{"state": "in order", "count": {answer["count"]}}}'
    else:
        import json  # it takes a while, and the usual answer needs none of it

        said = json.dumps(answer)
    sys.stdout.write(f"\x1eseal {said}\n")
