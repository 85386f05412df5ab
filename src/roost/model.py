"""What the inventory says, as values: Fleet, Box, Person, Forward."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from roost.errors import InventoryError, UsageError

DEFAULT_SSH_PORT = 22


class ForwardKind(enum.StrEnum):
    """The three kinds of ssh(1): ``-L``, ``-R`` and ``-D``."""

    LOCAL = "L"
    REMOTE = "R"
    DYNAMIC = "D"


@dataclass(frozen=True)
class Forward:
    """One port or socket forward, written as ssh(1) writes it.

    Attributes:
        kind: which way it goes.
        listen: ``PORT``, ``ADDRESS:PORT`` or an absolute socket path.
        target: ``HOST:PORT`` or an absolute socket path; empty for a dynamic forward.
    """

    kind: ForwardKind
    listen: str
    target: str = ""

    @classmethod
    def parse(cls, spec: str) -> Forward:
        """Read ``8888:localhost:8888``, ``R:52698:localhost:52698``, ``D:8157`` or with sockets.

        Raises:
            UsageError: the text is none of these.
        """
        kind, rest = ForwardKind.LOCAL, spec.strip()
        if rest[:2] in {"L:", "R:", "D:"}:
            kind, rest = ForwardKind(rest[0]), rest[2:]
        parts = _split_colons(rest)
        if kind is ForwardKind.DYNAMIC:
            if 1 <= len(parts) <= 2 and parts[-1].isdigit():
                return cls(kind, ":".join(parts))
        else:
            listen, target = _listen_and_target(parts)
            if listen and target:
                return cls(kind, listen, target)
        raise UsageError(
            f"the forward {spec!r} is not understood",
            fix="write it as ssh does: 8888:localhost:8888, R:52698:localhost:52698, D:8157, "
            "or with a socket: 8888:/run/app.sock",
        )

    def __str__(self) -> str:
        prefix = "" if self.kind is ForwardKind.LOCAL else f"{self.kind.value}:"
        return f"{prefix}{self.listen}" + (f":{self.target}" if self.target else "")


def _split_colons(text: str) -> list[str]:
    """Split at colons, but not inside the brackets of an IPv6 address."""
    return [p for p in re.findall(r"\[[^\]]*\]|[^:]+", text) if p]


def _listen_and_target(parts: list[str]) -> tuple[str, str]:
    def address(words: list[str]) -> str:
        if len(words) == 1 and (words[0].startswith("/") or words[0].isdigit()):
            return words[0]
        if len(words) == 2 and words[1].isdigit():
            return ":".join(words)
        return ""

    # The target is HOST:PORT unless it is a socket; what stands before it is the listening side.
    split = len(parts) - (1 if parts and parts[-1].startswith("/") else 2)
    if split < 1:
        return "", ""
    target = address(parts[split:])
    return address(parts[:split]), "" if target.isdigit() else target


@dataclass(frozen=True)
class Box:
    """One remote machine, as the inventory describes it.

    Attributes:
        name: its name in the inventory, and for ``ssh NAME``.
        host: the address or DNS name that ssh connects to.
        port: its ssh port.
        user: the user to log in as; empty for ssh's own default.
        via: the name of the gateway to jump through; empty for none.
        identity: the private key file, as written (``~`` is kept: a team shares it).
        forwards: what its tunnel carries.
        door: whether its tunnels keep other users of this machine from their ports.
        ssh_options: further ssh_config(5) options, in order; a value may be a list.
        groups: every group that it is in, by name, without ``all``.
        vars: its inventory variables, not templated.
    """

    name: str
    host: str
    port: int = DEFAULT_SSH_PORT
    user: str = ""
    via: str = ""
    identity: str = ""
    forwards: tuple[Forward, ...] = ()
    door: bool = True
    ssh_options: tuple[tuple[str, str], ...] = ()
    groups: tuple[str, ...] = ()
    vars: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Person:
    """Somebody of the team, as ``people_list`` names them."""

    name: str
    full_name: str = ""
    boxes: tuple[str, ...] = ()
    sudo: str = "no"
    until: str = ""
    absent: bool = False


@dataclass(frozen=True)
class Fleet:
    """Every box and every person of one workspace."""

    boxes: tuple[Box, ...] = ()
    people: tuple[Person, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __iter__(self) -> Any:
        return iter(self.boxes)

    def get(self, name: str) -> Box | None:
        """The box called ``name``, or None."""
        return next((box for box in self.boxes if box.name == name), None)

    def box(self, name: str) -> Box:
        """The box called ``name``.

        Raises:
            InventoryError: there is none; the nearest name is offered.
        """
        found = self.get(name)
        if found is None:
            raise _no_such(name, [b.name for b in self.boxes])
        return found

    def select(self, names: Iterable[str]) -> tuple[Box, ...]:
        """The boxes that are called, or are in a group called, one of ``names``.

        No names: every box. The order is the inventory's, and no box comes twice.

        Raises:
            InventoryError: a name is neither a box nor a group.
        """
        wanted: set[str] = set()
        listed = list(names)
        for name in listed:
            if name in self.groups:
                wanted.update(self.groups[name])
            elif self.get(name):
                wanted.add(name)
            elif name != "all":
                raise _no_such(name, [b.name for b in self.boxes] + list(self.groups))
        everything = not listed or "all" in listed
        return tuple(b for b in self.boxes if everything or b.name in wanted)

    def jumps(self, box: Box) -> tuple[Box, ...]:
        """The gateways on the way to ``box``, the one nearest to us first.

        Raises:
            InventoryError: a gateway is not in the inventory, or the chain leads in a circle.
        """
        chain: list[Box] = []
        at = box
        while at.via:
            gateway = self.get(at.via)
            if gateway is None:
                raise InventoryError(
                    f"{at.name} is reached through {at.via!r}, which is not in the inventory",
                    fix=f"roost add {at.via} USER@HOST",
                )
            if gateway is box or gateway in chain:
                ring = " -> ".join([box.name, *(b.name for b in chain), gateway.name])
                raise InventoryError(
                    f"the gateways lead in a circle: {ring}",
                    fix=f"correct roost_via of {at.name} in the inventory",
                )
            chain.append(gateway)
            at = gateway
        return tuple(reversed(chain))


def _no_such(name: str, known: list[str]) -> InventoryError:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else None
    if not known:
        hint = "the inventory is empty; add a box: roost add NAME USER@HOST"
    return InventoryError(
        f"no box or group is called {name!r}",
        why=f"the inventory has: {', '.join(sorted(known))}" if known else None,
        fix=hint,
    )
