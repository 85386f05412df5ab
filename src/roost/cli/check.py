"""``roost check``: what on the boxes differs from the inventory, changing nothing."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from roost.errors import ExitCode

if TYPE_CHECKING:
    from roost.cli.context import Context
    from roost.events import BoxOutcome, Outcome
    from roost.seals import Look

DESCRIPTION = """\
Say what on the boxes differs from what the inventory describes, and change nothing. A box that a
run has sealed is compared with its seal, in the time of a login; of the others, and with --full
or --diff of all of them, Ansible's check mode asks every task. For cron and CI by its exit code:
0 all in order, 2 something differs, 4 a box is unreachable, 1 a task failed. The worst of several
boxes counts, in the order failed, unreachable, differs.
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
    parser.add_argument(
        "--full", action="store_true", help="ask Ansible of every box, whatever its seal says"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_password(parser)
    parser.set_defaults(handler=check)


def check(ctx: Context, args: argparse.Namespace) -> int:
    """Ask, list what differs, and return the exit code for it."""
    begun = time.monotonic()
    sealed: list[Look] = []
    outcome = None
    if args.full or args.diff:
        outcome = _ask_ansible(ctx, args, args.names)
    else:
        from roost.cli.sealed import Session

        looks = Session(ctx, args.names).look(for_run=False)
        sealed = [one for one in looks if one.state in ("in order", "differs")]
        rest = [one.box for one in looks if one not in sealed]
        if rest:
            outcome = _ask_ansible(ctx, args, rest)
    _show(ctx, args, sealed, outcome)
    states = [one.state for one in sealed] + [_state(b) for b in _boxes(outcome).values()]
    _close(ctx, states, sealed, begun)
    if "failed" in states:
        return ExitCode.FAILED
    if "unreachable" in states:
        return ExitCode.UNREACHABLE
    return ExitCode.DRIFT if "differs" in states else ExitCode.OK


def _ask_ansible(ctx: Context, args: argparse.Namespace, names: Sequence[str]) -> Outcome:
    from roost.cli.up import carry_out

    return carry_out(ctx, names, check=True, diff=args.diff, ask_become_pass=args.ask_become_pass)


def _boxes(outcome: Outcome | None) -> Mapping[str, BoxOutcome]:
    return outcome.boxes if outcome else {}


def _show(
    ctx: Context, args: argparse.Namespace, sealed: Sequence[Look], outcome: Outcome | None
) -> None:
    if args.json:
        found = [_seal_as_json(one) for one in sealed]
        ctx.out.json({"boxes": found + (_as_json(outcome) if outcome else [])})
    else:
        rows = [(one.box, thing, ", ".join(what)) for one in sealed for thing, what in one.differs]
        if rows:
            ctx.out.table(("BOX", "DIFFERS", "WHAT"), rows)
        steps = [(c.box, c.role, c.task) for c in outcome.changes] if outcome else []
        if steps:
            ctx.out.table(("BOX", "ROLE", "DIFFERS"), steps)
    if outcome:
        from roost.cli.up import explain_failures

        explain_failures(ctx, outcome)


def _state(box: BoxOutcome) -> str:
    return "differs" if box.state == "changed" else box.state


def _seal_as_json(one: Look) -> dict[str, object]:
    return {
        "box": one.box,
        "state": one.state,
        "sealed": True,
        "in_order": one.count - len(one.differs),
        "differs": [{"thing": thing, "what": what} for thing, what in one.differs],
    }


def _as_json(outcome: Outcome) -> list[dict[str, object]]:
    return [
        {
            "box": name,
            "state": _state(box),
            "sealed": False,
            "in_order": box.ok - box.changed,
            "differs": [
                {"role": change.role, "task": change.task, "diff": change.diff}
                for change in outcome.changes
                if change.box == name
            ],
        }
        for name, box in outcome.boxes.items()
    ]


def _close(ctx: Context, states: Sequence[str], sealed: Sequence[Look], begun: float) -> None:
    from roost.cli.sealed import verified
    from roost.report import duration

    if states and all(one.state == "in order" for one in sealed) and len(sealed) == len(states):
        ctx.out.note(verified(sealed, begun))
        return
    counted = [
        f"{states.count(state)} {state}"
        for state in ("in order", "differs", "failed", "unreachable")
        if state in states
    ]
    advice = ". Mend it: roost up" if "differs" in states else ""
    ctx.out.note(f"{', '.join(counted)} ({duration(time.monotonic() - begun)}){advice}")
