"""``roost sandbox up``, ``list`` and ``down``."""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING

from roost.cli.boxes import with_verbs
from roost.errors import ExitCode

if TYPE_CHECKING:
    from roost.cli.context import Context, Verbs
    from roost.sandbox import Sandbox


def register(sub: Verbs, common: argparse.ArgumentParser) -> None:
    """Add the verbs of this group."""
    text = "throwaway boxes in containers, for trying things out"
    verbs = with_verbs(sub, common, "sandbox", text)
    which = argparse.ArgumentParser(add_help=False, parents=[common])
    which.add_argument(
        "--sandbox", metavar="SANDBOX", default="default", help="boxes that belong together"
    )

    up = verbs.add_parser(
        "up",
        parents=[which],
        help="make or start boxes",
        description="Make or start boxes, and print the folder of the workspace that has them "
        "in its inventory.",
    )
    up.add_argument("names", nargs="*", metavar="NAME", help="default: all there are, or one")
    up.add_argument(
        "--os",
        metavar="OS",
        help="what new boxes run: debian:12, debian:13, ubuntu:22.04, ubuntu:24.04 or "
        "ubuntu:26.04 (default: ubuntu:24.04 where the engine can pull it, else a Debian)",
    )
    up.add_argument(
        "--group", action="append", default=[], metavar="G", help="inventory group of new boxes"
    )
    up.set_defaults(handler=up_handler)

    listing = verbs.add_parser("list", parents=[common], help="the boxes of all sandboxes")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(handler=list_handler)

    down = verbs.add_parser("down", parents=[which], help="remove boxes")
    down.add_argument("names", nargs="*", metavar="NAME", help="default: all of the sandbox")
    down.add_argument(
        "--purge", action="store_true", help="remove the images, too, that roost built"
    )
    down.set_defaults(handler=down_handler)


def _sandbox(ctx: Context, args: argparse.Namespace) -> Sandbox:
    from roost.sandbox import Sandbox

    return Sandbox(ctx.paths, args.sandbox, environ=ctx.environ, note=ctx.out.note)


def up_handler(ctx: Context, args: argparse.Namespace) -> int:
    """Make or start boxes; the workspace's folder is the one line of data."""
    sandbox = _sandbox(ctx, args)
    # A kill, or a terminal that is closed, leaves nothing behind either.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, signal.default_int_handler)
    for box in sandbox.up(args.names, os=args.os, groups=args.group):
        ctx.out.note(f"{box.name}: {box.release} at {box.user}@{box.host} port {box.port}")
    ctx.out.note(f"Next: roost -w {ctx.paths.display(sandbox.root)} up")
    ctx.out.line(str(sandbox.root))
    return ExitCode.OK


def list_handler(ctx: Context, args: argparse.Namespace) -> int:
    """List the boxes of all sandboxes."""
    from roost.sandbox.boxes import listing
    from roost.sandbox.engine import find_engine

    rows = [
        {
            "name": box.name,
            "state": "running" if box.running else "stopped",
            "os": box.release,
            "host": box.host,
            "port": box.port,
            "user": box.user,
            "workspace": box.folder,
        }
        for box in listing(find_engine(ctx.environ))
    ]
    if args.json:
        ctx.out.json(rows)
    elif rows:
        ctx.out.table(tuple(rows[0]), [tuple(row.values()) for row in rows])
    else:
        ctx.out.note("there are no sandbox boxes; make one: roost sandbox up")
    return ExitCode.OK


def down_handler(ctx: Context, args: argparse.Namespace) -> int:
    """Remove boxes, and name what was removed."""
    removed = _sandbox(ctx, args).down(args.names, purge=args.purge)
    for name in removed:
        ctx.out.line(name)
    if not removed:
        ctx.out.note("there is nothing to remove")
    return ExitCode.OK
