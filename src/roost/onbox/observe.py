"""What is on a box at this moment: files, packages, accounts, units, environments, as plain texts.

Each thing to look at ("leaf") is a dictionary of one of these
forms; ``docs/seal.md`` tells what each covers:

    {"path": P, "follow": bool}   {"glob": PATTERN}   {"tree": P}   {"venv": P, "more": bool}
    {"package": NAME}   {"user": NAME}   {"group": NAME}   {"unit": NAME}   {"units": PATTERN}
    {"command": [PROGRAM, ARGUMENT...], "stdin": TEXT}

With ``"only": [PROPERTY...]`` the rest of what is seen does not count.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat

from roost.onbox.patterns import names as names_in
from roost.onbox.patterns import paths as paths_like
from roost.onbox.programs import Program
from roost.onbox.units import Units

# Nothing that imports re, enum or typing: that takes longer than most of what is looked at.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Leaf = Mapping[str, Any]
    # What was seen: each property by its name. Only texts, so that two looks compare as they are.
    Seen = dict[str, str]

DIGEST = "content"
FORMAT = "${Package}\t${db:Status-Want}\t${db:Status-Status}\t${Version}\n"


def digest(path: str) -> str:
    """The SHA-256 of a regular file; empty for what is none, which is never opened."""
    if path not in _digests:
        _digests[path] = _digest(path)
    return _digests[path]


_digests: dict[str, str] = {}


def _digest(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        found = hashlib.sha256()
        while part := os.read(fd, 1 << 16):  # more at once would be new pages each time
            found.update(part)
        return found.hexdigest()
    finally:
        os.close(fd)


def _name(table: Callable[[int], Any], number: int) -> str:
    try:
        known = _names[table, number]
    except KeyError:
        try:
            known = str(table(number)[0])
        except KeyError:
            known = str(number)
        _names[table, number] = known
    return known


_names: dict[tuple[Callable[[int], Any], int], str] = {}


KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


def path(name: str) -> Seen:
    """What is at a path: its kind, and all that a task of Ansible's can set of it."""
    try:
        found = os.lstat(name)
    except OSError:
        return {"type": "absent"}
    kind = stat.S_IFMT(found.st_mode)
    seen = {"type": KINDS.get(kind, "special")}
    seen["owner"] = _name(pwd.getpwuid, found.st_uid)
    seen["group"] = _name(grp.getgrgid, found.st_gid)
    if kind == stat.S_IFLNK:
        seen["target"] = os.readlink(name)
    else:
        seen["mode"] = f"{stat.S_IMODE(found.st_mode):04o}"
    if kind == stat.S_IFREG:
        seen[DIGEST] = digest(name)
    return seen


def _below(top: str) -> list[str]:
    names = [top]
    for folder, folders, files in os.walk(top):
        names += [os.path.join(folder, name) for name in folders + files]
    return sorted(names)


def several(names: Sequence[str]) -> Seen:
    """Several paths as one thing; each property carries its path."""
    seen = {}
    for name in names:
        seen.update({f"{name} {key}": value for key, value in path(name).items()})
    return seen


def _kind(entry: os.DirEntry[str]) -> str:
    """The type that ``path`` would give, without a look at anything else."""
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return "file" if entry.is_file(follow_symlinks=False) else "special"


def venv(folder: str) -> Seen:
    """A virtual environment: its interpreter, and what is installed in it."""
    python = os.path.join(folder, "bin", "python")
    real = os.path.realpath(python)
    seen = {
        "type": path(folder)["type"],
        "pyvenv.cfg": digest(os.path.join(folder, "pyvenv.cfg")),
        "interpreter": real if os.access(real, os.X_OK) else "",
        "interpreter's content": digest(real),
    }
    lib = os.path.join(folder, "lib")
    for name in sorted(name for name in names_in(lib) if name.startswith("python")):
        site = os.path.join(lib, name, "site-packages")
        for entry in sorted(_entries(site), key=lambda entry: entry.name):
            if entry.name.endswith(".dist-info"):
                installed = entry.name[: -len(".dist-info")]
                seen[installed] = digest(os.path.join(entry.path, "RECORD"))
            elif entry.name != "__pycache__":
                seen["module " + entry.name] = _kind(entry)
    return seen


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError:
        return []


def user(name: str) -> Seen:
    """An account: all of its line but the password, whether it is locked, and its groups."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return {"type": "absent"}
    groups = sorted(_name(grp.getgrgid, gid) for gid in os.getgrouplist(name, entry.pw_gid))
    seen = {"type": "user", "uid": str(entry.pw_uid), "group": _name(grp.getgrgid, entry.pw_gid)}
    seen.update({"full name": entry.pw_gecos, "home": entry.pw_dir, "shell": entry.pw_shell})
    seen["groups"] = ",".join(groups)
    # Not the module spwd: Python 3.13 has none.
    with open("/etc/shadow", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.rstrip("\n").split(":")
            if fields[0] == name:
                seen["password"] = "locked" if fields[1][:1] in ("!", "*") else "usable"
                seen["end"] = fields[7]
    return seen


def group(name: str) -> Seen:
    """A group: its number; its members are those of the accounts."""
    try:
        return {"type": "group", "gid": str(grp.getgrnam(name).gr_gid)}
    except KeyError:
        return {"type": "absent"}


def _packages(names: Sequence[str], said: str) -> dict[str, Seen]:
    seen = {name: {"status": "absent"} for name in names}
    for line in said.splitlines():
        name, want, status, version = line.split("\t")
        if name in seen:
            seen[name] = {"want": want, "status": status, "version": version}
    return seen


def _start(leaf: Leaf) -> Program:
    return Program(leaf["command"], leaf.get("stdin", ""))


def _answer(program: Program) -> Seen:
    said, code = program.said()
    return {"answer": said.strip(), "exit code": code}


def _look(leaf: Leaf) -> Seen:
    if "path" in leaf:
        return path(os.path.realpath(leaf["path"]) if leaf.get("follow") else leaf["path"])
    if "glob" in leaf:
        return several(paths_like(leaf["glob"]))
    if "tree" in leaf:
        return several(_below(leaf["tree"]))
    if "venv" in leaf:
        return venv(leaf["venv"])
    if "user" in leaf:
        return user(leaf["user"])
    return group(leaf["group"])


def look(leaves: Sequence[Leaf]) -> list[Seen]:
    """What each of ``leaves`` is now, in their order."""
    _digests.clear()
    packages = _named(leaves, "package")
    # Programs first: they run while the files are read.
    asked = Program(["dpkg-query", "-W", "-f", FORMAT, *packages]) if packages else None
    units = Units(_named(leaves, "unit"), _named(leaves, "units"), digest)
    running = {n: _start(leaf) for n, leaf in enumerate(leaves) if "command" in leaf}
    later = {"package", "unit", "units", "command"}
    seen = {n: _look(leaf) for n, leaf in enumerate(leaves) if not later & set(leaf)}
    by_package = _packages(packages, asked.said()[0]) if asked else {}
    for n, leaf in enumerate(leaves):
        if n in running:
            seen[n] = _answer(running[n])
        elif "package" in leaf:
            seen[n] = by_package[leaf["package"]]
        elif "unit" in leaf:
            seen[n] = units.named(leaf["unit"])
        elif "units" in leaf:
            seen[n] = units.like(leaf["units"])
    return [_only(leaf, seen[n]) for n, leaf in enumerate(leaves)]


def _named(leaves: Sequence[Leaf], kind: str) -> list[str]:
    return sorted({leaf[kind] for leaf in leaves if kind in leaf})


def _only(leaf: Leaf, seen: Seen) -> Seen:
    return {k: v for k, v in seen.items() if k in leaf["only"]} if "only" in leaf else seen
