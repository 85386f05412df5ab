"""``roost ssh-config show``, ``install``, ``undo`` and ``import``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from roost.cli import installed
from roost.cli.boxes import with_verbs
from roost.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from roost.cli.context import Context, Verbs
    from roost.model import Box, Fleet
    from roost.ssh_include import UserConfig


def register(sub: Verbs, common: argparse.ArgumentParser) -> None:
    """Add the verbs of this group."""
    text = "the boxes in your own ssh config, and out of it again"
    verbs = with_verbs(sub, common, "ssh-config", text)
    shared = argparse.ArgumentParser(add_help=False, parents=[common])
    shared.add_argument("--json", action="store_true", help="as JSON")
    shared.add_argument("--config", metavar="FILE", help="your ssh config (default: ~/.ssh/config)")
    changing = argparse.ArgumentParser(add_help=False, parents=[shared])
    changing.add_argument("--dry-run", action="store_true", help="show the change; make none")

    show = verbs.add_parser("show", parents=[shared], help="what the boxes look like to ssh")
    show.set_defaults(handler=show_handler)
    install = verbs.add_parser(
        "install",
        parents=[changing],
        help="make ssh NAME work everywhere",
        description="Write the boxes to a file of roost's own, and include it by one line at the "
        "top of your ssh config. Every other host is answered as before, or nothing is changed.",
    )
    install.set_defaults(handler=install_handler)
    undo = verbs.add_parser("undo", parents=[changing], help="take the line and the files back")
    undo.set_defaults(handler=undo_handler)
    taking = verbs.add_parser(
        "import",
        parents=[changing],
        help="hosts of your ssh config into the inventory",
        description="Add hosts of your ssh config to the inventory. What cannot be taken is named "
        "with its reason. Your ssh config stays as it is.",
    )
    taking.add_argument("names", nargs="*", metavar="HOST", help="default: every host it names")
    taking.set_defaults(handler=import_handler)


def show_handler(ctx: Context, args: argparse.Namespace) -> int:
    """Print the text that ``install`` writes."""
    from roost import ssh

    text = ssh.names_text(ctx.workspace().root, ctx.fleet(), ctx.paths)
    if not args.json:
        ctx.out.line(text.rstrip("\n"))
        return ExitCode.OK
    user = installed.user_config(ctx, args.config)
    state = user.state()
    ctx.out.json(
        {
            "config": str(state.config),
            "line": state.line,
            "at": state.at,
            "effective": state.effective,
            "file": str(user.file_for(ctx.workspace().root)),
            "installed": user.file_for(ctx.workspace().root) in state.files,
            "hosts": [box.name for box in ctx.fleet().boxes],
            "text": text,
        }
    )
    return ExitCode.OK


def install_handler(ctx: Context, args: argparse.Namespace) -> int:
    """Write the file and the line, or show what would be written."""
    from roost import ssh

    user = installed.user_config(ctx, args.config)
    fleet = ctx.fleet()
    refuse_taken(ctx, user, fleet, fleet.boxes)
    text = ssh.names_text(ctx.workspace().root, fleet, ctx.paths)
    target = user.file_for(ctx.workspace().root)
    old, new = user.planned()
    there = target.read_text("utf-8") if target.is_file() else ""
    lines = [
        *_diff(there, text, str(target)),
        *_diff(
            (old or b"").decode("utf-8", "replace"),
            new.decode("utf-8", "replace"),
            str(user.config),
        ),
    ]
    changed = bool(lines)
    if not args.dry_run:
        changed = user.write(ctx.workspace().root, text)
        changed = user.install() or changed
    elif not args.json:
        ctx.out.line("\n".join(lines))
    if args.json:
        ctx.out.json(
            {
                "changed": changed,
                "file": str(target),
                "config": str(user.config),
                "line": user.line,
                "diff": lines,
            }
        )
    elif not args.dry_run:
        ctx.out.note(
            f"{len(fleet.boxes)} boxes are in {ctx.paths.display(target)}, which "
            f"{ctx.paths.display(user.config)} includes. Take it back: roost ssh-config undo"
        )
    return ExitCode.OK


def undo_handler(ctx: Context, args: argparse.Namespace) -> int:
    """Take back what ``install`` has done."""
    user = installed.user_config(ctx, args.config)
    state = user.state()
    going = [str(f) for f in state.files]
    there = state.at is not None or bool(going)
    changed = there if args.dry_run else user.undo()
    if args.json:
        ctx.out.json({"changed": changed, "config": str(user.config), "files": going})
    elif not changed:
        ctx.out.note("there is nothing of roost's in your ssh config")
    else:
        verb = "would go" if args.dry_run else "are gone"
        ctx.out.note(f"from {ctx.paths.display(user.config)}: {state.line}")
        ctx.out.note("\n".join([*going, f"the line and {len(going)} files {verb}"]))
    return ExitCode.OK


def import_handler(ctx: Context, args: argparse.Namespace) -> int:
    """Add hosts of the user's ssh config to the inventory."""
    from roost.cli.importing import run

    return run(ctx, args, installed.user_config(ctx, args.config))


def refuse_taken(ctx: Context, user: UserConfig, fleet: Fleet, boxes: tuple[Box, ...]) -> None:
    """Stop where a name means another machine to the user's ssh already.

    Raises:
        UsageError: with the file and the line that say so.
    """
    from roost import ssh_probe

    for name, line in user.defined([box.name for box in boxes]):
        box = fleet.box(name)
        known = ssh_probe.settings(user.config, name)
        if known.get("hostname") == box.host.lower() and known.get("port") == str(box.port):
            continue
        raise UsageError(
            f"{line.place} defines {name!r} already, as {known.get('hostname', 'another machine')}",
            why="whichever of the two came first would win",
            fix=f"give the box another name, or remove that block from {line.file}",
        )
    for other, name in user.elsewhere(ctx.workspace().root, [box.name for box in boxes]):
        raise UsageError(
            f"another workspace has a box called {name!r}: {other}",
            why="ssh would take whichever it reads first",
            fix="give one of the boxes another name; or undo: roost ssh-config undo",
        )


def _diff(old: str, new: str, name: str) -> list[str]:
    import difflib

    return list(
        difflib.unified_diff(old.splitlines(), new.splitlines(), name, name, lineterm="", n=1)
    )
