"""``roost run``, ``jobs``, ``logs``, ``attach``, ``stop`` and ``wait``."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from roost.errors import ExitCode, RoostError, SshError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from roost.cli.context import Context
    from roost.jobs import Job

CLOCK = "%Y-%m-%d %H:%M"


def register(
    sub: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the verbs of this group."""
    run = sub.add_parser(
        "run",
        parents=[common],
        usage="roost run BOX [-n NAME] [--dir DIR] [--venv VENV] [--env K=V]... -- CMD...",
        help="run a command in the background, with a log and an exit code",
        description="Start CMD as a job on a box. It goes on when the connection, or this "
        "machine, is gone. What follows -- arrives as those very arguments.",
    )
    run.add_argument("box", metavar="BOX", help="a box of the inventory")
    run.add_argument("-n", "--name", metavar="NAME", help="the job's name (default: from CMD)")
    run.add_argument("--dir", metavar="DIR", default="", help="run it there (default: the home)")
    run.add_argument(
        "--venv",
        metavar="VENV",
        default="",
        help="in this virtual environment: a path on the box, or a name in ~/.venvs or "
        "/opt/roost/envs",
    )
    run.add_argument(
        "--env",
        metavar="K=V",
        action="append",
        default=[],
        help="set an environment variable; K alone passes ours on",
    )
    run.add_argument(
        "--queue", action="store_true", help="wait until the jobs queued before it have ended"
    )
    run.add_argument(
        "--at-once",
        metavar="N",
        type=int,
        help="run N queued jobs of the box at a time from now on (default: 1)",
    )
    run.set_defaults(handler=run_job, words=[])

    listing = sub.add_parser(
        "jobs", parents=[common], help="the jobs on boxes, and what became of them"
    )
    listing.add_argument("names", nargs="*", metavar="BOX|GROUP", help="only these")
    listing.add_argument("--all", action="store_true", help="earlier runs of the same name, too")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(handler=list_jobs)

    logs = _about_one(sub, common, "logs", "what a job has printed, as a terminal would show it")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    logs.add_argument("--tail", metavar="N", type=int, help="only the last N lines")
    logs.add_argument(
        "--since", metavar="TIME", help="only what came since: 10m, 2h, 14:30, 2027-01-31T14:30"
    )
    logs.add_argument("--raw", action="store_true", help="the bytes as the command wrote them")
    logs.set_defaults(handler=show_log)

    attach = _about_one(sub, common, "attach", "watch a job and type into it; Ctrl-C leaves")
    attach.set_defaults(handler=attach_job)

    stop = _about_one(sub, common, "stop", "end a job and all that it started")
    stop.add_argument(
        "--signal", metavar="SIG", default="TERM", help="ask it with this signal (default: TERM)"
    )
    stop.add_argument(
        "--grace",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="kill what has not ended by then (default: 10)",
    )
    stop.set_defaults(handler=stop_job)

    wait = _about_one(sub, common, "wait", "wait for a job's end, and exit with its exit code")
    wait.set_defaults(handler=wait_job)


def _about_one(
    sub: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
    verb: str,
    text: str,
) -> argparse.ArgumentParser:
    parser = sub.add_parser(verb, parents=[common], help=text)
    parser.add_argument("box", metavar="BOX", help="a box of the inventory")
    parser.add_argument("job", metavar="JOB", help="a job there; NAME.N is an earlier run")
    return parser


def run_job(ctx: Context, args: argparse.Namespace) -> int:
    """Start a job and say how to look after it."""
    from roost import jobs
    from roost.cli.boxes import remote

    way = remote(ctx, args.box)
    job = jobs.start(
        way,
        args.words,
        name=args.name,
        folder=args.dir,
        venv=args.venv,
        env=_variables(args.env, ctx.environ),
        queue=args.at_once or (0 if args.queue else None),
    )
    ctx.out.line(job.name)
    if job.over:
        ctx.out.note(f"{job.name} {describe(job)}")
        ctx.out.note(jobs.log(way, job.id, tail=10).rstrip())
        return ExitCode.OK if job.code == 0 else ExitCode.FAILED
    does = "is queued" if job.state == "queued" else "runs"
    ctx.out.note(f"{job.name} {does} on {args.box}. Watch: roost logs -f {args.box} {job.name}")
    return ExitCode.OK


def _variables(given: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not name or not (equals or name in environ):
            raise UsageError(
                f"--env {word}: " + ("no variable is named" if not name else "it is not set here"),
                fix="write --env NAME=VALUE",
            )
        found[name] = value if equals else environ[name]
    return found


def list_jobs(ctx: Context, args: argparse.Namespace) -> int:
    """List jobs, box by box."""
    from roost import jobs
    from roost.cli.boxes import on_each, remotes
    from roost.report import duration

    ways = remotes(ctx, args.names)
    found, code = on_each(ctx, ways, lambda way: jobs.listing(way, every_run=args.all))
    every = [job for some in found for job in some]
    if args.json:
        ctx.out.json([job.as_json() for job in every])
        return code
    rows = []
    for job in every:
        took = job.seconds()
        begun = time.strftime(CLOCK, time.localtime(job.start or job.created))
        shown = job.id if args.all else job.name
        lasted = "" if took is None else duration(took)
        rows.append((job.box, shown, describe(job), lasted, begun, _command(job)))
    if rows:
        ctx.out.table(("BOX", "JOB", "STATE", "FOR", "STARTED", "COMMAND"), rows)
    elif code == ExitCode.OK:
        ctx.out.note("no jobs. Start one: roost run BOX -- CMD")
    return code


def describe(job: Job) -> str:
    """A job's state in words."""
    text = job.state
    if job.state == "failed":
        text += f" ({job.signal or job.code})"
    if job.rebooted:
        text += time.strftime(f", box rebooted at {CLOCK}", time.localtime(job.rebooted))
    elif job.reason:
        text += f", {job.reason}"
    if job.left:
        text += f", {job.left} left running"
    return text


def _command(job: Job) -> str:
    from roost.process import display

    text = display(job.argv)
    return text if len(text) <= 60 else text[:59] + "…"


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
    write = _writer(raw=args.raw, follow=args.follow)
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


_writer = _Writer


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
    if job.over and not job.left:
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


def stop_job(ctx: Context, args: argparse.Namespace) -> int:
    """End a job."""
    import signal

    from roost import jobs
    from roost.cli.boxes import remote

    name = args.signal.upper().removeprefix("SIG")
    if name not in (known := [s.name[3:] for s in signal.Signals]):
        raise UsageError(f"{args.signal!r} is no signal", why="there are: " + ", ".join(known))
    number = signal.Signals[f"SIG{name}"]
    way = remote(ctx, args.box)
    before = jobs.state(way, args.job)
    if before.over and not before.left:
        ctx.out.note(f"{before.name} had ended already: {describe(before)}")
        return ExitCode.OK
    job = jobs.stop(way, before.id, signal=number, grace=args.grace)
    ctx.out.note(f"{job.name} {describe(job)}")
    return ExitCode.OK if job.over and not job.left else ExitCode.FAILED


def wait_job(ctx: Context, args: argparse.Namespace) -> int:
    """Wait for a job and exit with its code; Ctrl-C leaves, and the job goes on."""
    from roost import jobs
    from roost.cli.boxes import remote

    job = jobs.wait(
        remote(ctx, args.box),
        args.job,
        lost=lambda error: ctx.out.note(f"roost: {error.what}; trying again"),
    )
    ctx.out.note(f"{job.name} {describe(job)}")
    return ExitCode.FAILED if job.code is None else job.code
