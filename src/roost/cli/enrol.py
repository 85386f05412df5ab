"""How ``roost add`` goes about it: look, ask, install the key, and only then write anything."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roost import files, keys, known_hosts, ssh, ssh_probe
from roost.cli import hosts, installed
from roost.errors import RoostError, UsageError
from roost.inventory_edit import add_host, hosts_file, set_variable
from roost.known_hosts import HostKey
from roost.model import DEFAULT_SSH_PORT, Box, Fleet
from roost.ssh_config import Settings, ambiguous_addresses, host_key_name, render
from roost.ssh_failure import HostKeyError

if TYPE_CHECKING:
    import argparse

    from roost.cli.context import Context


@dataclasses.dataclass(frozen=True)
class Plan:
    """What ``add`` is about to do.

    Attributes:
        box: the box, with its identity where that is known.
        fleet: every box, this one included.
        identity: the key; None: it has to be made.
        new: whether the box is not in the inventory yet.
        groups: the groups that it joins.
        variables: what the inventory is to say about it.
        aliased: boxes with the same address, which Ansible must reach by their names.
        steps: the plan in words.
        diff: the edit of the inventory.
    """

    box: Box
    fleet: Fleet
    identity: keys.Identity | None
    new: bool
    groups: tuple[str, ...]
    variables: dict[str, str | int]
    aliased: tuple[str, ...]
    steps: tuple[str, ...] = ()
    diff: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The plan for ``--dry-run --json``."""
        return {"name": self.box.name, "new": self.new, "steps": self.steps, "diff": self.diff}

    def edit(self, text: str) -> str:
        """The inventory file with the box in it."""
        if self.new:
            text = add_host(text, self.box.name, self.variables, self.groups)
        for name in self.aliased:
            text = set_variable(text, name, "ansible_ssh_host", name)
        return text


def plan(ctx: Context, fleet: Fleet, box: Box, args: argparse.Namespace) -> Plan:
    """Everything that can be known, and refused, before anything is touched.

    Raises:
        UsageError: the name means something else already, or there is no usable key.
        InventoryError: the inventory cannot be edited.
    """
    new = fleet.get(box.name) is None
    identity = _identity(ctx, box, args)
    if identity and identity.file and not box.identity:
        box = dataclasses.replace(box, identity=identity.file)
    elif identity is None:
        box = dataclasses.replace(box, identity=_file(ctx, "~/.ssh/id_ed25519"))
    others = tuple(other for other in fleet.boxes if other.name != box.name)
    wanted = dataclasses.replace(fleet, boxes=(*others, box))
    settings = Settings(ctx.workspace().known_hosts, addresses=True)
    render(wanted, settings)
    if new and installed.same_home(ctx):
        from roost.cli.ssh_config import refuse_taken

        refuse_taken(ctx, installed.user_config(ctx), wanted, (box,))
    same = next((g for g in ambiguous_addresses(wanted, settings) if box in g), ())
    made = Plan(
        box=box,
        fleet=wanted,
        identity=identity,
        new=new,
        groups=tuple(args.group) if new else (),
        variables=_variables(box),
        aliased=tuple(other.name for other in same if "ansible_ssh_host" not in other.vars),
    )
    path = hosts_file(ctx.workspace().inventory)
    before = hosts.read_inventory(path)
    lines = tuple(hosts.diff(before, made.edit(before), path))
    return dataclasses.replace(made, steps=_steps(ctx, made, args), diff=lines)


def carry_out(ctx: Context, plan: Plan, args: argparse.Namespace) -> dict[str, Any]:
    """Do what the plan says; the inventory and the pins are written when all else is done.

    Raises:
        UnreachableError: the box does not answer, shows another host key, or refuses us.
        RoostError: something cannot be written.
    """
    box, workspace = plan.box, ctx.workspace()
    identity = plan.identity or _first_key(ctx)
    with _rehearsal(ctx, plan.fleet) as (config, rehearsed):
        pins = _host_keys(ctx, config, rehearsed, plan, args)
        pins.write(rehearsed)
        installed_now = False
        if not keys.accepted(config, box, plan.fleet):
            if args.key_installed:
                raise UsageError(
                    f"{box.name} does not accept {box.identity or 'a key of the agent'}",
                    fix=f"roost add {box.name} … without --key-installed",
                )
            ctx.out.note(f"installing your key on {box.name}")
            keys.install(config, box, identity.public, plan.fleet, ctx.environ)
            installed_now = True
            if not keys.accepted(config, box, plan.fleet):
                raise RoostError(
                    f"{box.name} has the key now, and still refuses it",
                    why="sshd wants a home and a ~/.ssh there that nobody else may write",
                    fix="on the box: chmod go-w ~ ~/.ssh; or see its log: journalctl -u ssh",
                )
        path = hosts_file(workspace.inventory)
        with files.locked(workspace.generated / "lock"):
            pins.write(workspace.known_hosts)
            text = plan.edit(hosts.read_inventory(path))
            files.replace(path, text.encode(), mode=0o644)
    ssh.ensure_config(ctx.workspace().root, hosts.reload(ctx), ctx.paths)
    return {
        "name": box.name,
        "host": box.host,
        "port": box.port,
        "user": box.user,
        "via": box.via,
        "identity": box.identity,
        "host_keys": [{"algorithm": k.algorithm, "fingerprint": k.fingerprint} for k in pins.keys],
        "key_installed": installed_now,
        "inventory": str(path),
    }


def offer_install(ctx: Context, name: str) -> None:
    """Ask whether plain ``ssh NAME`` shall work, where it does not yet."""
    if not installed.same_home(ctx):
        return
    user = installed.user_config(ctx)
    if user.state().effective:
        return
    line = f"{user.line}  (at the top of {ctx.paths.display(user.config)})"
    if not sys.stdin.isatty():
        ctx.out.note(f"for plain ssh {name}, scp and editors: roost ssh-config install")
    elif _yes(ctx, f"add this line, so that plain ssh {name}, scp and editors work?\n  {line}"):
        user.write(
            ctx.workspace().root, ssh.names_text(ctx.workspace().root, hosts.reload(ctx), ctx.paths)
        )
        user.install()


@dataclasses.dataclass(frozen=True)
class Pins:
    """What ``known_hosts`` is to say about one box: its keys, or who vouches for them."""

    name: str
    keys: tuple[HostKey, ...] = ()
    authorities: tuple[str, ...] = ()
    hashed: bool = False

    def write(self, path: Path) -> None:
        """Put it into ``path``."""
        known_hosts.add_authorities(path, self.authorities)
        if self.keys:
            known_hosts.pin(path, self.name, self.keys, hashed=self.hashed)


@contextlib.contextmanager
def _rehearsal(ctx: Context, fleet: Fleet) -> Iterator[tuple[Path, Path]]:
    """An ssh config and a copy of the pins, on which all goes well before anything is kept."""
    with tempfile.TemporaryDirectory(prefix="roost-") as folder:
        config, pins = Path(folder) / "ssh_config", Path(folder) / "known_hosts"
        pins.touch()
        if ctx.workspace().known_hosts.is_file():
            shutil.copyfile(ctx.workspace().known_hosts, pins)
        control = ssh.ensure_control_dir(ctx.paths)
        config.write_text(render(fleet, Settings(pins, control, user_config=True)), "utf-8")
        yield config, pins


def _host_keys(
    ctx: Context, config: Path, rehearsed: Path, plan: Plan, args: argparse.Namespace
) -> Pins:
    """Look at the box's host keys, and come back only when they are known to be right."""
    box, name = plan.box, host_key_name(plan.box)
    own = ctx.paths.home / ".ssh" / "known_hosts"
    trusted = [rehearsed, own, Path("/etc/ssh/ssh_known_hosts")]
    vouching = [line for n in {name, box.host} for line in known_hosts.authorities(trusted, n)]
    if known_hosts.vouched(config, box, vouching):
        ctx.out.note(f"the host key of {box.name} is certified by an authority that you trust")
        return Pins(name, authorities=tuple(vouching))
    shown = known_hosts.scan(config, box, plan.fleet)
    pinned = known_hosts.pinned(rehearsed, name)
    agree = set(pinned) & set(shown)
    if pinned and not agree and not args.renew_host_key:
        raise HostKeyError(
            f"the host key of {box.name} has changed",
            why=f"pinned is {', '.join(map(str, pinned))}, and the box shows "
            f"{', '.join(map(str, shown))}: it was rebuilt, or something answers in its place",
            fix=f"if you know that it was rebuilt: roost add {box.name} --renew-host-key",
        )
    if args.fingerprint:
        known_hosts.check_fingerprint(shown, args.fingerprint)
    elif not agree and set(known_hosts.pinned(own, name)) & set(shown):
        ctx.out.note(f"the host key of {box.name} is known to your ssh already")
    elif not agree:
        _confirm(ctx, box, shown)
    hashed = ssh_probe.settings(config, box.name).get("hashknownhosts") == "yes"
    return Pins(name, tuple(shown), hashed=hashed)


def _confirm(ctx: Context, box: Box, shown: Sequence[HostKey]) -> None:
    ctx.out.note(f"the host keys of {box.name} ({box.host}):")
    for key in shown:
        ctx.out.note(f"  {key}")
    if not sys.stdin.isatty():
        raise UsageError(
            "nobody is there to say whether that is the right host key",
            fix=f"compare it, and say so: roost add {box.name} … --fingerprint "
            f"{shown[0].fingerprint}",
        )
    if not _yes(ctx, "is it the right box? (compare with what its console or provider shows)"):
        raise UsageError("the host key was not confirmed; the box was not added")


def _yes(ctx: Context, question: str) -> bool:
    ctx.out.note(f"{question} [y/N]")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _identity(ctx: Context, box: Box, args: argparse.Namespace) -> keys.Identity | None:
    folder = ctx.paths.home / ".ssh"
    found = keys.choose(folder, ctx.environ, args.identity or box.identity or None)
    return dataclasses.replace(found, file=_file(ctx, found.file)) if found else None


def _file(ctx: Context, name: str) -> str:
    """A key file as ssh is to read it, whose ``~`` is not always $HOME."""
    if name.startswith("~/") and not installed.same_home(ctx):
        return str(ctx.paths.home / name[2:])
    return name


def _variables(box: Box) -> dict[str, str | int]:
    found: dict[str, str | int] = {"ansible_host": box.host}
    if box.port != DEFAULT_SSH_PORT:
        found["ansible_port"] = box.port
    for key, value in (
        ("ansible_user", box.user),
        ("roost_via", box.via),
        ("roost_identity", box.identity),
    ):
        if value:
            found[key] = value
    return found


def _steps(ctx: Context, plan: Plan, args: argparse.Namespace) -> tuple[str, ...]:
    box = plan.box
    through = "".join(f" through {hop.name}" for hop in plan.fleet.jumps(box))
    key = plan.identity.file or "the agent's key" if plan.identity else ""
    installing = f"install {key or 'the new key'} on it, unless it accepts it already"
    steps = [
        f"make the key pair {box.identity}" if not plan.identity else f"use {key}",
        f"ask {box.host} port {box.port}{through} for its host keys",
        f"compare them with {args.fingerprint}" if args.fingerprint else "show them, and ask",
        f"pin them in {ctx.paths.display(ctx.workspace().known_hosts)}",
        "see that it accepts the key" if args.key_installed else installing,
    ]
    return tuple(steps)


def _first_key(ctx: Context) -> keys.Identity:
    ctx.out.note("you have no key yet; ssh-keygen makes ~/.ssh/id_ed25519, and locks it:")
    return keys.make(ctx.paths.home / ".ssh", _comment(), ask=sys.stdin.isatty())


def _comment() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"
