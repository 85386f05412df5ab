"""How ``roost remove`` goes about it: the box first, as long as it is known, then this side."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roost import files, known_hosts, ssh
from roost.cli import hosts
from roost.errors import ExitCode, RoostError, UsageError
from roost.inventory_edit import hosts_file, remove_host
from roost.report import Reporter
from roost.ssh_config import host_key_name
from roost.tunnels import Tunnels

if TYPE_CHECKING:
    from roost.cli.context import Context
    from roost.keys import Identity
    from roost.model import Box, Fleet


@dataclasses.dataclass(frozen=True)
class Plan:
    """What ``remove`` is about to do.

    Attributes:
        box: the box.
        fleet: every box, this one included.
        purge: undo the roles on the box.
        key: the public key to take off the box; None: leave it.
        ask_become_pass: ask for the password that sudo wants there.
        shared_pin: another box is known by the same name and port: the pinned key stays.
        steps: the plan in words.
        diff: the edit of the inventory.
    """

    box: Box
    fleet: Fleet
    purge: bool
    key: Identity | None
    shared_pin: bool
    ask_become_pass: bool = False
    steps: tuple[str, ...] = ()
    diff: tuple[str, ...] = ()


def run(ctx: Context, args: argparse.Namespace) -> int:
    """Show the plan, or carry it out."""
    plan = make(ctx, args)
    told: dict[str, Any] = {"name": plan.box.name, "removed": not args.dry_run}
    if not args.dry_run:
        told |= carry_out(ctx, plan)
    if args.json:
        ctx.out.json({**told, "steps": plan.steps, "diff": plan.diff})
    elif args.dry_run:
        ctx.out.line("\n".join([*plan.steps, "", *plan.diff]).rstrip())
    else:
        _close(ctx, plan)
    return ExitCode.OK


def make(ctx: Context, args: argparse.Namespace) -> Plan:
    """Everything that can be known, and refused, before anything is touched.

    Raises:
        InventoryError: there is no such box, or the inventory cannot be edited.
        UsageError: other boxes are reached through it, or there is no key to take away.
    """
    fleet = ctx.fleet()
    box = fleet.box(args.name)
    behind = [other.name for other in fleet.boxes if other.via == box.name]
    if behind:
        raise UsageError(
            f"{', '.join(behind)} would be cut off: reached through {box.name}",
            fix=f"roost remove {behind[0]}",
        )
    path = hosts_file(ctx.workspace().inventory)
    before = hosts.read_inventory(path)
    pin = host_key_name(box)
    plan = Plan(
        box=box,
        fleet=fleet,
        purge=args.purge,
        ask_become_pass=args.ask_become_pass,
        key=_key(ctx, box) if args.take_key else None,
        shared_pin=any(host_key_name(o) == pin for o in fleet.boxes if o is not box),
        diff=tuple(hosts.diff(before, remove_host(before, box.name), path)),
    )
    return dataclasses.replace(plan, steps=tuple(_steps(ctx, plan)))


def carry_out(ctx: Context, plan: Plan) -> dict[str, Any]:
    """Do what the plan says; where the box's part fails, this side stays as it is.

    Raises:
        ProvisionError: the roles could not be undone.
        UnreachableError: the box does not answer, or does not let us in.
        RoostError: something cannot be written.
    """
    box, workspace = plan.box, ctx.workspace()
    config = ssh.ensure_config(workspace.root, plan.fleet, ctx.paths)
    taken = False
    try:
        if plan.purge:
            from roost.cli.up import carry_out, conclude

            # Its summary is progress here; what this command has to say is something else.
            watched = ctx.but(out=Reporter(ctx.out.stderr, ctx.out.stderr))
            outcome = carry_out(
                watched, [box.name], playbook="undo", ask_become_pass=plan.ask_become_pass
            )
            conclude(watched, outcome, advise=False)
        if plan.key:
            from roost import keys

            taken = keys.take_away(config, box, plan.key.public, plan.fleet)
    except RoostError:
        ctx.out.note(f"{box.name} is still in; on this side alone: roost remove {box.name}")
        raise
    closed = Tunnels(ctx.paths, ctx.environ).forget(config, box.name)
    ssh.disconnect(config, box.name)
    path = hosts_file(workspace.inventory)
    with files.locked(workspace.generated / "lock"):
        text = remove_host(hosts.read_inventory(path), box.name)
        files.replace(path, text.encode(), mode=0o644)
        if not plan.shared_pin:
            known_hosts.unpin(workspace.known_hosts, host_key_name(box))
    ssh.ensure_config(workspace.root, hosts.reload(ctx), ctx.paths)
    return {
        "purged": plan.purge,
        "key_taken": taken,
        "closed": [forward.spec for status in closed for forward in status.forwards],
        "left": [str(file) for file in _left(ctx, box.name)],
    }


def _steps(ctx: Context, plan: Plan) -> list[str]:
    name = plan.box.name
    pins = ctx.paths.display(ctx.workspace().known_hosts)
    return [
        *([f"undo the roles on {name}"] if plan.purge else []),
        *([f"take {plan.key.file or 'your key'} off {name}"] if plan.key else []),
        f"close every tunnel to {name}, its shared connection too; forget its local ports",
        f"take {name} out of the inventory and the ssh config",
        f"leave its host key in {pins}: another box has it, too"
        if plan.shared_pin
        else f"take its host key out of {pins}",
    ]


def _close(ctx: Context, plan: Plan) -> None:
    undone = "its roles are undone" if plan.purge else "the box itself is as it was"
    key = "your key is off it" if plan.key else "your key stays on it"
    ctx.out.note(f"{plan.box.name} is out; {undone}, {key}")
    for left in _left(ctx, plan.box.name):
        ctx.out.note(f"its variables are left: {ctx.paths.display(left)}")


def _left(ctx: Context, name: str) -> list[Path]:
    folder = ctx.workspace().inventory / "host_vars"
    wanted = (name, f"{name}.yml", f"{name}.yaml", f"{name}.json")
    return [folder / one for one in wanted if (folder / one).exists()]


def _key(ctx: Context, box: Box) -> Identity:
    from roost import keys

    found = keys.choose(ctx.paths.home / ".ssh", ctx.environ, box.identity or None)
    if found is None:
        raise UsageError(
            f"there is no key of yours to take off {box.name}",
            fix=f"roost remove {box.name} without --take-key",
        )
    return found
