"""What differs between two looks at a thing, in words."""

from __future__ import annotations

from roost.onbox.observe import DIGEST
from roost.onbox.programs import Program
from roost.onbox.sealing import HEX
from roost.onbox.units import OLD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from roost.onbox.observe import Leaf, Seen


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
    return Program(["dpkg", "--compare-versions", now, "gt", before]).said()[1] == "0"


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
    if key == OLD and new != "yes":  # it was started anew, or does not run: that has its own name
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
