"""``roost logs`` and ``attach``."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from roost.cli.boxes import about_one, describe
from roost.errors import ExitCode, RoostError, SshError, UsageError

if TYPE_CHECKING:
    from roost.cli.context import Context


def register(
    sub: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the verbs of this group."""
    logs = about_one(sub, common, "logs", "what a job has printed, as a terminal would show it")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    logs.add_argument("--tail", metavar="N", type=int, help="only the last N lines")
    logs.add_argument(
        "--since", metavar="TIME", help="only what came since: 10m, 2h, 14:30, 2027-01-31T14:30"
    )
    logs.add_argument("--raw", action="store_true", help="the bytes as the command wrote them")
    logs.set_defaults(handler=show_log)

    attach = about_one(sub, common, "attach", "watch a job and type into it; Ctrl-C leaves")
    attach.set_defaults(handler=attach_job)


def show_log(ctx: Context, args: argparse.Namespace) -> int:
    """Print a log, or follow it; Ctrl-C leaves, and the job goes on."""
    from roost import jobs
    from roost.cli.boxes import remote

    way = remote(ctx, args.box)
    parts = jobs.follow(
        way,
        args.job,
        tail=args.tail,
        since=None if args.since is None else when(args.since, time.time()),
        wait=args.follow,
        lost=lambda error: ctx.out.note(f"roost: {error.what}; trying again"),
    )
    write = _Writer(raw=args.raw, follow=args.follow)
    try:
        for part in parts:
            if isinstance(part, bytes):
                write(part)
            else:
                write(None)
                if args.follow:
                    ctx.out.note(f"{part.name} {describe(part)}")
    except KeyboardInterrupt:
        ctx.out.note(f"\n{args.job} goes on. Watch again: roost logs -f {args.box} {args.job}")
        return ExitCode.INTERRUPTED
    return ExitCode.OK


class _Writer:
    """Writes a log to standard output: its bytes, for a terminal, or as plain lines."""

    def __init__(self, *, raw: bool, follow: bool) -> None:
        from roost.terminal import Filter, Screen

        self._out = sys.stdout.buffer
        self._raw = raw
        self._filter = Filter() if sys.stdout.isatty() and not raw else None
        # A reader at the end of a pipe wants each line when it comes.
        self._screen = Screen(height=1 if follow else 50)

    def __call__(self, data: bytes | None) -> None:
        if self._raw:
            self._out.write(data or b"")
        elif self._filter:
            self._out.write(self._filter.feed(data or b"").encode())
        elif data is None:
            self._out.write(self._screen.finish().encode())
        else:
            self._out.write(self._screen.feed(data).encode())
        self._out.flush()


def when(text: str, now: float) -> float:
    """A time in seconds since 1970; for ``10m`` the negative number of seconds before now.

    Raises:
        UsageError: it is no time.
    """
    import re
    from datetime import datetime

    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
        return -float(match[1]) * units[match[2]]
    today = datetime.fromtimestamp(now).astimezone().date().isoformat()
    for candidate in (text, f"{today}T{text}"):
        try:
            return datetime.fromisoformat(candidate).timestamp()
        except ValueError:
            continue
    raise UsageError(
        f"{text!r} is no time", fix="write 90s, 10m, 2h, 1d, 14:30 or 2027-01-31T14:30"
    )


def attach_job(ctx: Context, args: argparse.Namespace) -> int:
    """Attach to a job's tmux session; Ctrl-C there leaves it."""
    from roost import jobs
    from roost.cli.boxes import on_terminal, remote
    from roost.ssh import TRANSPORT_FAILED

    way = remote(ctx, args.box)
    job = jobs.state(way, args.job)
    if not job.writing:
        raise RoostError(
            f"{job.name} has ended: {describe(job)}",
            fix=f"see what it printed: roost logs {args.box} {args.job}",
        )
    code = on_terminal(way, jobs.attach_script(job))
    if code == TRANSPORT_FAILED:
        raise SshError(
            f"the connection to {args.box} was lost",
            why="the job goes on there",
            fix=f"roost attach {args.box} {args.job}",
        )
    job = jobs.state(way, job.id)
    ctx.out.note(f"{job.name} {describe(job)}" if job.over else f"{job.name} goes on")
    return ExitCode.OK
