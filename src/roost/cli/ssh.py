"""``roost ssh``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from roost.errors import ExitCode

if TYPE_CHECKING:
    from roost.cli.context import Context


def register(
    sub: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the verbs of this group."""
    parser = sub.add_parser(
        "ssh",
        parents=[common],
        help="plain ssh to a box, through the generated config",
        usage="roost ssh [-h] [-w DIR] BOX [-- [SSH-OPTION...] [CMD...]]",
        description="Become ssh, with the config that is rendered from the inventory. What "
        "follows -- is ssh's: options first, then the command, as the login shell reads it.",
    )
    parser.add_argument("box", metavar="BOX", help="a box of the inventory")
    parser.add_argument(
        "words", nargs="*", metavar="CMD", default=[], help="a command to run there"
    )
    parser.set_defaults(handler=ssh)


def ssh(ctx: Context, args: argparse.Namespace) -> int:
    """Replace this process by ssh."""
    from roost import process
    from roost import ssh as reach

    fleet = ctx.fleet()
    name = args.box if fleet.get(args.box.removesuffix("-tunnel")) else fleet.box(args.box).name
    config = reach.ensure_config(ctx.workspace().root, fleet, ctx.paths)
    # ssh takes options after the host too, up to the first word of the command.
    process.replace(reach.command(config, name, *args.words), env=ctx.environ)
    return ExitCode.FAILED  # pragma: no cover - replace does not return
