"""``roost ssh-config import``: what the plan says, written to the inventory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roost import files, known_hosts, ssh, ssh_import
from roost.cli import hosts
from roost.errors import ExitCode
from roost.inventory_edit import add_host, hosts_file
from roost.model import Box
from roost.ssh_config import host_key_name

if TYPE_CHECKING:
    import argparse

    from roost.cli.context import Context
    from roost.ssh_include import UserConfig


def run(ctx: Context, args: argparse.Namespace, user: UserConfig) -> int:
    """Show or write the boxes, their pinned keys with them, and name what is left."""
    plan = ssh_import.plan(user.config, ctx.fleet(), args.names, skip=user.folder)
    path = hosts_file(ctx.workspace().inventory)
    with files.locked(ctx.workspace().generated / "lock"):
        before = after = hosts.read_inventory(path)
        for box in plan.boxes:
            after = add_host(after, box.name, ssh_import.variables(box))
        lines = hosts.diff(before, after, path)
        without = [] if args.dry_run else [b.name for b in plan.boxes if not _pin(ctx, user, b)]
        if not args.dry_run and plan.boxes:
            files.replace(path, after.encode(), mode=0o644)
    if not args.dry_run and plan.boxes:
        ssh.ensure_config(ctx.workspace().root, hosts.reload(ctx), ctx.paths)
    if args.json:
        ctx.out.json(
            {
                "boxes": [{"name": b.name, **ssh_import.variables(b)} for b in plan.boxes],
                "left": [vars(item) for item in plan.left],
                "without_host_key": without,
                "diff": lines,
            }
        )
        return ExitCode.OK
    if args.dry_run:
        ctx.out.line("\n".join(lines))
    for item in plan.left:
        ctx.out.note(f"left: {item.what} ({item.place}): {item.why}")
    verb = "would be" if args.dry_run else "are"
    ctx.out.note(f"{len(plan.boxes)} boxes {verb} in the inventory; {user.config} is as it was")
    for name in without:
        ctx.out.note(f"no host key is known for {name}; see and pin it: roost add {name}")
    return ExitCode.OK


def _pin(ctx: Context, user: UserConfig, box: Box) -> bool:
    """Take over the host keys that the user's own ssh trusts already."""
    own = user.config.parent / "known_hosts"
    port = "" if box.port == 22 else box.port
    name = f"[{box.host}]:{port}" if port else box.host
    trusted = known_hosts.pinned(own, name.lower())
    if trusted:
        pins = ctx.workspace().known_hosts
        known_hosts.pin(pins, host_key_name(box), trusted, hashed=known_hosts.is_hashed(own))
    return bool(trusted)
