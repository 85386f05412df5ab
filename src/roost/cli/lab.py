"""``roost lab``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from roost.cli.boxes import remote
from roost.errors import ExitCode, RoostError

if TYPE_CHECKING:
    from roost.cli.context import Context, Verbs


def register(sub: Verbs, common: argparse.ArgumentParser) -> None:
    """Add the verbs of this group."""
    parser = sub.add_parser(
        "lab",
        parents=[common],
        help="JupyterLab in the browser, through a tunnel that survives",
        description="Find or start your JupyterLab on a box, open a tunnel to it that stays, and "
        "open the browser. The token is in no command line, no log and no shell history.",
    )
    parser.add_argument("box", metavar="BOX", help="a box of the inventory")
    parser.add_argument(
        "--port",
        type=int,
        metavar="PORT",
        help="the port on this side (default: the last one used for this box, else from 8888 on)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--no-browser", action="store_true", help="open the tunnel alone")
    how.add_argument(
        "--print-url",
        action="store_true",
        help="print the address with its token, a secret, for VS Code and other clients",
    )
    parser.set_defaults(handler=lab)


def lab(ctx: Context, args: argparse.Namespace) -> int:
    """Connect, and open the browser."""
    from roost import browser
    from roost import lab as labs

    way = remote(ctx, args.box)
    found = labs.connect(
        way.box,
        way.config,
        paths=ctx.paths,
        environ=ctx.environ,
        fleet=way.fleet,
        port=args.port,
    )
    if found.note:
        ctx.out.note(found.note)
    if args.print_url:
        ctx.out.line(found.url_with_token)
        return ExitCode.OK
    if args.no_browser or browser.command(ctx.environ) is None:
        ctx.out.line(found.url)
        ctx.out.note(f"its token: roost lab {args.box} --print-url")
        return ExitCode.OK
    try:
        browser.open_secret(found.url_with_token, ctx.environ)
    except RoostError as error:
        ctx.out.error(error)
        ctx.out.note(f"the tunnel is open all the same: {found.url}")
        return ExitCode.FAILED
    ctx.out.line(found.url)
    ctx.out.note(f"open until: roost tunnel close {args.box}")
    return ExitCode.OK
