"""Show a run while it runs: live on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from roost.events import RESULTS, Event, History, Kind
from roost.explain import explain
from roost.report import Reporter, duration

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

SLOW_SECONDS = 5.0
_STYLES = {
    Kind.OK: "green",
    Kind.CHANGED: "yellow",
    Kind.FAILED: "bold red",
    Kind.UNREACHABLE: "bold red",
}


class Progress(Protocol):
    """Something that shows events; used with ``with``."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, event: Event) -> None:
        """Take one event into the picture."""


def choose(
    out: Reporter, boxes: tuple[str, ...], history: History, *, verbose: int, diff: bool
) -> Progress:
    """The display that fits: every line with ``-v``, live on a terminal, plain lines elsewhere."""
    terminal = out.stderr.isatty() and not verbose
    if terminal:
        return LiveProgress(out.console(stderr=True), boxes, history, diff=diff)
    return PlainProgress(out, verbose=verbose, diff=diff)


def result_line(event: Event) -> str | None:
    """What is worth a line of its own that stays: a change, a failure, a step that took long."""
    took = f"  ({duration(event.seconds)})" if event.seconds >= SLOW_SECONDS else ""
    if event.kind in {Kind.FAILED, Kind.UNREACHABLE}:
        known = explain(event)
        reason = known.what if known else first_line(event.message)
        return f"{event.box}: {event.kind}  {event.step}: {reason}"
    if event.kind is Kind.CHANGED or (event.kind is Kind.OK and took):
        return f"{event.box}: {event.kind}  {event.step}{took}"
    return None


def first_line(text: str) -> str:
    """The first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "no message")


class PlainProgress:
    """One line for what changed, failed or took long, and one for each role that begins."""

    def __init__(self, out: Reporter, *, verbose: int = 0, diff: bool = False) -> None:
        self._out = out
        self._verbose = verbose
        self._diff = diff
        self._role = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: Event) -> None:
        """Write the lines that belong to ``event``."""
        if event.kind is Kind.TEXT:
            if self._verbose:
                self._out.note(event.message.rstrip())
        elif event.kind is Kind.TASK:
            self._heading(event)
        elif event.kind in RESULTS:
            line = result_line(event)
            if self._verbose and not line:
                line = f"{event.box}: {event.kind}  {event.step}"
            if line:
                self._out.note(line)
            if self._verbose and event.detail:
                self._out.note(event.detail)
            if self._diff and event.diff:
                self._out.note(event.diff.rstrip())

    def _heading(self, event: Event) -> None:
        if event.role and event.role != self._role:
            self._out.note(f"== {event.role}")
        self._role = event.role or self._role
        if self._verbose:
            self._out.note(f"-- {event.step}")


@dataclass
class _Line:
    step: str = "waiting"
    since: float = field(default_factory=time.monotonic)
    kind: Kind | None = None
    changed: int = 0


class LiveProgress:
    """A line per box that is rewritten, below the lines that stay."""

    def __init__(
        self, console: Console, boxes: tuple[str, ...], history: History, *, diff: bool = False
    ) -> None:
        self._console = console
        self._history = history
        self._diff = diff
        self._lines = {box: _Line() for box in boxes}
        self._done: dict[str, float] = {}
        self._begun = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=8,
            transient=True,
        )
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def show(self, event: Event) -> None:
        """Take one event into the picture."""
        from rich.text import Text

        if event.box:
            line = self._lines.setdefault(event.box, _Line())
            line.step, line.kind = event.step, None
            if event.kind is Kind.START:
                line.since = time.monotonic()
            elif event.kind in RESULTS:
                line.kind = event.kind
                line.changed += event.kind is Kind.CHANGED
                self._done[event.step] = event.seconds
        said = result_line(event)
        if said:
            self._console.print(
                Text(said, style=_STYLES.get(event.kind, "")), no_wrap=True, overflow="ellipsis"
            )
        if self._diff and event.diff:
            self._console.print(Text(event.diff.rstrip()))

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        boxes = Table.grid(padding=(0, 1), expand=True)
        boxes.add_column(no_wrap=True)
        boxes.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        boxes.add_column(justify="right", no_wrap=True)
        for name, line in self._lines.items():
            mark, style = _mark(line)
            took = "" if line.kind else duration(now - line.since)
            boxes.add_row(Text(f"{mark} {name}", style=style), Text(line.step), took)
        elapsed = now - self._begun
        foot = Table.grid(padding=(0, 1))
        fraction = self._history.fraction(self._done)
        if fraction is None:
            foot.add_row(f"{len(self._done)} steps done, {duration(elapsed)}")
        else:
            bar = ProgressBar(total=1.0, completed=fraction, width=30)
            foot.add_row(bar, f"{fraction:4.0%}", duration(elapsed) + self._left(fraction, elapsed))
        return Group(boxes, foot)

    @staticmethod
    def _left(fraction: float, elapsed: float) -> str:
        if fraction < 0.1 or fraction >= 1:
            return ""
        return f", about {duration(elapsed * (1 - fraction) / fraction)} left"


def _mark(line: _Line) -> tuple[str, str]:
    if line.kind in {Kind.FAILED, Kind.UNREACHABLE}:
        return "✗", "bold red"
    return ("✓", "green") if line.kind else ("•", "cyan")
