"""The Fleet as ssh_config(5) text: a pure function, with two renderings.

The workspace's own file is used with ``ssh -F`` by roost and by Ansible, which connects to
``ansible_host``; the one for ``~/.ssh`` knows the names alone. Sources of the format:
ssh_config(5) and, for quoting, ``argv_split`` of OpenSSH 8.7 and later.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from roost.errors import InventoryError
from roost.model import DEFAULT_SSH_PORT, Box, Fleet, Forward, ForwardKind

TUNNEL_SUFFIX = "-tunnel"

# ssh appends a dot and 16 characters to the name of a control socket while it makes it, %C is 40
# hexadecimal digits, and a path in sun_path ends with a NUL: 104 bytes on macOS, 108 on Linux.
_SOCKET_PATH_MAX = 104 - 1
_SOCKET_NAME = len("/") + 40 + len(".0123456789abcdef")
CONTROL_DIR_MAX = _SOCKET_PATH_MAX - _SOCKET_NAME

_NAME = re.compile(r"\w[\w.+-]*")
_HOST = re.compile(
    r"[^\s\x00-\x1f\x7f'\"`$\\;&<>|(){}*?!,@/#=-][^\s\x00-\x1f\x7f'\"`$\\;&<>|(){}*?!,@/#=]*"
)
_KEYWORD = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NEEDS_QUOTES = re.compile(r"[\s\"'#\\]")
_STRUCTURE = {"host", "match", "include"}
_FORWARDS = {"localforward", "remoteforward", "dynamicforward"}
_FORWARD_KEYWORD = {
    ForwardKind.LOCAL: "LocalForward",
    ForwardKind.REMOTE: "RemoteForward",
    ForwardKind.DYNAMIC: "DynamicForward",
}
Option = tuple[str, str]


@dataclass(frozen=True)
class Settings:
    """What a rendering needs beside the Fleet.

    Attributes:
        known_hosts: the file with the pinned host keys.
        control_dir: the folder for control sockets, at most ``CONTROL_DIR_MAX`` bytes long;
            None: every ssh makes a connection of its own.
        source: where the Fleet comes from, for the comment at the top.
        addresses: match the boxes' addresses too, for Ansible.
        user_config: end with the user's and the system's own config, which ``ssh -F`` leaves
            out: their agent, keychain and defaults then hold here as they do for plain ``ssh``.
    """

    known_hosts: Path
    control_dir: Path | None = None
    source: str = "an inventory"
    addresses: bool = False
    user_config: bool = False


def render(fleet: Fleet, settings: Settings) -> str:
    """The ssh_config(5) text for every box of ``fleet``.

    Raises:
        InventoryError: a value cannot be said in an ssh config, two boxes would share a name,
            or the gateways lead in a circle.
    """
    _check(fleet)
    blocks = [
        f"# Written by roost from {_CONTROL.sub('?', settings.source)}; made again as it changes."
    ]
    shared: dict[str, list[Box]] = {}
    for box in fleet.boxes:
        shared.setdefault(_bare(box.host), []).append(box)
    for box in fleet.boxes:
        names = [box.name]
        host = _bare(box.host)
        if settings.addresses and host != box.name and len(shared[host]) == 1:
            names.append(host)
        options = [*_own(box), *_target(box), *_common(box, settings), *_multiplexing(settings)]
        blocks.append(_block(names, options))
        if tunnel := list(_tunnel(box)):
            alone = [("ControlMaster", "no"), ("ControlPath", "none")]
            options = [*alone, *_own(box), *_target(box), *_common(box, settings), *tunnel]
            blocks.append(_block([box.name + TUNNEL_SUFFIX], options))
    if settings.addresses:
        blocks += _shared_addresses(shared, settings)
    if settings.user_config:
        blocks.append(
            _block_of(
                "Match all", [("Include", "~/.ssh/config"), ("Include", "/etc/ssh/ssh_config")]
            )
        )
    return "\n\n".join(blocks) + "\n"


def _shared_addresses(shared: dict[str, list[Box]], settings: Settings) -> Iterator[str]:
    """Blocks for addresses that several boxes have, told apart by their ports.

    ssh cannot match on a port, and Ansible says port and user itself: so the block holds what
    they have in common, and there is none where they differ in more than that.
    """
    names = {box.name for boxes in shared.values() for box in boxes}
    for host, boxes in shared.items():
        options = {(*_own(b), *_common(b, settings)) for b in boxes}
        if len(boxes) > 1 and len(options) == 1 and host not in names:
            yield _block([host], [*options.pop(), *_multiplexing(settings)])


def host_key_name(box: Box) -> str:
    """The name that ssh looks the box's host key up by: ``host``, ``[host]:port`` or an alias.

    A bare address behind a gateway means something only there: two private networks may both
    have a 10.0.0.5. Such a box is known by its own name (HostKeyAlias).
    """
    alias = _host_key_alias(box)
    if alias:
        return alias
    host = _bare(box.host).lower()
    return host if box.port == DEFAULT_SSH_PORT else f"[{host}]:{box.port}"


def ambiguous_addresses(fleet: Fleet, settings: Settings) -> list[tuple[Box, ...]]:
    """Boxes that Ansible cannot reach by their address alone.

    They share the address and differ in more than the port: each needs the variable
    ``ansible_ssh_host``, set to its own name.
    """
    shared: dict[str, list[Box]] = {}
    for box in fleet.boxes:
        shared.setdefault(_bare(box.host), []).append(box)
    return [
        tuple(boxes)
        for boxes in shared.values()
        if len({(*_own(b), *_common(b, settings)) for b in boxes}) > 1
    ]


def path_word(path: str | Path) -> str:
    """A path as one argument of a keyword that expands ``~``, ``%`` tokens and ``${}``.

    Raises:
        InventoryError: it holds ``${``, which ssh has no way to take literally.
    """
    return word(_escape_tokens(path))


def _escape_tokens(path: str | Path) -> str:
    text = str(path)
    if "${" in text:
        raise InventoryError(
            f"the path {text!r} holds '${{'", why="ssh has no way to take that literally"
        )
    return text.replace("%", "%%")


def word(text: str) -> str:
    """``text`` as one argument, in double quotes where ssh would split or cut it.

    Raises:
        InventoryError: it holds a control character.
    """
    if _CONTROL.search(text):
        raise InventoryError(
            f"{text!r} holds a control character", why="an ssh config has no way to say it"
        )
    if text and not _NEEDS_QUOTES.search(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _block(names: list[str], options: list[Option]) -> str:
    return _block_of("Host " + " ".join(names), options)


def _block_of(heading: str, options: list[Option]) -> str:
    return "\n".join([heading, *(f"    {key} {value}" for key, value in options)])


def _own(box: Box) -> Iterator[Option]:
    """The box's ``roost_ssh_options``: first, because ssh takes the first value it meets."""
    return ((k, v) for k, v in box.ssh_options if k.lower() not in _FORWARDS)


def _target(box: Box) -> Iterator[Option]:
    yield "HostName", _bare(box.host).replace("%", "%%")
    if box.user:
        yield "User", word(box.user)
    yield "Port", str(box.port)


def _common(box: Box, settings: Settings) -> Iterator[Option]:
    if box.identity:
        yield "IdentityFile", path_word(box.identity)
        yield "IdentitiesOnly", "yes"
    if box.via:
        yield "ProxyJump", box.via
    if alias := _host_key_alias(box):
        yield "HostKeyAlias", alias
    yield "UserKnownHostsFile", path_word(settings.known_hosts)
    yield "StrictHostKeyChecking", "yes"
    yield "ServerAliveInterval", "15"
    yield "ServerAliveCountMax", "4"
    if settings.user_config:
        # A command or a terminal for every host, from the user's Host *, would break ours.
        yield "RemoteCommand", "none"
        yield "RequestTTY", "auto"


def _multiplexing(settings: Settings) -> Iterator[Option]:
    if settings.control_dir is not None:
        yield "ControlMaster", "auto"
        yield "ControlPath", word(_escape_tokens(settings.control_dir) + "/%C")
        yield "ControlPersist", "10m"


def _tunnel(box: Box) -> Iterator[Option]:
    for forward in box.forwards:
        sides = [forward.listen, forward.target] if forward.target else [forward.listen]
        yield _FORWARD_KEYWORD[forward.kind], " ".join(_side(side, forward) for side in sides)
    yield from ((k, v) for k, v in box.ssh_options if k.lower() in _FORWARDS)


def _side(text: str, forward: Forward) -> str:
    # Only a socket path has its tokens expanded, and only the local side's.
    return path_word(text) if text.startswith("/") else word(text)


def _host_key_alias(box: Box) -> str:
    if not box.via:
        return ""
    try:
        ipaddress.ip_address(_bare(box.host))
    except ValueError:
        return ""
    # ssh compares in lower case, and does not fold the alias itself.
    return box.name.lower()


def _bare(host: str) -> str:
    """A host without the brackets that an IPv6 address wears elsewhere."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _check(fleet: Fleet) -> None:
    taken: dict[str, Box] = {}
    for box in fleet.boxes:
        _check_box(box)
        fleet.jumps(box)
        aliases = [box.name] + ([box.name + TUNNEL_SUFFIX] if any(_tunnel(box)) else [])
        for alias in aliases:
            other = taken.setdefault(alias.lower(), box)
            if other is not box:
                raise InventoryError(
                    f"{box.name} and {other.name} would both be called {alias!r}",
                    fix="give one of the boxes another name",
                )


def _check_box(box: Box) -> None:
    if not _NAME.fullmatch(box.name) or box.name.lower() == "none":
        raise InventoryError(
            f"{box.name!r} cannot be the name of a host in an ssh config",
            why="a name starts with a letter or digit and holds letters, digits and . _ + -",
        )
    if not _HOST.fullmatch(_bare(box.host)):
        raise InventoryError(f"ansible_host of {box.name} is no host name or address: {box.host!r}")
    if "%" in box.user or "${" in box.user:
        raise InventoryError(
            f"ansible_user of {box.name} holds % or ${{: {box.user!r}",
            why="some versions of ssh expand them and others do not",
        )
    for key, value in box.ssh_options:
        if not _KEYWORD.fullmatch(key) or key.lower() in _STRUCTURE:
            raise InventoryError(
                f"roost_ssh_options of {box.name}: {key!r} is no option of one host"
            )
        if not value.strip() or _CONTROL.search(value.replace("\t", " ")):
            raise InventoryError(
                f"roost_ssh_options of {box.name}: {key} has no usable value: {value!r}"
            )
