"""``roost init``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from roost.errors import ExitCode

if TYPE_CHECKING:
    from roost.cli.context import Context


def register(
    sub: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the verbs of this group."""
    parser = sub.add_parser(
        "init",
        parents=[common],
        help="start a workspace: an ordinary Ansible project, ready for git",
        description="Start a workspace. Files that are there already are left as they are.",
    )
    parser.add_argument("dir", nargs="?", default=".", metavar="DIR", help="default: this folder")
    parser.set_defaults(handler=init)


def init(ctx: Context, args: argparse.Namespace) -> int:
    """Write the files of a workspace that are missing, and name them."""
    from roost import workspace

    root = ctx.cwd / Path(args.dir).expanduser()
    written = workspace.init(root)
    for path in written:
        ctx.out.line(str(path.relative_to(root)))
    where = ctx.paths.display(root)
    if written:
        ctx.out.note(f"{where} is a workspace now. Next: roost add NAME USER@HOST")
    else:
        ctx.out.note(f"{where} is a workspace already; nothing was changed")
    return ExitCode.OK
