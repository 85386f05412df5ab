"""``roost code``."""

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
        "code",
        parents=[common],
        help="open the editor on a box (VS Code, Cursor, VSCodium)",
        description="Open a folder or a file of a box in an editor with Remote-SSH.",
    )
    parser.add_argument("box", metavar="BOX", help="a box of the inventory")
    parser.add_argument(
        "path", metavar="PATH", nargs="?", default="", help="absolute, or below the home there"
    )
    parser.add_argument(
        "--editor", metavar="COMMAND", help="code, cursor, codium, … (default: $ROOST_EDITOR)"
    )
    parser.set_defaults(handler=code)


def code(ctx: Context, args: argparse.Namespace) -> int:
    """Say what would keep the editor from the box, or start it there."""
    from roost import editor, process, ssh
    from roost.cli.boxes import remote
    from roost.errors import RoostError

    words = editor.choose(args.editor, ctx.environ)
    way = remote(ctx, args.box)
    findings = editor.findings(words, way.box.name, way.box.host)
    if findings:
        first = findings[0]
        raise RoostError(first.what, fix="; then: ".join(f.fix for f in findings))
    # The extension opens absolute paths alone; this is also the first contact with the box.
    script = 'cd && readlink -m -- "${1:-.}"'
    path = ssh.run(way.config, way.box, ["sh", "-c", script, "sh", args.path], fleet=way.fleet)
    argv = editor.command(words, way.box.name, path.stdout.rstrip("\n"))
    ctx.out.note(process.display(argv))
    done = process.run(argv, env=ctx.environ, timeout=120)
    if done.stderr.strip():
        ctx.out.note(done.stderr.strip())
    return ExitCode.OK
