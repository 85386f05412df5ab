"""What the verbs that work on boxes share: the way to one, and several at a time."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from roost.errors import ExitCode, RoostError, UnreachableError, UsageError

if TYPE_CHECKING:
    from roost.cli.context import Context, Verbs
    from roost.job_model import Job
    from roost.job_stream import Remote

AT_ONCE = 20
CLOCK = "%Y-%m-%d %H:%M"

T = TypeVar("T")


def with_verbs(
    sub: Verbs, common: argparse.ArgumentParser, name: str, text: str, description: str = ""
) -> Verbs:
    """Add a command that has verbs of its own, and return where they are added."""
    parser = sub.add_parser(name, parents=[common], help=text, description=description or None)
    return parser.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)


def about_one(
    sub: Verbs, common: argparse.ArgumentParser, verb: str, text: str
) -> argparse.ArgumentParser:
    """Add a verb that takes one job of one box."""
    parser = sub.add_parser(verb, parents=[common], help=text)
    parser.add_argument("box", metavar="BOX", help="a box of the inventory")
    parser.add_argument("job", metavar="JOB", help="a job there; NAME.N is an earlier run")
    return parser


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


def remote(ctx: Context, name: str) -> Remote:
    """The way to one box.

    Raises:
        InventoryError: no box is called that.
    """
    ctx.fleet().box(name)
    return remotes(ctx, [name])[0]


def remotes(ctx: Context, names: Sequence[str]) -> list[Remote]:
    """The ways to boxes and to the boxes of groups; no names: to every one.

    Raises:
        InventoryError: a name is neither a box nor a group.
    """
    from roost import ssh
    from roost.job_stream import Remote

    fleet = ctx.fleet()
    config = ssh.ensure_config(ctx.workspace().root, fleet, ctx.paths)
    return [Remote(config, box, fleet) for box in fleet.select(names)]


def _started(ways: Sequence[Remote], work: Callable[[Remote], T]) -> Iterator[Callable[[], T]]:
    """For each box, in order, what waits for the end of its work."""
    if len(ways) == 1:
        yield lambda: work(ways[0])
        return
    # It takes as long to import as the rest of the command line does.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        for one in [pool.submit(work, way) for way in ways]:
            yield one.result


def on_each(
    ctx: Context, ways: Sequence[Remote], work: Callable[[Remote], T]
) -> tuple[list[T], int]:
    """Do the same on several boxes at once.

    Returns:
        What ``work`` returned, in the order of ``ways``, and the exit code: that of the worst
        failure. Failures are printed; they do not stop the others.
    """
    if not ways:
        raise UsageError("there are no boxes", fix="add one: roost add NAME USER@HOST")
    found: list[T] = []
    failures: list[RoostError] = []
    for one in _started(ways, work):
        try:
            found.append(one())
        except RoostError as error:
            ctx.out.error(error)
            failures.append(error)
    if not failures:
        return found, ExitCode.OK
    alike = all(isinstance(f, UnreachableError) for f in failures)
    return found, ExitCode.UNREACHABLE if alike else ExitCode.FAILED


def on_terminal(remote: Remote, script: str) -> int:
    """Run a shell script on the box, on the user's own terminal, and return ssh's exit code.

    Where the connection broke, nothing there has put the terminal back in order; this does.

    Raises:
        UsageError: there is no terminal.
    """
    import sys

    from roost import process, ssh
    from roost.terminal import LEAVE_TMUX

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("this needs a terminal", why="standard input or output is none")
    # A terminal that the box has no description of keeps tmux from starting.
    known = 'infocmp "$TERM" >/dev/null 2>&1 || export TERM=xterm-256color; '
    word = ssh.remote_sh(known + script)
    code = process.interactive(ssh.command(remote.config, remote.box.name, word, options=["-t"]))
    if code == ssh.TRANSPORT_FAILED:
        sys.stdout.write(LEAVE_TMUX)
        sys.stdout.flush()
    return code
