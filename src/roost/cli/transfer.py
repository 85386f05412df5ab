"""``roost push``, ``pull`` and ``sync``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from roost.errors import ExitCode, RoostError, SshError, UnreachableError, UsageError

if TYPE_CHECKING:
    from roost.cli.context import Context
    from roost.transfer import Options, Transfer

SHOWN = 20
LONGEST_PAUSE = 30.0


def register(
    sub: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the verbs of this group."""
    push = _verb(sub, common, "push", "copy files to a box; what broke off goes on")
    push.add_argument("box", metavar="BOX", help="a box of the inventory")
    push.add_argument("sources", metavar="SRC", nargs="+", help="here; DIR/ means its contents")
    push.add_argument("target", metavar="DEST", help="on the box, absolute or below the home")
    push.set_defaults(handler=push_files)

    pull = _verb(sub, common, "pull", "copy files from a box; what broke off goes on")
    pull.add_argument("box", metavar="BOX", help="a box of the inventory")
    pull.add_argument("sources", metavar="SRC", nargs="+", help="on the box; wildcards work")
    pull.add_argument("target", metavar="DEST", help="here")
    pull.set_defaults(handler=pull_files)

    sync = _verb(sub, common, "sync", "make a folder on a box like one here")
    sync.add_argument("box", metavar="BOX", help="a box of the inventory")
    sync.add_argument("source", metavar="SRC", help="a folder here")
    sync.add_argument("target", metavar="DEST", help="a folder on the box; made if need be")
    sync.add_argument("--watch", action="store_true", help="go on: push each change as it comes")
    sync.set_defaults(handler=sync_folder)


def _verb(
    sub: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
    verb: str,
    text: str,
) -> argparse.ArgumentParser:
    parser = sub.add_parser(verb, parents=[common], help=text)
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would happen")
    parser.add_argument("--delete", action="store_true", help="remove what SRC does not have")
    parser.add_argument("-y", "--yes", action="store_true", help="with --delete: do not ask")
    parser.add_argument("--ignore-existing", action="store_true", help="leave what is there")
    parser.add_argument("--gitignore", action="store_true", help="leave out what git ignores")
    parser.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="leave these out"
    )
    parser.add_argument("-z", "--compress", action="store_true", help="for a slow line")
    return parser


def _options(args: argparse.Namespace) -> Options:
    from roost.transfer import Options

    return Options(
        delete=args.delete,
        ignore_existing=args.ignore_existing,
        gitignore=args.gitignore,
        exclude=tuple(args.exclude),
        compress=args.compress,
        progress=sys.stderr.isatty(),
    )


def _transfer(ctx: Context, args: argparse.Namespace, sources: list[str], *, up: bool) -> Transfer:
    from roost.cli.boxes import remote
    from roost.transfer import Transfer

    way = remote(ctx, args.box)
    return Transfer(way.config, way.box, tuple(sources), args.target, up, _options(args), way.fleet)


def push_files(ctx: Context, args: argparse.Namespace) -> int:
    """Copy to a box."""
    return _carry_out(ctx, args, _transfer(ctx, args, args.sources, up=True))


def pull_files(ctx: Context, args: argparse.Namespace) -> int:
    """Copy from a box."""
    return _carry_out(ctx, args, _transfer(ctx, args, args.sources, up=False))


def sync_folder(ctx: Context, args: argparse.Namespace) -> int:
    """Make a folder on the box like one here; with --watch again and again."""
    source = Path(args.source).expanduser()
    if not source.is_dir():
        raise UsageError(f"{args.source} is no folder here")
    transfer = _transfer(ctx, args, [args.source.rstrip("/") + "/"], up=True)
    if not args.watch:
        return _carry_out(ctx, args, transfer, folder=True)
    if args.delete and not args.yes:
        raise UsageError("--watch --delete cannot ask each time", fix="say it once: add -y")
    return _keep_alike(ctx, args, transfer, source)


def _carry_out(
    ctx: Context, args: argparse.Namespace, transfer: Transfer, *, folder: bool = False
) -> int:
    from roost import transfer as transfers

    make = not args.dry_run and (folder or args.target.endswith("/"))
    both = transfers.prepare(transfer, make_target=make)
    if not both:
        ctx.out.note(f"there is no rsync on {args.box} or here: copying by scp, without resuming")
        if args.dry_run:
            raise UsageError("scp cannot say what it would do")
        transfers.copy_plainly(transfer)
        return ExitCode.OK
    changes = transfers.preview(transfer) if args.dry_run or args.delete else []
    if args.dry_run:
        for change in changes:
            ctx.out.line(f"{change.what} {change.path}")
        return ExitCode.OK
    doomed = [c.path for c in changes if c.what == "delete"]
    if doomed and not args.yes:
        _ask(ctx, args, doomed)
    began = time.monotonic()
    deletions = len(doomed) if args.delete else None
    transfers.run(transfer, deletions=deletions, lost=lambda e: _lost(ctx, e))
    from roost.report import duration

    ctx.out.note(f"done in {duration(time.monotonic() - began)}")
    return ExitCode.OK


def _ask(ctx: Context, args: argparse.Namespace, doomed: list[str]) -> None:
    for path in doomed[:SHOWN]:
        ctx.out.note(f"delete {path}")
    if len(doomed) > SHOWN:
        ctx.out.note(f"… and {len(doomed) - SHOWN} more (all of them: -n)")
    if not sys.stdin.isatty():
        raise UsageError(
            f"{len(doomed)} files would be deleted, and nobody is here to ask",
            fix="look at them with -n, then add -y",
        )
    print(f"Delete {len(doomed)} files? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RoostError("nothing was deleted, and nothing copied")


def _lost(ctx: Context, error: RoostError) -> None:
    ctx.out.note(f"roost: {error.what}; going on")


def _keep_alike(ctx: Context, args: argparse.Namespace, transfer: Transfer, source: Path) -> int:
    from dataclasses import replace

    from roost import transfer as transfers
    from roost import watching

    if not transfers.prepare(transfer, make_target=True):
        raise UsageError(
            f"there is no rsync on {args.box} or here",
            fix=f"roost ssh {args.box} -- sudo apt-get install rsync",
        )
    changes = watching.watch(source)
    # A short burst of tries at a time: in between, newer changes join in.
    transfer = replace(transfer, options=replace(transfer.options, progress=False, retries=0))
    pause = 1.0
    while True:
        try:
            transfers.run(transfer)
        except (SshError, UnreachableError) as error:
            ctx.out.note(f"roost: {error.what}; trying again in {pause:g} s")
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
            continue
        pause = 1.0
        ctx.out.note(time.strftime(f"%H:%M:%S {args.target} on {args.box} is up to date"))
        next(changes)
