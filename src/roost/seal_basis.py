"""The fingerprint of everything on this side that the outcome of a run on a box depends on.

Nothing of Ansible is imported: the variables are those that ``ansible-inventory`` answered.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from roost import __version__, content, onbox
from roost.errors import RoostError
from roost.inventory import inventory_files
from roost.model import Box, Fleet
from roost.workspace import Workspace

# How a box is reached has no say in what it becomes.
CONNECTION = ("ansible_ssh_", "ansible_host", "ansible_port", "ansible_connection", "roost_")
TEXTS = frozenset({".yml", ".yaml", ".j2", ".json", ".cfg"})
# What these answer may be something else tomorrow.
UNPINNED = re.compile(
    r"\b(?:lookup|query|q)\((?!\s*['\"](?:ansible\.builtin\.)?(?:file|template)['\"])[^)]*"
    r"|\bwith_(?!items\b|dict\b|list\b|nested\b|subelements\b|together\b|sequence\b|flattened\b)\w+"
    r"|\bnow\(|\bansible_date_time\b|\|\s*(?:random|shuffle|fileglob|password_hash|realpath)\b"
    r"|\bis\s+(?:not\s+)?(?:file|directory|exists|link|mount)\b"
)
# A box that asks for others has the whole inventory as its basis.
OTHERS = re.compile(
    r"\bhostvars\b|(?<![\w.'\"])groups\b(?!\s*['\"]?\s*[:=])|\bansible_play_|\bplay_hosts\b"
    r"|hosts:.*\["
)
OUTSIDE = re.compile(r"\{\{[^}]*\}\}[^\s'\"]*/\.\./")
MENTIONED = re.compile(r"(?<![\w.}/~-])(~?/[\w./+@~-]+|\.\./[\w./+@~-]+)")
# The box's own programs, such as a shell, are named there; they are no sources.
PROGRAMS = ("/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", "/dev/", "/proc/")


class NotSealableError(RoostError):
    """Something that the outcome depends on cannot be pinned."""


class Basis:
    """What runs in one workspace depend on.

    Args:
        workspace: whose runs.
        fleet: its boxes.
        environ: for the settings of Ansible's in it.
        today: the date in UTC, ``YYYY-MM-DD``: some people stay until a day.

    Raises:
        NotSealableError: it cannot be pinned; ``what`` says why.
    """

    def __init__(
        self, workspace: Workspace, fleet: Fleet, environ: Mapping[str, str], today: str
    ) -> None:
        self._root = workspace.root
        self._fleet = fleet
        self._today = today
        texts = []
        self._digest = hashlib.sha256(f"{__version__} {_ansible_release()}".encode())
        for name in sorted(environ):
            if name.startswith("ANSIBLE_"):
                self._add(name, environ[name].encode())
        for module in onbox.SEALING:
            self._add(f"program {module}", onbox.text(f"{module}.py").encode())
        for path in _of_roost():
            self._add(str(path.relative_to(content.collection_root())), path.read_bytes())
        for path in self._of_workspace(workspace):
            data = path.read_bytes()
            self._add(f"workspace {path.relative_to(self._root)}", data)
            if path.suffix in TEXTS:
                texts.append((str(path.relative_to(self._root)), data.decode("utf-8", "replace")))
        for name, text in texts:
            self._pin(name, text)
        everything = "\n".join(text for _, text in texts)
        values = json.dumps([_values(box) for box in fleet.boxes], default=str)
        #: Whether what becomes of one box depends on the others.
        self.together = bool(OTHERS.search(everything) or OTHERS.search(values))

    def of(self, box: Box) -> str:
        """The fingerprint of one box.

        Raises:
            NotSealableError: a variable of the box cannot be pinned.
        """
        found = self._digest.copy()
        for one in self._fleet.boxes if self.together else [box]:
            values = _values(one)
            text = json.dumps(values, sort_keys=True, default=str)
            self._pin(f"the variables of {one.name}", text, found)
            people = values.get("people_list") or []
            gone = [str(p.get("until")) for p in people if str(p.get("until") or "9") < self._today]
            parts = [one.name, text, json.dumps([sorted(one.groups), gone])]
            found.update("\0".join(parts).encode())
        # Which person logs in has a say: site.yml makes them a JupyterLab.
        found.update(f"\0{box.name}\0{box.user}".encode())
        return found.hexdigest()

    def _add(self, name: str, data: bytes) -> None:
        self._digest.update(f"{name}\0{len(data)}\0".encode() + data)

    def _pin(self, where: str, text: str, digest: Any = None) -> None:
        """Add the files of this side that a text mentions; refuse what cannot be pinned."""
        wrong = UNPINNED.search(text) or OUTSIDE.search(text)
        if wrong:
            raise NotSealableError(f"{where}: what {wrong[0]!r} gives may change by itself")
        for word in sorted(set(MENTIONED.findall(text))):
            path = self._root / Path(word).expanduser()
            if not word.startswith(PROGRAMS) and path.is_file():
                data = path.read_bytes() if os.access(path, os.R_OK) else b""
                (digest or self._digest).update(hashlib.sha256(data).digest())

    def _of_workspace(self, workspace: Workspace) -> Iterator[Path]:
        # What the inventory says comes as values; a comment in it, or another box, does not count.
        kinds = {*TEXTS, "", ".ini"}
        inventory = {
            p
            for p in inventory_files(workspace)
            if p.suffix in kinds and not p.is_relative_to(self._root / "playbooks")
        }
        for folder, folders, names in os.walk(self._root):
            folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__pycache__")
            for name in sorted(names):
                path = Path(folder) / name
                skipped = name.startswith(".") or path == workspace.known_hosts
                if not skipped and path not in inventory and path.is_file():
                    yield path


def _of_roost() -> Iterator[Path]:
    root = content.collection_root()
    for folder in ("playbooks", "plugins", "roles"):
        for top, folders, names in os.walk(root / folder):
            folders[:] = sorted(f for f in folders if f != "__pycache__")
            yield from (Path(top) / n for n in sorted(names) if not n.endswith((".pyc", ".md")))


def _values(box: Box) -> dict[str, Any]:
    return {k: v for k, v in box.vars.items() if not k.startswith(CONNECTION)}


def _ansible_release() -> str:
    spec = importlib.util.find_spec("ansible")
    places: Iterable[str] = (spec and spec.submodule_search_locations) or ()
    for place in places:
        return (Path(place) / "release.py").read_text("utf-8")
    raise NotSealableError("the version of Ansible is not known")
