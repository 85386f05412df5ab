"""The list of people as it stands in the inventory: who belongs where, and by which keys.

The role ``people`` reads the same list; here it is read without Ansible, for the commands that
compare it with a box or sign a certificate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from roost import public_keys
from roost.errors import UsageError
from roost.model import Box
from roost.public_keys import PublicKey

LIST = "people_list"
AUTHORITIES = "people_ca_keys"
REVOKED = "people_revoked_keys"
DEFAULT_NAMES = ("id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_ecdsa_sk", "id_rsa")


@dataclass(frozen=True)
class Listed:
    """A key that the workspace knows of.

    Attributes:
        key: the key.
        source: where it stands: ``people_list, key 2``, or a file.
        owner: whose it is in the list; empty for the key of the connection.
    """

    key: PublicKey
    source: str
    owner: str = ""


@dataclass(frozen=True)
class Known:
    """What the workspace says of the people of one box.

    Attributes:
        keys: the keys of those who are to be on it, and of the connection.
        here: the names of those who are to be on it.
        gone: the names of those who are listed and are not to be on it.
        authorities: the public keys (base64) that may vouch for certificates.
    """

    keys: Sequence[Listed] = ()
    here: Sequence[str] = ()
    gone: frozenset[str] = frozenset()
    authorities: frozenset[str] = frozenset()


def known(box: Box, root: Path, home: Path, today: date) -> Known:
    """What the workspace says of the people of ``box``.

    Args:
        box: the box.
        root: the workspace, where relative paths begin.
        home: what ``~`` is.
        today: the date that ``until`` is compared with.

    Raises:
        UsageError: a key cannot be read.
    """
    every = entries(box)
    here = [entry for entry in every if belongs(entry, box, today)]
    return Known(
        keys=[*(k for entry in here for k in keys_of(entry, root, home)),
              *own_keys(box, root, home)],
        here=[str(entry.get("name")) for entry in here],
        gone=frozenset(str(entry.get("name")) for entry in every if entry not in here),
        authorities=frozenset(one.key.blob for one in keys_in(box, AUTHORITIES, root, home)),
    )  # fmt: skip


def entries(box: Box) -> list[Mapping[str, Any]]:
    """The entries of the list, as they stand in the inventory."""
    return [entry for entry in box.vars.get(LIST) or [] if isinstance(entry, Mapping)]


def belongs(entry: Mapping[str, Any], box: Box, today: date) -> bool:
    """Whether somebody of the list is to be on ``box`` today."""
    if has_left(entry, today):
        return False
    boxes = entry.get("boxes")
    return boxes is None or bool({box.name, "all", *box.groups} & {str(b) for b in boxes})


def has_left(entry: Mapping[str, Any], today: date) -> bool:
    """Whether somebody of the list is to be nowhere any more; the last day still counts."""
    until = str(entry.get("until") or "")
    return entry.get("state") == "absent" or bool(until and until < today.isoformat())


def keys_in(box: Box, variable: str, root: Path, home: Path) -> Iterator[Listed]:
    """The keys of a variable that is a list of them, such as ``people_ca_keys``."""
    return keys_of({"name": variable, "keys": box.vars.get(variable)}, root, home)


def keys_of(entry: Mapping[str, Any], root: Path, home: Path) -> Iterator[Listed]:
    """The keys of one entry of the list.

    Args:
        entry: an entry of ``people_list``.
        root: the workspace, where relative paths begin.
        home: what ``~`` is.

    Raises:
        UsageError: a key file cannot be read, or only Ansible knows what stands there.
    """
    name = str(entry.get("name", ""))
    for number, item in enumerate(entry.get("keys") or [], 1):
        told = item if isinstance(item, Mapping) else {"key": item}
        text, source = str(told.get("key", "")), f"{LIST}, key {number}"
        if "{{" in text + str(told.get("file", "")):
            raise UsageError(
                f"key {number} of {name} in {LIST} is a template, which only Ansible can read",
                fix="put the key itself there, or {file: PATH}",
            )
        if "file" in told:
            text, source = _read(str(told["file"]), root, home), str(told["file"])
        extra = str(told.get("options") or "")
        for key in public_keys.parse_all(text):
            options = ",".join(o for o in (key.options, extra) if o)
            yield Listed(PublicKey(key.kind, key.blob, key.comment, options), source, name)


def _read(written: str, root: Path, home: Path) -> str:
    path = home / written[2:] if written.startswith("~/") else root / written
    try:
        return path.read_text("utf-8", "replace")
    except OSError as error:
        raise UsageError(f"the key file {written} cannot be read: {error.strerror}") from error


def own_keys(box: Box, root: Path, home: Path) -> Iterator[Listed]:
    """The public keys that this side logs in with."""
    files = [box.identity] if box.identity else [f"~/.ssh/{name}" for name in DEFAULT_NAMES]
    for file in files:
        public = file if file.endswith(".pub") else f"{file}.pub"
        path = home / public[2:] if public.startswith("~/") else root / public
        if path.is_file():
            for key in public_keys.parse_all(path.read_text("utf-8", "replace")):
                yield Listed(key, f"your {file}")
