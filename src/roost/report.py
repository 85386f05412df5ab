"""The one place that prints: data on stdout as text or JSON, notes on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from roost.errors import RoostError

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table


class Reporter:
    """Writes what a command has to say.

    Args:
        stdout: where data goes.
        stderr: where notes, progress and errors go.
    """

    def __init__(self, stdout: IO[str] | None = None, stderr: IO[str] | None = None) -> None:
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr

    def line(self, text: str = "") -> None:
        """Write one line of data."""
        print(text, file=self.stdout, flush=True)

    def note(self, text: str = "") -> None:
        """Write one line for the person who watches; a program that reads stdout is spared."""
        print(text, file=self.stderr, flush=True)

    def json(self, value: object) -> None:
        """Write ``value`` as JSON, one document, keys in the order given."""
        import json

        self.line(json.dumps(value, indent=2, ensure_ascii=False, default=str))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write a table with a heading; on a terminal it fits the width, in a pipe it is whole."""
        self.console().print(_table(columns, rows))

    def watch(
        self, look: Callable[[], tuple[Sequence[str], Iterable[Sequence[object]]]], seconds: float
    ) -> None:
        """Show a table anew every so many seconds, until Ctrl-C; in a pipe, one after another.

        Args:
            look: returns the columns and rows of this moment.
            seconds: to wait in between.
        """
        from rich.live import Live

        console = self.console()
        with Live(_table(*look()), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(seconds)
                table = _table(*look())
                if console.is_terminal:
                    live.update(table, refresh=True)
                else:
                    console.print(table)

    def mapping(self, values: Mapping[str, object]) -> None:
        """Write names and values, one pair a line, the values in a column."""
        width = max((len(name) for name in values), default=0)
        for name, value in values.items():
            self.line(f"{name:<{width}}  {value}")

    def error(self, error: RoostError) -> None:
        """Write what was found, why it stops, and what mends it."""
        self.note(format_error(error))

    def console(self, *, stderr: bool = False) -> Console:
        """A rich console on stdout (or stderr): colours only on a terminal, NO_COLOR honoured."""
        from rich.console import Console

        stream = self.stderr if stderr else self.stdout
        plain = not stream.isatty()
        return Console(file=stream, highlight=False, width=_PIPE_WIDTH if plain else None)


_PIPE_WIDTH = 4096


# The columns and rows of a table.
Rows = tuple[Sequence[str], Sequence[Sequence[object]]]


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], chosen: int | None = None
) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for number, row in enumerate(rows):
        cells = ("" if cell is None else _escape(str(cell)) for cell in row)
        table.add_row(*cells, style="reverse" if number == chosen else "")
    return table


def live_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, chosen: int, hint: str
) -> Group:
    """A table with one row marked, and a line below it: for a live view."""
    from rich.console import Group
    from rich.text import Text

    return Group(_table(columns, rows, chosen), Text(hint, style="dim"))


def format_error(error: RoostError) -> str:
    """An error as text: one line where one line does."""
    lines = [f"roost: {error.what}"]
    if error.why:
        lines.append(f"  why: {error.why}")
    if error.fix:
        lines.append(f"  fix: {error.fix}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``0.6 s``, ``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _escape(text: str) -> Any:
    from rich.text import Text

    return Text(text)
