"""The page that ``roost up --report`` writes: what took the time, what changed, what failed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2

from roost.events import RESULTS, Event, Kind, Outcome
from roost.explain import explain
from roost.report import duration


@dataclass(frozen=True)
class Span:
    """A role's part of one box's time line; ``left`` and ``width`` in percent of the run."""

    role: str
    seconds: float
    left: float
    width: float
    hue: int
    changed: int
    failed: bool


@dataclass(frozen=True)
class Failure:
    """A task that failed, in words."""

    box: str
    step: str
    what: str
    fix: str
    detail: str


def page(
    outcome: Outcome,
    events: Sequence[Event],
    *,
    title: str,
    ended: float,
    versions: Mapping[str, str],
) -> str:
    """The whole page as HTML, with all that it needs inside.

    Args:
        outcome: how the run ended.
        events: everything that happened in it, in order.
        title: what was done to what.
        ended: when, in seconds since 1970.
        versions: what ran it, by name.
    """
    results = [event for event in events if event.box and event.kind in RESULTS and event.begun]
    lines = {name: list(_spans(name, results)) for name in outcome.boxes}
    source = resources.files("roost").joinpath("run_page.html.j2").read_text("utf-8")
    template = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    ).from_string(source)
    return template.render(
        title=title,
        when=time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(ended)),
        took=duration(outcome.seconds),
        rows=[_row(name, outcome) for name in outcome.boxes],
        lines=lines,
        roles=list(dict.fromkeys((s.role, s.hue) for spans in lines.values() for s in spans)),
        slowest=sorted(results, key=lambda event: -event.seconds)[:8],
        changes=outcome.changes,
        failures=list(_failures(outcome)),
        versions=versions,
        duration=duration,
    )


def _row(name: str, outcome: Outcome) -> tuple[str, str, int, int]:
    box = outcome.boxes[name]
    return name, box.state, box.changed, box.ok


def _spans(box: str, results: Sequence[Event]) -> Iterator[Span]:
    begin = min((event.begun for event in results), default=0.0)
    total = max((event.begun + event.seconds for event in results), default=1.0) - begin or 1.0
    roles = list(dict.fromkeys(event.role for event in results))
    own = [event for event in results if event.box == box]
    for role, group in itertools.groupby(own, key=lambda event: event.role):
        steps = list(group)
        since, until = steps[0].begun, max(e.begun + e.seconds for e in steps)
        yield Span(
            role or "play",
            until - since,
            100 * (since - begin) / total,
            100 * (until - since) / total,
            # Neighbours far apart on the wheel of colours: by the golden angle, in degrees.
            round(210 + 137.508 * roles.index(role)) % 360,
            sum(event.kind is Kind.CHANGED for event in steps),
            any(event.kind in {Kind.FAILED, Kind.UNREACHABLE} for event in steps),
        )


def _failures(outcome: Outcome) -> Iterator[Failure]:
    for name, box in outcome.boxes.items():
        for event in [*box.failures, *([box.unreachable] if box.unreachable else [])]:
            known = explain(event)
            said = event.message or event.detail or "no message"
            yield Failure(
                name,
                event.step,
                known.what if known else said,
                known.fix if known else "",
                "\n".join(dict.fromkeys(s for s in (event.message, event.detail) if s)),
            )
