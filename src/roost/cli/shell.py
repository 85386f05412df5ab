"""``roost shell``."""

from __future__ import annotations

import argparse
import shlex
import time
from typing import TYPE_CHECKING, Any

from roost.errors import ExitCode, SshError, UsageError

if TYPE_CHECKING:
    from roost.cli.context import Context

DEFAULT_SESSION = "main"


def register(
    sub: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the verbs of this group."""
    parser = sub.add_parser(
        "shell",
        parents=[common],
        help="a tmux session that survives the connection",
        description="Attach to a tmux session on a box, or make one. Without SESSION: the one "
        f"that there is, a new one called {DEFAULT_SESSION!r} where there is none, or a list "
        "where there are several. Leave it with Ctrl-b d; it goes on.",
    )
    parser.add_argument("box", metavar="BOX", help="a box of the inventory")
    parser.add_argument("session", metavar="SESSION", nargs="?", help="a session, old or new")
    parser.add_argument("--list", action="store_true", help="list the sessions, attach to none")
    parser.add_argument("--json", action="store_true", help="with --list: as JSON")
    parser.set_defaults(handler=shell)


def shell(ctx: Context, args: argparse.Namespace) -> int:
    """Attach to a session or make it; say what a reboot has ended."""
    from roost import jobs
    from roost.cli.boxes import on_terminal, remote
    from roost.ssh import TRANSPORT_FAILED

    if args.session and set(args.session) & set(".:"):
        raise UsageError(
            f"{args.session!r} cannot be the name of a session",
            why="tmux keeps . and : for windows and panes",
        )
    way = remote(ctx, args.box)
    there = jobs.sessions(way, make=None if args.list else args.session)
    if there.lost:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(there.rebooted))
        gone = ", ".join(there.lost)
        ctx.out.note(f"{args.box} rebooted at {when}: what ran in its sessions is gone ({gone})")
    if args.list:
        return _list(ctx, there.sessions, as_json=args.json)
    names = [str(s["name"]) for s in there.sessions]
    name = args.session or _choose(ctx, there.sessions)
    if name not in names and not args.session:
        jobs.sessions(way, make=name)
    ctx.out.note(f"{name}: " + ("attached" if name in names else "a new session"))
    code = on_terminal(way, f"exec tmux -u attach-session -t {shlex.quote(f'={name}:')}")
    if code == TRANSPORT_FAILED:
        raise SshError(
            f"the connection to {args.box} was lost",
            why="the session goes on there",
            fix=shlex.join(["roost", "shell", args.box, name]),
        )
    return ExitCode.OK if code == 0 else ExitCode.FAILED


def _list(ctx: Context, sessions: list[dict[str, Any]], *, as_json: bool) -> int:
    if as_json:
        ctx.out.json(sessions)
    else:
        ctx.out.table(("SESSION", "WINDOWS", "ATTACHED", "SINCE"), [_row(s) for s in sessions])
    return ExitCode.OK


def _row(session: dict[str, Any]) -> tuple[object, ...]:
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(session["created"]))
    return session["name"], session["windows"], session["attached"] or "", since


def _choose(ctx: Context, sessions: list[dict[str, Any]]) -> str:
    if not sessions:
        return DEFAULT_SESSION
    if len(sessions) == 1:
        return str(sessions[0]["name"])
    _list(ctx, sessions, as_json=False)
    raise UsageError("there are several sessions", fix="say which: roost shell BOX SESSION")
