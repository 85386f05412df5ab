"""``roost run``, ``jobs``, ``stop`` and ``wait``."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from roost.cli.boxes import about_one, describe
from roost.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from roost.cli.context import Context
    from roost.job_model import Job
    from roost.job_stream import Remote

CLOCK = "%Y-%m-%d %H:%M"


def register(
    sub: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the verbs of this group."""
    run = sub.add_parser(
        "run",
        parents=[common],
        usage="roost run BOX|GROUP [-n NAME] [--dir DIR] [--venv VENV] [--env K=V]...\n"
        "                 [--queue] [--at-once N] [--notify HOW] -- CMD...",
        help="run a command in the background, with a log and an exit code",
        description="Start CMD as a job on a box. It goes on when the connection, or this "
        "machine, is gone. What follows -- arrives as those very arguments.",
    )
    run.add_argument("box", metavar="BOX|GROUP", help="where; on each box of a group")
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
    _notify_option(run)
    run.set_defaults(handler=run_job, words=[])

    listing = sub.add_parser(
        "jobs", parents=[common], help="the jobs on boxes, and what became of them"
    )
    listing.add_argument("names", nargs="*", metavar="BOX|GROUP", help="only these")
    listing.add_argument("--all", action="store_true", help="earlier runs of the same name, too")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(handler=list_jobs)

    stop = about_one(sub, common, "stop", "end a job and all that it started")
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

    wait = about_one(sub, common, "wait", "wait for a job's end, and exit with its exit code")
    _notify_option(wait)
    wait.set_defaults(handler=wait_job)


def _notify_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--notify",
        metavar="HOW",
        help="at its end: bell, desktop, or a command (it finds ROOST_BOX, ROOST_JOB, ROOST_STATE "
        "and ROOST_CODE in its environment)",
    )


def run_job(ctx: Context, args: argparse.Namespace) -> int:
    """Start a job on a box, or on each box of a group, and say how to look after it."""
    from roost import jobs, notify
    from roost.cli.boxes import on_each, remote, remotes

    how = notify.check(args.notify) if args.notify else None
    env = _variables(args.env, ctx.environ)

    def start(way: Remote) -> Job:
        return jobs.start(
            way,
            args.words,
            name=args.name,
            folder=args.dir,
            venv=args.venv,
            env=env,
            queue=args.at_once or (0 if args.queue else None),
        )

    if ctx.fleet().get(args.box):
        way = remote(ctx, args.box)
        return _started(ctx, way, start(way), how)
    ways = remotes(ctx, [args.box])
    started, code = on_each(ctx, ways, start)
    at = {way.box.name: way for way in ways}
    return max([code, *(_started(ctx, at[job.box], job, how) for job in started)])


def _started(ctx: Context, way: Remote, job: Job, how: str | None) -> int:
    from roost import jobs

    ctx.out.line(job.name)
    if job.over:
        ctx.out.note(f"{job.name} on {job.box}: {describe(job)}")
        ctx.out.note(jobs.log(way, job.id, tail=10).rstrip())
    else:
        does = "is queued" if job.state == "queued" else "runs"
        ctx.out.note(f"{job.name} {does} on {job.box}. Watch: roost logs -f {job.box} {job.name}")
    if how:
        _wait_in_background(ctx, job, how)
    return ExitCode.OK if not job.over or job.code == 0 else ExitCode.FAILED


def _wait_in_background(ctx: Context, job: Job, how: str) -> None:
    import subprocess

    from roost import process

    program = [sys.executable, "-c", "from roost.cli.main import entry; entry()"]
    words = ["wait", "--notify", how, "-w", str(ctx.workspace().root), job.box, job.id]
    # Its standard error stays the terminal where there is one: that is where the bell rings.
    errors = None if how == "bell" else subprocess.DEVNULL
    process.start(
        [*program, *words],
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env=ctx.environ,
        new_session=True,
    )


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


def _command(job: Job) -> str:
    import re

    from roost.process import display

    # One line, whatever the arguments hold.
    text = re.sub(r"\s*\n\s*", " ↵ ", display(job.argv))
    return text if len(text) <= 60 else text[:59] + "…"


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
    from roost import jobs, notify
    from roost.cli.boxes import remote

    how = notify.check(args.notify) if args.notify else None
    job = jobs.wait(
        remote(ctx, args.box),
        args.job,
        lost=lambda error: ctx.out.note(f"roost: {error.what}; trying again"),
    )
    ctx.out.note(f"{job.name} {describe(job)}")
    if how:
        code = "" if job.code is None else str(job.code)
        facts = {"BOX": job.box, "JOB": job.name, "STATE": job.state, "CODE": code}
        title = f"{job.name} on {job.box}"
        notify.send(how, title, describe(job), {f"ROOST_{k}": v for k, v in facts.items()})
    return ExitCode.FAILED if job.code is None else job.code
