"""The seal of a box: what it was when a run had ended well, and whether it still is.

Runs as root. The seal is root's alone; what it holds of contents are hashes with a salt of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import stat
import subprocess
import sys
import time

from roost.onbox.files import read_json, write_json
from roost.onbox.observe import DIGEST, ENVIRONMENT, look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from roost.onbox.observe import Leaf, Seen

FOLDER = "/var/lib/roost"
SEAL = FOLDER + "/seal/seal.json"
FORMER = FOLDER + "/seal/former.json"
RUN = FOLDER + "/seal/run"
HEX = frozenset("0123456789abcdef")


def salted(salt: str, text: str) -> str:
    """A short hash of a text that is worth nothing without the salt."""
    return hmac.new(salt.encode(), text.encode(), hashlib.sha256).hexdigest()[:32]


def without_contents(salt: str, seen: Seen) -> Seen:
    """The same with every hash salted, so that nobody can try contents against it."""
    return {
        key: salted(salt, value) if _is_digest(key, value) else value for key, value in seen.items()
    }


def _is_digest(key: str, value: str) -> bool:
    return key == "answer" or (len(value) == 64 and set(value) <= HEX)


def name_of(leaf: Leaf) -> str:
    """What a person calls it."""
    kind = next(k for k in leaf if k in KINDS)
    named = " ".join(leaf[kind]) if kind == "command" else leaf[kind]
    return named if kind in ("path", "glob", "tree") else f"{kind} {named}"


KINDS = (
    "path", "glob", "tree", "venv", "package", "user", "group", "unit", "units", "command",
)  # fmt: skip


def newer(now: str, before: str) -> bool:
    """Whether a package's version is newer than another, as Debian orders them."""
    argv = ["dpkg", "--compare-versions", now, "gt", before]
    return subprocess.run(argv, env=ENVIRONMENT, check=False).returncode == 0


def differences(leaf: Leaf, before: Seen, now: Seen) -> list[str]:
    """In words, what of a thing is not as it was."""
    keys = [key for key in sorted({*before, *now}) if _differs(leaf, key, before, now)]
    # Of what came, went or became something else the other properties are not worth a word.
    other = {key.removesuffix("type") for key in keys if key.rpartition(" ")[2] == "type"}
    named = [k for k in keys if k.removesuffix("type") in other or not k.startswith(tuple(other))]
    return [_in_words(key, before.get(key), now.get(key)) for key in named]


def _differs(leaf: Leaf, key: str, before: Seen, now: Seen) -> bool:
    old, new = before.get(key), now.get(key)
    if old == new or (old is None and leaf.get("more")):
        return False
    # What security upgrades do; no task wants it back.
    return not (key == "version" and old and new and newer(new, old))


def _in_words(key: str, old: str | None, new: str | None) -> str:
    what = key.removesuffix("type").strip()
    if "absent" in (old, new) or None in (old, new):
        return f"{what} {'added' if old in (None, 'absent') else 'gone'}".strip()
    if old and len(old) == 32 and set(old) <= HEX:
        return key if key == DIGEST else f"{key} changed"
    return f"{key} {old or 'none'} -> {new or 'none'}"


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
    if not hmac.compare_digest(seal["basis"], salted(seal["salt"], basis)):
        return {"state": "stale"}
    found = []
    now = look([leaf for leaf, _ in seal["leaves"]])
    for (leaf, before), seen in zip(seal["leaves"], now, strict=False):
        wrong = differences(leaf, before, without_contents(seal["salt"], seen))
        if wrong:
            found.append([name_of(leaf), wrong])
    state = "differs" if found else "in order"
    return {"state": state, "count": len(now), "differs": found}


def read(path: str = SEAL) -> dict[str, Any]:
    """The seal; empty where there is none that root wrote for itself alone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return {}
    with os.fdopen(fd, encoding="utf-8") as file:
        info = os.fstat(file.fileno())
        if info.st_uid != 0 or stat.S_IMODE(info.st_mode) & 0o077:
            return {}
        try:
            found = json.load(file)
        except ValueError:
            return {}
    return found if isinstance(found, dict) else {}


def begin(run: str, differs: list[Any]) -> None:
    """Take the seal away, before a run changes anything, and note which run it is.

    Args:
        run: its name; empty for a run that will not seal the box.
        differs: what ``verify`` found, so that it can be said in the end what the run left as
            it was.
    """
    if run:
        folder = os.path.dirname(SEAL)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chmod(folder, 0o700)
        write_json(RUN, {"run": run, "differs": differs})
        with contextlib.suppress(FileNotFoundError):
            os.replace(SEAL, FORMER)
    else:
        _remove(SEAL, FORMER, RUN)


def _remove(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
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
    return json.dumps({k: v for k, v in leaf.items() if k != "expect"}, sort_keys=True)


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
    import secrets  # it takes a while, and a look needs none of it

    noted = read_json(RUN)
    begun = noted.get("run")
    if begun is None and request["unbegun"] and not os.path.lexists(SEAL):
        os.makedirs(os.path.dirname(SEAL), mode=0o700, exist_ok=True)
    elif begun != request["run"]:
        return {"refused": f"another run has {'begun' if begun else 'ended'} on this box"}
    leaves = request["leaves"]
    salt = secrets.token_hex(16)
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
    write_json(SEAL, {"salt": salt, "basis": basis, "leaves": kept, **made})
    unmended = _unmended(dict(noted.get("differs") or []), found)
    _remove(FORMER, RUN)
    return {"unmended": unmended}


def main(request: Mapping[str, Any]) -> None:
    """Do what is asked, and print the answer as JSON behind a mark.

    Args:
        request: ``basis`` to verify; with ``run``, take the seal away for that run, unless all is
            in order; with ``leaves``, seal.
    """
    os.umask(0o077)
    if "leaves" in request:
        answer = seal(request)
    else:
        answer = verify(request["basis"]) if request.get("basis") else {"state": "none"}
        if "run" in request and answer["state"] != "in order":
            begin(request["run"], answer.get("differs") or [])
    sys.stdout.write("\x1eseal " + json.dumps(answer) + "\n")
