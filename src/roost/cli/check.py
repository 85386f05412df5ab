"""``roost check``: what on the boxes differs from the inventory, changing nothing."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from roost.errors import ExitCode

if TYPE_CHECKING:
    from roost.cli.context import Context
    from roost.events import BoxOutcome, Outcome

DESCRIPTION = """\
Say what on the boxes differs from what the inventory describes, and change nothing: every task
is asked by Ansible's check mode. For cron and CI by its exit code: 0 all in order, 2 something
differs, 4 a box is unreachable, 1 a task failed. The worst of several boxes counts, in the order
failed, unreachable, differs.
"""


def register(
    sub: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the verbs of this group."""
    from roost.cli.up import add_password

    parser = sub.add_parser(
        "check",
        parents=[common],
        help="what differs from the inventory, changing nothing",
        description=DESCRIPTION,
    )
    parser.add_argument("names", nargs="*", metavar="BOX|GROUP", help="only these")
    parser.add_argument("--diff", action="store_true", help="show what differs inside files")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_password(parser)
    parser.set_defaults(handler=check)


def check(ctx: Context, args: argparse.Namespace) -> int:
    """Ask, list what differs, and return the exit code for it."""
    from roost.cli.up import carry_out, explain_failures

    outcome = carry_out(
        ctx, args.names, check=True, diff=args.diff, ask_become_pass=args.ask_become_pass
    )
    if args.json:
        ctx.out.json({"boxes": _as_json(outcome)})
    else:
        steps = [(change.box, change.role, change.task) for change in outcome.changes]
        if steps:
            ctx.out.table(("BOX", "ROLE", "DIFFERS"), steps)
    explain_failures(ctx, outcome)
    _close(ctx, outcome)
    if outcome.failed:
        return ExitCode.FAILED
    if outcome.unreachable:
        return ExitCode.UNREACHABLE
    return ExitCode.DRIFT if outcome.changes else ExitCode.OK


def _state(box: BoxOutcome) -> str:
    return "differs" if box.state == "changed" else box.state


def _as_json(outcome: Outcome) -> list[dict[str, object]]:
    return [
        {
            "box": name,
            "state": _state(box),
            "in_order": box.ok - box.changed,
            "differs": [
                {"role": change.role, "task": change.task, "diff": change.diff}
                for change in outcome.changes
                if change.box == name
            ],
        }
        for name, box in outcome.boxes.items()
    ]


def _close(ctx: Context, outcome: Outcome) -> None:
    from roost.report import duration

    states = [_state(box) for box in outcome.boxes.values()]
    counted = [
        f"{states.count(state)} {state}"
        for state in ("in order", "differs", "failed", "unreachable")
        if state in states
    ]
    advice = ". Mend it: roost up" if "differs" in states else ""
    ctx.out.note(f"{', '.join(counted)} ({duration(outcome.seconds)}){advice}")
