"""``roost status``: every box in one table."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from roost.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from roost.cli.context import Context
    from roost.report import Rows
    from roost.seals import Look
    from roost.status import BoxStatus

    # The boxes that answer, and the minute: what their seals say.
    Seals = Callable[[tuple[str, ...], int], Mapping[str, Look]]

COLUMNS = (
    "BOX", "UP", "SEAL", "LOAD", "MEM", "DISK", "GPU", "USERS", "JOBS", "LAB", "TUN", "NOTE",
)  # fmt: skip
# A box without a seal has nothing that it could differ from.
SEALS = {"in order": "ok", "differs": "drift", "stale": "stale"}
DESCRIPTION = """\
Ask every box at once how it is. A box that does not answer costs no more than the time-out of a
connection and holds nobody up. SEAL is how it stands to what the last run made of it: ok, drift
(roost check says in what), stale where that run was made from something else than what the
inventory says now, nothing where no run has sealed it. LOAD is per processor, MEM, DISK and GPU
what is in use (of the fullest file system, and of each processor), USERS who is logged in, JOBS
and LAB your own, TUN the tunnels that are open to it. A column with nothing in it is left out.
With --watch, which asks for the seals once a minute, a key acts on the box that is marked: a
attaches to a session there, t follows the log of a job, l opens JupyterLab, o the tunnels of the
inventory; q leaves.
"""


def register(
    sub: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the verbs of this group."""
    parser = sub.add_parser(
        "status",
        parents=[common],
        help="every box in one table: load, memory, disk, jobs, tunnels",
        description=DESCRIPTION,
    )
    parser.add_argument("names", nargs="*", metavar="BOX|GROUP", help="only these")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print JSON, in bytes and seconds")
    how.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=5.0,
        metavar="SECONDS",
        help="ask again and again (default: every 5 seconds); keys act on a box",
    )
    parser.set_defaults(handler=status)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds, 1 or more")
    return value


def status(ctx: Context, args: argparse.Namespace) -> int:
    """Ask, and show."""
    if args.watch:
        with suppress(KeyboardInterrupt):
            _watch(ctx, args.names, args.watch)
        return ExitCode.OK
    found, seals, tunnels = _look(ctx, args.names, partial(_seals, ctx))
    if args.json:
        ctx.out.json([_as_json(one, seals.get(one.box), tunnels.get(one.box, 0)) for one in found])
    else:
        ctx.out.table(*_table(found, seals, tunnels))
        for one in found:
            if one.why:
                ctx.out.note(f"{one.box}: {one.why}")
    states = {one.state for one in found}
    if "failed" in states:
        return ExitCode.FAILED
    return ExitCode.UNREACHABLE if "unreachable" in states else ExitCode.OK


def _watch(ctx: Context, names: list[str], seconds: float) -> None:
    # As root and by Python, and every time in the logs of the box: not every few seconds.
    seals = lru_cache(maxsize=1)(partial(_seals, ctx))

    def look() -> Rows:
        return _table(*_look(ctx, names, seals))

    if sys.stdin.isatty() and sys.stdout.isatty():
        from roost.cli.status_watch import watch

        watch(ctx, look, seconds)
    else:
        ctx.out.watch(look, seconds)


def _look(
    ctx: Context, names: list[str], seals: Seals
) -> tuple[list[BoxStatus], Mapping[str, Look], Mapping[str, int]]:
    from collections import Counter

    from roost import status as asking
    from roost.cli.boxes import on_each, remotes
    from roost.tunnels import Tunnels

    ways = remotes(ctx, names)
    found, _ = on_each(ctx, ways, asking.ask)
    here = str(ways[0].config)
    open_now = [t for t in Tunnels(ctx.paths, ctx.environ).list() if str(t.config) == here]
    # Of those alone that have just answered: nobody waits for a time-out twice.
    up = tuple(one.box for one in found if one.state == "up")
    looks = seals(up, int(time.monotonic() // 60)) if up else {}
    return found, looks, Counter(tunnel.box for tunnel in open_now)


def _seals(ctx: Context, boxes: tuple[str, ...], _minute: int) -> Mapping[str, Look]:
    from roost.cli.sealed import Session

    return {one.box: one for one in Session(ctx, boxes).look(for_run=False)}


def _as_json(one: BoxStatus, look: Look | None, tunnels: int) -> dict[str, object]:
    differs = [{"thing": thing, "what": what} for thing, what in look.differs] if look else []
    return one.as_json() | {
        "seal": look.state if look else "unknown", "differs": differs, "tunnels": tunnels,
    }  # fmt: skip


def _table(
    found: list[BoxStatus], seals: Mapping[str, Look], tunnels: Mapping[str, int]
) -> tuple[list[str], list[tuple[object, ...]]]:
    rows = [_row(one, seals.get(one.box), tunnels.get(one.box, 0)) for one in found]
    columns = zip(COLUMNS, *rows, strict=True)
    kept = [column for column in columns if column[0] == "BOX" or any(c != "" for c in column[1:])]
    heads, *cells = zip(*kept, strict=True)
    return list(map(str, heads)), cells


def _row(one: BoxStatus, look: Look | None, tunnels: int) -> tuple[object, ...]:
    shown = tunnels or ""
    if one.state != "up":
        state = "down" if one.state == "unreachable" else one.state  # fits a narrow column
        return (one.box, state, *[""] * 8, shown, "")
    disk = one.fullest
    return (
        one.box,
        _days(one.uptime),
        SEALS.get(look.state, "") if look else "",
        f"{one.load / max(one.cpus, 1):.0%}",
        f"{1 - one.memory_free / max(one.memory_total, 1):.0%}",
        f"{1 - disk.free / max(disk.total, 1):.0%} {disk.mount}" if disk else "",
        " ".join(f"{gpu.busy}%" for gpu in one.gpus),
        " ".join(one.users),
        "" if one.jobs is None else one.jobs,
        "on" if one.lab else "",
        shown,
        _note(one),
    )


def _days(seconds: float) -> str:
    hours = int(seconds // 3600)
    return (
        f"{hours // 24} d" if hours >= 48 else f"{hours} h" if hours else f"{seconds / 60:.0f} min"
    )


def _note(one: BoxStatus) -> str:
    parts = ["reboot"] if one.reboot else []
    if one.security:
        parts.append(f"{one.security} security")
    return ", ".join(parts)
