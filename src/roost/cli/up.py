"""``roost up``: provision boxes, with the run on the screen and a summary at its end."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from roost.errors import (
    ExitCode,
    InterruptedRunError,
    ProvisionError,
    RoostError,
    UnreachableError,
    UsageError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from roost.cli.context import Context
    from roost.cli.sealed import Session
    from roost.events import BoxOutcome, Event, Outcome


def register(
    sub: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the verbs of this group."""
    parser = sub.add_parser(
        "up",
        parents=[common],
        help="provision boxes; run it again any time",
        description="Bring boxes to the state that the inventory describes. Without a name: "
        "every box. It may be stopped at any time; the next run finishes the job. A box that a "
        "former run sealed is only looked at: where nothing on it and nothing that it depends on "
        "has changed, that is all.",
    )
    parser.add_argument("names", nargs="*", metavar="BOX|GROUP", help="only these")
    parser.add_argument(
        "--check", action="store_true", help="say what would change, and change nothing"
    )
    parser.add_argument("--diff", action="store_true", help="show what changes inside files")
    parser.add_argument(
        "--full", action="store_true", help="run everything, also on boxes whose seal is in order"
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write one HTML page about the run: where the time went, changes with their diffs, "
        "failures with their cause",
    )
    parser.add_argument(
        "--tags",
        metavar="TAG[,TAG]",
        action="append",
        default=[],
        help="only the tasks with one of these tags; a role's name is a tag",
    )
    add_password(parser)
    parser.set_defaults(handler=up)


def add_password(parser: argparse.ArgumentParser) -> None:
    """Add the option for boxes whose sudo wants a password."""
    parser.add_argument(
        "-K",
        "--ask-become-pass",
        action="store_true",
        help="ask for the password that sudo wants on the boxes",
    )


def up(ctx: Context, args: argparse.Namespace) -> int:
    """Plan, run, and say how it ended."""
    begun = time.monotonic()
    page = _page_file(args.report) if args.report else None
    events: list[Event] | None = [] if page else None
    where: list[str] | Session = args.names
    if not (args.check or args.diff or args.full or args.tags or page):
        from roost.cli import sealed

        where = sealed.Session(ctx, args.names)
        if not sealed.narrow(ctx, where, begun):
            return ExitCode.OK
    outcome = carry_out(
        ctx,
        where,
        check=args.check,
        diff=args.diff,
        tags=[t for one in args.tags for t in one.split(",") if t],
        ask_become_pass=args.ask_become_pass,
        record=events,
    )
    if page:
        _write_page(ctx, page, outcome, events or [], check=args.check)
    return conclude(ctx, outcome, check=args.check)


def _page_file(name: str) -> Path:
    """Where the page goes; asked before the run, so that it is not lost at its end.

    Raises:
        UsageError: nothing can be written there.
    """
    from pathlib import Path

    page = Path(name).expanduser()
    if page.is_dir() or not os.access(page if page.exists() else page.parent, os.W_OK):
        raise UsageError(f"--report {name}: no file can be written there")
    return page


def _write_page(
    ctx: Context, page: Path, outcome: Outcome, events: Sequence[Event], *, check: bool
) -> None:
    from importlib.metadata import version
    from platform import python_version

    from roost import __version__, files, run_page

    versions = {"roost": __version__, "ansible-core": version("ansible-core")}
    text = run_page.page(
        outcome,
        events,
        title=f"{'Checked' if check else 'Provisioned'} {', '.join(outcome.boxes)}",
        ended=time.time(),
        versions=versions | {"Python": python_version()},
    )
    files.replace(page, text.encode())
    ctx.out.note(f"report: {ctx.paths.display(page)}")


def carry_out(
    ctx: Context,
    where: Sequence[str] | Session,
    *,
    playbook: str = "site",
    check: bool = False,
    diff: bool = False,
    tags: Sequence[str] = (),
    ask_become_pass: bool = False,
    record: list[Event] | None = None,
) -> Outcome:
    """Run a playbook on the boxes called ``names``, with its progress on standard error.

    Args:
        ctx: the call.
        where: boxes and groups, none for every box; or the boxes of a session, whose seals it
            has taken away already.
        playbook: the one that is run; ``undo`` takes back what ``site`` did.
        check: say what would change, and change nothing.
        diff: show what changes inside files.
        tags: only the tasks with one of these tags.
        ask_become_pass: ask for the password that sudo wants on the boxes.
        record: takes every event up, with what changes inside files.

    Raises:
        ProvisionError: Ansible could not even start.
        InterruptedRunError: the user stopped it.
    """
    from roost import plan as planning
    from roost import playbook as playbooks
    from roost import progress, ssh
    from roost.cli import sealed

    workspace, fleet = ctx.workspace(), ctx.fleet()
    inside = diff or record is not None
    session, names = (where, where.boxes) if isinstance(where, sealed.Session) else (None, where)
    plan = planning.make(
        workspace, fleet, names, playbook=playbook, check=check, diff=inside, tags=tags
    )
    workspace.ensure_generated()
    ssh.ensure_config(workspace.root, fleet, ctx.paths)
    password = ask_password() if ask_become_pass else None
    whole = playbook == "site" and not tags
    if not check and session is None:
        session = sealed.Session(ctx, plan.boxes)
        session.begin(whole=whole)
    history = playbooks.Runs(workspace, ctx.paths).history(plan)
    listed = ", ".join(plan.boxes) if len(plan.boxes) <= 6 else f"{len(plan.boxes)} boxes"
    doing = (
        "Checking" if check else "Undoing the roles on" if playbook == "undo" else "Provisioning"
    )
    ctx.out.note(f"{doing} {listed}")
    with progress.choose(ctx.out, plan.boxes, history, verbose=ctx.verbose, diff=diff) as display:

        def listen(event: Event) -> None:
            display.show(event)
            if record is not None:
                record.append(event)

        outcome = playbooks.run(
            plan,
            workspace=workspace,
            paths=ctx.paths,
            environ=ctx.environ,
            listen=listen,
            become_password=password,
        )
    if outcome.complaint:
        raise ProvisionError(f"Ansible stopped: {outcome.complaint}")
    if outcome.interrupted:
        raise _interrupted(outcome, check=check)
    if session and whole:
        session.seal(outcome)
    return outcome


def ask_password() -> str:
    """The password that sudo wants on the boxes, from the terminal."""
    import getpass

    return getpass.getpass("sudo password on the boxes: ")


def conclude(ctx: Context, outcome: Outcome, *, check: bool = False, advise: bool = True) -> int:
    """Print the summary, with what to do next if asked for, and return 0.

    Raises:
        ProvisionError: a task failed somewhere.
        UnreachableError: a box could not be reached, and nothing failed on the others.
    """
    from roost.report import duration

    rows = [(name, *_row(box, check=check)) for name, box in outcome.boxes.items()]
    ctx.out.table(("BOX", "RESULT", "CHANGED", "IN ORDER", ""), rows)
    explain_failures(ctx, outcome)
    took = duration(outcome.seconds)
    if outcome.failed:
        raise ProvisionError(
            f"{_count(outcome.failed)} failed after {took}",
            fix="mend the cause and run it again: it goes on from there (-v shows more)",
        )
    if outcome.unreachable:
        raise UnreachableError(f"{_count(outcome.unreachable)} could not be reached ({took})")
    if advise:
        ctx.out.note(_closing(outcome, took, check=check))
    return ExitCode.OK


def _row(box: BoxOutcome, *, check: bool) -> tuple[str, int, int, str]:
    state = "would change" if check and box.state == "changed" else box.state
    step = box.failures[0].step if box.state == "failed" else ""
    return state, box.changed, box.ok - box.changed, step


def explain_failures(ctx: Context, outcome: Outcome) -> None:
    """Say on standard error what failed on which box, why, and what mends it."""
    for name in (*outcome.failed, *outcome.unreachable):
        _explain(ctx, outcome.boxes[name])


def _explain(ctx: Context, box: BoxOutcome) -> None:
    from roost.explain import explain

    events: list[Event] = [*box.failures, *([box.unreachable] if box.unreachable else [])]
    for event in events:
        known = explain(event)
        where = f"{event.step}: " if event.role or not box.unreachable else ""
        if known:
            ctx.out.error(RoostError(f"{event.box}: {where}{known.what}", fix=known.fix))
        else:
            said = event.message or event.detail or "no message"
            ctx.out.error(RoostError(f"{event.box}: {where}{said}"))
            if event.detail and event.detail not in said:
                ctx.out.note("\n".join("    " + s for s in event.detail.splitlines()[-15:]))


def _interrupted(outcome: Outcome, *, check: bool) -> InterruptedRunError:
    at = "; ".join(f"{name} at “{box.at}”" for name, box in outcome.boxes.items() if box.at)
    if not at:
        return InterruptedRunError("interrupted before the first step", why="nothing was changed")
    kept = "what ran before that step stays done; that step itself may still end on the box"
    return InterruptedRunError(
        f"interrupted: {at}",
        why="nothing was changed" if check else kept,
        fix="roost up finishes the job",
    )


def _closing(outcome: Outcome, took: str, *, check: bool) -> str:
    changed = [name for name, box in outcome.boxes.items() if box.changed]
    total = _count(list(outcome.boxes))
    if not changed:
        return f"{total} in order, nothing to change, {took}"
    if check:
        return f"{len(changed)} of {total} would change, {took}. Apply it: roost up"
    first = changed[0]
    return f"{total} provisioned in {took}. Next: roost lab {first}, roost run {first} -- CMD"


def _count(names: list[str]) -> str:
    return f"{len(names)} box" + ("es" if len(names) != 1 else "")
