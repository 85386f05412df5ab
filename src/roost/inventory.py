"""The inventory as Ansible reads it (``ansible-inventory``), turned into a Fleet.

Ansible alone knows group precedence, vault and inventory plugins, so there is no second reader
of its files here. What it answered is kept by the content of what it read.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from roost import __version__, content, process
from roost.errors import InventoryError, ProcessError
from roost.model import DEFAULT_SSH_PORT, Box, Fleet, Forward, Person
from roost.paths import Paths
from roost.workspace import Workspace

ROOST_VARIABLES = (
    "roost_via", "roost_identity", "roost_forwards", "roost_door", "roost_ssh_options",
)  # fmt: skip

_VAULT_HEADER = b"$ANSIBLE_VAULT;"


def load(workspace: Workspace, *, paths: Paths, environ: Mapping[str, str]) -> Fleet:
    """The boxes and people of ``workspace``.

    Raises:
        InventoryError: a file cannot be read, or says something that makes no sense.
    """
    key = _cache_key(workspace, environ)
    cached = paths.cache / "inventory" / f"{key}.json"
    if key and cached.is_file():
        return to_fleet(json.loads(cached.read_text("utf-8")))
    raw = read(workspace, environ)
    fleet = to_fleet(raw)
    reject_unknown(unknown_names(fleet, {"roost": ROOST_VARIABLES}), workspace)
    if key:
        _store(cached, raw)
    return fleet


def read(workspace: Workspace, environ: Mapping[str, str]) -> dict[str, Any]:
    """What ``ansible-inventory --list`` answers.

    Raises:
        InventoryError: Ansible cannot read the inventory; its complaint is passed on with file
            and line, without the rest of its output.
    """
    done = process.run(
        [ansible_program("ansible-inventory"), "--list"],
        env=ansible_environment(workspace, environ),
        cwd=workspace.root,
        check=False,
        timeout=120,
    )
    complaint = _complaint(done.stderr, failed=done.returncode != 0)
    if complaint:
        # Of a file in group_vars Ansible does not say which one it was.
        place = "" if ".yml:" in complaint else _malformed(workspace)
        vault = "vault" in complaint
        raise InventoryError(
            f"the inventory cannot be read: {place}{complaint}",
            fix="name the vault's password: export ANSIBLE_VAULT_PASSWORD_FILE=FILE, or "
            "vault_password_file in ansible.cfg"
            if vault
            else None,
        )
    if done.returncode != 0:
        raise ProcessError(
            "ansible-inventory failed", returncode=done.returncode, why=done.stderr.strip()[-500:]
        )
    answer = json.loads(done.stdout)
    return answer if isinstance(answer, dict) else {}


def ansible_program(name: str) -> str:
    """The Ansible program that belongs to this Python, so that versions never mix."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else name


def ansible_environment(workspace: Workspace, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that every Ansible program of ours runs in.

    ``ANSIBLE_CONFIG`` is named outright: Ansible ignores the file of a world-writable folder,
    which every folder below ``/mnt/c`` is under WSL.
    """
    env = {k: v for k, v in environ.items() if k not in {"ANSIBLE_STDOUT_CALLBACK"}}
    env |= {
        "ANSIBLE_CONFIG": str(workspace.ansible_cfg),
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "True",
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_NOCOLOR": "True",
        "ANSIBLE_FORCE_COLOR": "False",
        "PYTHONUTF8": "1",
    }
    if sys.platform == "darwin":
        # Ansible forks after macOS's frameworks have started threads, which kills the child.
        env["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"
    return env


def _complaint(stderr: str, *, failed: bool) -> str | None:
    """The one sentence in Ansible's warnings that says what is wrong, with its origin."""
    strange = re.search(r"Skipping unexpected key \((.+?)\) in group \((.+?)\)", stderr)
    if strange:
        return (
            f"{strange[1]!r} is no part of the group {strange[2]!r}; "
            "a group has vars, children and hosts"
        )
    if not failed:
        return None
    parsing = re.search(
        r"YAML parsing failed: (.+?)\s+Origin: (/\S+?:\d+(?::\d+)?)$", stderr, re.M | re.S
    )
    if parsing:
        return f"{parsing[2]}: {_first_line(parsing[1])}"
    plugin = re.search(
        r"Failed to parse inventory with 'yaml' plugin: (.+?)\n.*?(/[^\s']+)'", stderr, re.S
    )
    if plugin:
        text = re.sub(r"<class '[\w.]*?_AnsibleTagged(\w+)'>", r"\1", plugin[1])
        return f"{plugin[2]}: {_first_line(text).lower()}"
    wrong = re.findall(r"^\[ERROR\]: (.+)$", stderr, re.M) or re.findall(
        r"^ERROR! (.+)$", stderr, re.M
    )
    return _first_line(wrong[-1]) if wrong else None


def _malformed(workspace: Workspace) -> str:
    import yaml

    for path in inventory_files(workspace):
        if path.suffix in {".yml", ".yaml", ""}:
            try:
                yaml.compose(path.read_text("utf-8", "replace"))
            except yaml.MarkedYAMLError as error:
                line = error.problem_mark.line + 1 if error.problem_mark else 1
                return f"{os.path.relpath(path, workspace.root)}:{line}: "
            except yaml.YAMLError:
                return f"{os.path.relpath(path, workspace.root)}: "
    return ""


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0].strip()


def to_fleet(raw: Mapping[str, Any]) -> Fleet:
    """Turn Ansible's answer into values.

    Raises:
        InventoryError: a value is of the wrong kind, or the gateways lead in a circle.
    """
    hostvars: Mapping[str, Mapping[str, Any]] = raw.get("_meta", {}).get("hostvars", {})
    members = {
        name: tuple(_members(raw, name))
        for name in raw
        if name not in {"_meta", "all", "ungrouped"}
    }
    boxes = tuple(
        _box(
            name, hostvars.get(name, {}), tuple(g for g, hosts in members.items() if name in hosts)
        )
        for name in dict.fromkeys(_members(raw, "all"))
    )
    fleet = Fleet(boxes=boxes, people=_people(boxes), groups=members)
    for box in boxes:
        fleet.jumps(box)
    return fleet


def _members(raw: Mapping[str, Any], group: str) -> Iterator[str]:
    entry = raw.get(group, {})
    yield from entry.get("hosts", ())
    for child in entry.get("children", ()):
        yield from _members(raw, child)


def _box(name: str, values: Mapping[str, Any], groups: tuple[str, ...]) -> Box:
    def text(key: str, default: str = "") -> str:
        value = values.get(key, default)
        if isinstance(value, (dict, list)):
            raise _wrong(name, key, value, "one word")
        if isinstance(value, str) and "{{" in value:
            raise _wrong(name, key, value, "a plain value: it is needed before Ansible runs")
        return "" if value is None else str(value)

    port = text("ansible_port", str(DEFAULT_SSH_PORT))
    if not (port.isdigit() and 0 < int(port) < 65536):
        raise _wrong(name, "ansible_port", port, "a port number from 1 to 65535")
    forwards = values.get("roost_forwards") or []
    if not isinstance(forwards, list):
        raise _wrong(name, "roost_forwards", forwards, "a list such as [6006:localhost:6006]")
    door = values.get("roost_door", True)
    if not isinstance(door, bool):
        raise _wrong(name, "roost_door", door, "true or false")
    return Box(
        name=name,
        host=text("ansible_host", name),
        port=int(port),
        user=text("ansible_user"),
        via=text("roost_via"),
        identity=text("roost_identity") or text("ansible_ssh_private_key_file"),
        forwards=tuple(Forward.parse(str(spec)) for spec in forwards),
        door=door,
        ssh_options=tuple(_options(name, values.get("roost_ssh_options") or {})),
        groups=groups,
        vars=values,
    )


def _options(name: str, options: object) -> Iterator[tuple[str, str]]:
    if not isinstance(options, dict):
        raise _wrong(name, "roost_ssh_options", options, "a mapping such as {Compression: true}")
    for option, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            # YAML reads yes and no as booleans; ssh_config(5) wants the words.
            word = ("yes" if one else "no") if isinstance(one, bool) else str(one)
            yield str(option), word


def _people(boxes: tuple[Box, ...]) -> tuple[Person, ...]:
    found: dict[str, Person] = {}
    for box in boxes:
        listed = box.vars.get("people_list") or []
        if not isinstance(listed, list) or not all(isinstance(p, dict) for p in listed):
            raise _wrong(box.name, "people_list", listed, "a list of people, each with a name")
        for entry in listed:
            if "name" not in entry:
                raise _wrong(box.name, "people_list", entry, "a name in every entry")
            person = Person(
                name=str(entry["name"]),
                full_name=str(entry.get("full_name") or ""),
                boxes=tuple(str(b) for b in entry.get("boxes") or ()),
                sudo={True: "yes", False: "no"}.get(
                    entry.get("sudo", False), str(entry.get("sudo"))
                ),
                until=str(entry.get("until") or ""),
                absent=entry.get("state", "present") == "absent",
            )
            found.setdefault(person.name, person)
    return tuple(found.values())


def _wrong(box: str, key: str, value: object, expected: str) -> InventoryError:
    shown = value if isinstance(value, str) else json.dumps(value, default=str)
    return InventoryError(f"{box}: {key} is {shown[:60]!r}, but should be {expected}")


def unknown_names(
    fleet: Fleet, known: Mapping[str, tuple[str, ...]]
) -> list[tuple[str, str, str | None]]:
    """Variables whose prefix is one of ``known`` and whose name is not.

    Args:
        fleet: what the inventory says.
        known: for each prefix (without its underscore) the names that exist.

    Returns:
        For each: a box that has it, the name, and the nearest right name or None.
    """
    import difflib

    wrong: dict[str, tuple[str, str, str | None]] = {}
    every = [name for names in known.values() for name in names]
    for box in fleet.boxes:
        for name in box.vars:
            prefix = name.split("_", 1)[0]
            if "_" in name and prefix in known and name not in known[prefix]:
                near = difflib.get_close_matches(name, every, n=1)
                wrong.setdefault(name, (box.name, name, near[0] if near else None))
    return list(wrong.values())


def reject_unknown(found: list[tuple[str, str, str | None]], workspace: Workspace) -> None:
    """Stop at the first misspelt name, with the place where it stands.

    Raises:
        InventoryError: ``found`` is not empty.
    """
    for box, name, near in found:
        place = find_in_files(workspace, name) or f"the variables of {box}"
        others = len(found) - 1
        more = f" (and {others} more)" if others else ""
        prefix = name.split("_", 1)[0]
        raise InventoryError(
            f"{place}: there is no variable {name!r}{more}",
            why=f"the names that begin with {prefix}_ belong to roost",
            fix=f"did you mean {near}?" if near else f"remove it, or rename it without {prefix}_",
        )


def find_in_files(workspace: Workspace, name: str) -> str | None:
    """``file:line`` of the first place that sets ``name``, relative to the workspace."""
    wanted = re.compile(rf"^\s*[\"']?{re.escape(name)}[\"']?\s*[:=]|\s{re.escape(name)}=")
    for path in inventory_files(workspace):
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            if wanted.search(line):
                return f"{os.path.relpath(path, workspace.root)}:{number}"
    return None


def _sources(workspace: Workspace) -> list[Path]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(workspace.ansible_cfg, "utf-8")
    except configparser.Error as error:
        raise InventoryError(
            f"{workspace.ansible_cfg} is malformed: {_first_line(str(error))}"
        ) from error
    listed = parser.get("defaults", "inventory", fallback="inventory")
    return [workspace.root / Path(p.strip()).expanduser() for p in listed.split(",") if p.strip()]


def inventory_files(workspace: Workspace) -> list[Path]:
    """Every file that Ansible reads the inventory and its variables from."""
    files: list[Path] = []
    for source in _sources(workspace):
        # Ansible reads group_vars and host_vars beside an inventory file, too.
        folders = (
            [source]
            if source.is_dir()
            else [source.parent / "group_vars", source.parent / "host_vars"]
        )
        files += [source] if source.is_file() else []
        for folder in folders:
            files += sorted(p for p in folder.rglob("*") if p.is_file())
    for beside in ("group_vars", "host_vars"):
        files += sorted(
            p for p in (workspace.root / "playbooks" / beside).rglob("*") if p.is_file()
        )
    return files


def _cache_key(workspace: Workspace, environ: Mapping[str, str]) -> str | None:
    """A hash of everything that the answer depends on; None where it must not be kept.

    Not kept: a vault (what is decrypted stays off the disk), and inventories that are programs
    or plugins (what they answer depends on more than their text).
    """
    digest = hashlib.sha256(f"{__version__} {sys.version} {content.specs_digest()}".encode())
    digest.update(str(workspace.root).encode())
    for name in sorted(environ):
        if name.startswith("ANSIBLE_"):
            digest.update(f"{name}={environ[name]}\0".encode())
    for path in [workspace.ansible_cfg, *inventory_files(workspace)]:
        data = path.read_bytes()
        dynamic = os.access(path, os.X_OK) or re.search(rb"^plugin\s*:", data, re.M)
        if dynamic or data.startswith(_VAULT_HEADER):
            return None
        digest.update(f"{path}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def _store(path: Path, raw: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(path.parent.glob("*.json"), key=lambda p: p.stat().st_mtime)[:-20]:
            old.unlink(missing_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(raw, file)
        fresh.replace(path)
    except OSError:
        # A full or read-only disk costs the next command half a second, and nothing else.
        return
