"""``roost add`` and ``roost remove``."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import TYPE_CHECKING

from roost.errors import ExitCode, InventoryError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from roost.cli.context import Context, Verbs
    from roost.model import Box, Fleet


def register(sub: Verbs, common: argparse.ArgumentParser) -> None:
    """Add the verbs of this group."""
    shared = argparse.ArgumentParser(add_help=False, parents=[common])
    shared.add_argument("--dry-run", action="store_true", help="show what would be done")
    shared.add_argument("--json", action="store_true", help="as JSON")
    shared.add_argument("name", metavar="NAME", help="what the box is called, also for ssh NAME")

    add = sub.add_parser(
        "add",
        parents=[shared],
        help="a box: key, host key, inventory, ssh config",
        description="Make a box reachable by its name. Its host key is shown and pinned, your "
        "public key is installed on it (ssh asks for the password once), and it is written to "
        "the inventory. For a box that is in the inventory already, what is missing is done.",
    )
    add.add_argument("target", nargs="?", metavar="[USER@]HOST[:PORT]", help="where it is")
    add.add_argument("--via", metavar="GATEWAY", help="the box to jump through")
    add.add_argument("--group", action="append", default=[], metavar="G", help="inventory group")
    add.add_argument("--identity", metavar="FILE", help="the key to use (default: yours, or new)")
    add.add_argument("--fingerprint", metavar="SHA256:…", help="the host key that it must have")
    add.add_argument(
        "--renew-host-key", action="store_true", help="it was rebuilt: pin its new host key"
    )
    add.add_argument("--key-installed", action="store_true", help="your key is on the box already")
    add.set_defaults(handler=add_handler)
    _register_remove(sub, shared)


def _register_remove(sub: Verbs, shared: argparse.ArgumentParser) -> None:
    parser = sub.add_parser(
        "remove",
        parents=[shared],
        help="take a box out of the inventory and the ssh config",
        description="The reverse of add, on this side: tunnels, inventory, ssh config and pinned "
        "host key. The box itself is left as it is, unless --purge or --take-key is given.",
    )
    parser.add_argument("--purge", action="store_true", help="first undo the roles on the box")
    parser.add_argument(
        "-K",
        "--ask-become-pass",
        action="store_true",
        help="ask for the password that sudo wants on the box, for --purge",
    )
    parser.add_argument(
        "--take-key",
        action="store_true",
        help="take your public key out of authorized_keys on the box; you may need another way in",
    )
    parser.set_defaults(handler=remove_handler)


def add_handler(ctx: Context, args: argparse.Namespace) -> int:
    """Plan the box, then show the plan or carry it out."""
    from roost.cli import enrol

    fleet = ctx.fleet()
    box = wanted_box(fleet, args)
    plan = enrol.plan(ctx, fleet, box, args)
    if args.dry_run:
        if args.json:
            ctx.out.json(plan.as_json())
        else:
            ctx.out.line("\n".join([*plan.steps, "", *plan.diff]).rstrip())
        return ExitCode.OK
    done = enrol.carry_out(ctx, plan, args)
    if args.json:
        ctx.out.json(done)
    ctx.out.note(f"{box.name} is in. Next: roost ssh {box.name}, or roost up {box.name}")
    if not args.json:
        enrol.offer_install(ctx, box.name)
    return ExitCode.OK


def remove_handler(ctx: Context, args: argparse.Namespace) -> int:
    """Take a box out of the inventory, the pins and the ssh config."""
    from roost.cli import leaving

    return leaving.run(ctx, args)


def wanted_box(fleet: Fleet, args: argparse.Namespace) -> Box:
    """The box that the command line describes; one that is there may be named alone.

    Raises:
        UsageError: it says something else than the inventory, or not enough.
    """
    from roost.model import Box

    there = fleet.get(args.name)
    if args.via:
        fleet.box(args.via)
    if args.target is None:
        if there is None:
            raise UsageError(f"where is {args.name}?", fix=f"roost add {args.name} USER@HOST")
        return there
    user, host, port = parse_target(args.target)
    if there is None:
        return Box(name=args.name, host=host, port=port, user=user, via=args.via or "")
    if (host, port, user or there.user, args.via or there.via) != (
        there.host,
        there.port,
        there.user,
        there.via,
    ):
        via = f" through {there.via}" if there.via else ""
        raise UsageError(
            f"{args.name} is in the inventory already: {there.user or 'you'}@{there.host} "
            f"port {there.port}{via}",
            fix=f"change it there, or begin anew: roost remove {args.name}",
        )
    return there


def parse_target(text: str) -> tuple[str, str, int]:
    """``[USER@]HOST[:PORT]`` as user (may be empty), host and port.

    Raises:
        UsageError: it is not that.
    """
    user, _, place = text.rpartition("@")
    found = re.fullmatch(r"\[(?P<six>[^\]]+)\](?::(?P<p6>\d+))?|(?P<host>[^:]+)(?::(?P<p>\d+))?|"
                         r"(?P<bare>[0-9a-fA-F:]*:[0-9a-fA-F:.%\w]*)", place)  # fmt: skip
    if not found or (not user and text.startswith("@")):
        raise UsageError(
            f"{text!r} is no [USER@]HOST[:PORT]", fix="for instance me@203.0.113.7:2222"
        )
    port = int(found["p6"] or found["p"] or 22)
    if not 0 < port < 65536:
        raise UsageError(f"{port} is no port", why="a port is a number from 1 to 65535")
    return user, found["six"] or found["host"] or found["bare"], port


def read_inventory(path: Path) -> str:
    """The inventory file as text; empty where it is missing.

    Raises:
        InventoryError: it cannot be read, or is a program.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise InventoryError(f"{path} cannot be edited: {error}") from error


def reload(ctx: Context) -> Fleet:
    """The fleet as Ansible reads it after an edit."""
    from roost import inventory

    return inventory.load(ctx.workspace(), paths=ctx.paths, environ=ctx.environ)


def diff(before: str, after: str, path: Path) -> list[str]:
    """The edit of one file as lines with ``-`` and ``+``."""
    old, new = before.splitlines(), after.splitlines()
    return list(difflib.unified_diff(old, new, str(path), str(path), lineterm="", n=1))
