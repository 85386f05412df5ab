"""Which hosts of a user's ssh config can become boxes, and what cannot be taken, with why."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from roost import ssh_probe
from roost.errors import InventoryError, UsageError
from roost.model import DEFAULT_SSH_PORT, Box, Fleet, Forward, ForwardKind
from roost.ssh_config import Settings, render
from roost.ssh_config_reader import Line, is_literal, read

# Said by a box's own variables, or by the rendering itself.
_SAID = {
    "host", "match", "include", "hostname", "user", "port", "identityfile", "identitiesonly",
    "proxyjump", "proxycommand", "userknownhostsfile", "stricthostkeychecking", "controlmaster",
    "controlpath", "controlpersist", "serveraliveinterval", "serveralivecountmax",
    "hostkeyalias", "ignoreunknown",
}  # fmt: skip
_FORWARDS = {
    "localforward": ForwardKind.LOCAL,
    "remoteforward": ForwardKind.REMOTE,
    "dynamicforward": ForwardKind.DYNAMIC,
}
_JUMP_COMMAND = re.compile(r"ssh\s+(?:-q\s+)?(?:-W\s+\[?%h\]?:%p\s+(\S+)|(\S+)\s+-W\s+\[?%h\]?:%p)")
_CODE_SERVERS = "git"


@dataclass(frozen=True)
class Left:
    """Something that is not taken.

    Attributes:
        place: the file and the line.
        what: the line, or the host.
        why: the reason.
    """

    place: str
    what: str
    why: str


@dataclass(frozen=True)
class Import:
    """What an import would do: boxes in the order of the file, and what is left."""

    boxes: tuple[Box, ...]
    left: tuple[Left, ...]


def plan(
    config: Path, fleet: Fleet, wanted: Sequence[str] = (), skip: Path | None = None
) -> Import:
    """Look through ``config`` for hosts that can become boxes.

    Args:
        config: the user's ssh config.
        fleet: the boxes that are there already.
        wanted: the names to take; none: every name.
        skip: a folder whose files are not the user's own.

    Raises:
        UsageError: a name of ``wanted`` is not in the config.
    """
    lines = list(read(config, skip=skip))
    blocks = _blocks(lines)
    missing = [name for name in wanted if name not in blocks]
    if missing:
        raise UsageError(f"{config} does not name {missing[0]!r}")
    left = list(_unnamed(lines)) if not wanted else []
    boxes: list[Box] = []
    known = {**{box.name: box for box in fleet.boxes}, **dict.fromkeys(blocks)}
    for name in wanted or blocks:
        heading, own = blocks[name]
        if fleet.get(name):
            left.append(Left(heading.place, name, "a box of that name is in the inventory"))
            continue
        box, trouble = _box(config, name, own, known)
        trouble = trouble or _impossible(box)
        if trouble:
            left.append(Left(heading.place, name, trouble))
        else:
            boxes.append(box)
    return _with_their_gateways(boxes, left, fleet, blocks)


def variables(box: Box) -> dict[str, object]:
    """What the inventory is to say about an imported box."""
    found: dict[str, object] = {"ansible_host": box.host}
    if box.port != DEFAULT_SSH_PORT:
        found["ansible_port"] = box.port
    options: dict[str, object] = {}
    for key, value in box.ssh_options:
        before = options.get(key)
        many = [*before, value] if isinstance(before, list) else [before, value]
        options[key] = value if before is None else many
    for name, said in (
        ("ansible_user", box.user),
        ("roost_via", box.via),
        ("roost_identity", box.identity),
        ("roost_forwards", [str(forward) for forward in box.forwards]),
        ("roost_ssh_options", options),
    ):
        if said:
            found[name] = said
    return found


def _blocks(lines: Iterable[Line]) -> dict[str, tuple[Line, list[Line]]]:
    """For every name: the line that has it first, and the lines below its headings."""
    found: dict[str, tuple[Line, list[Line]]] = {}
    current: list[str] = []
    for line in lines:
        if line.keyword == "host":
            current = [word for word in line.words if is_literal(word)]
            for name in current:
                found.setdefault(name, (line, []))
        elif line.keyword == "match":
            current = []
        else:
            for name in current:
                found[name][1].append(line)
    return found


def _unnamed(lines: Iterable[Line]) -> Iterator[Left]:
    for line in lines:
        if line.keyword == "match":
            why = "what it says depends on the moment; it stays with your ssh config"
            yield Left(line.place, f"Match {line.value}", why)
        elif line.keyword == "host":
            for word in line.words:
                if not is_literal(word):
                    why = "a pattern; what it says still applies to plain ssh, and to ssh -F"
                    yield Left(line.place, f"Host {word}", why)


def _box(
    config: Path, name: str, own: Sequence[Line], known: Mapping[str, object]
) -> tuple[Box, str]:
    """The box that ssh's own answer describes, and what speaks against taking it."""
    said = _differences(config, name)
    via, trouble = _gateway(said, known)
    user = said.get("user", "")
    if user == _CODE_SERVERS:
        trouble = trouble or "a server for code, not a box"
    if "${" in said.get("identityfile", ""):
        trouble = trouble or "its IdentityFile holds ${"
    # As it stands in the file, with ~, where the block itself says it: a team shares that.
    files = [line.words[0] for line in own if line.keyword == "identityfile" and line.words]
    identity = files[0] if files else said.get("identityfile", "")
    if "%" in identity:
        trouble = trouble or "its IdentityFile holds a % token"
    box = Box(
        name=name,
        host=said.get("hostname", name),
        port=int(said.get("port", DEFAULT_SSH_PORT)),
        user=user,
        via=via,
        identity="" if identity == "none" else identity,
    )
    try:
        forwards = tuple(_forward(line) for line in own if line.keyword in _FORWARDS)
    except UsageError as error:
        return box, trouble or error.what
    options = [(line.keyword, line.value) for line in own if line.keyword not in _SAID]
    options = [(key, value) for key, value in options if key not in _FORWARDS]
    return dataclasses.replace(box, forwards=forwards, ssh_options=tuple(options)), trouble


def _differences(config: Path, name: str) -> dict[str, str]:
    """What the config makes of a host, beyond what ssh does without any config."""
    plain = ssh_probe.settings(Path("/dev/null"), name)
    answer = ssh_probe.settings(config, name)
    return {key: value for key, value in answer.items() if plain.get(key) != value}


def _gateway(said: Mapping[str, str], known: Mapping[str, object]) -> tuple[str, str]:
    jump, command = said.get("proxyjump", ""), said.get("proxycommand", "")
    if command:
        match = _JUMP_COMMAND.fullmatch(command)
        if not match:
            return "", f"its ProxyCommand is no jump through a host: {command}"
        jump = match[1] or match[2]
    if not jump or jump == "none":
        return "", ""
    if jump not in known:
        return "", f"it jumps through {jump}, which is no host of its own here"
    return jump, ""


def _forward(line: Line) -> Forward:
    kind = _FORWARDS[line.keyword]
    spec = ":".join(line.words[:2])
    return Forward.parse(spec if kind is ForwardKind.LOCAL else f"{kind.value}:{spec}")


def _impossible(box: Box) -> str:
    try:
        render(Fleet(boxes=(dataclasses.replace(box, via=""),)), Settings(Path("/known_hosts")))
    except InventoryError as error:
        return error.what
    return ""


def _with_their_gateways(
    boxes: list[Box],
    left: list[Left],
    fleet: Fleet,
    blocks: Mapping[str, tuple[Line, list[Line]]],
) -> Import:
    """Drop boxes whose gateway is not taken, until nothing more has to go."""
    while True:
        there = {box.name for box in (*boxes, *fleet.boxes)}
        stranded = [box for box in boxes if box.via and box.via not in there]
        if not stranded:
            return Import(tuple(boxes), tuple(left))
        for box in stranded:
            why = f"its gateway {box.via} is not taken"
            left.append(Left(blocks[box.name][0].place, box.name, why))
        boxes = [box for box in boxes if box not in stranded]
