"""``roost status --watch`` on a terminal: look again and again, and act on a box with a key."""

from __future__ import annotations

import os
import queue
import re
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from roost.errors import RoostError
from roost.report import Rows, live_table

if TYPE_CHECKING:
    from rich.live import Live

    from roost.cli.context import Context

HINT = "↑ ↓ choose · a attach · t tail a job · l lab · o open its tunnels · q leave"
KEYS = {"a": "shell", "l": "lab", "o": "tunnel open", "t": "logs -f"}
UP, DOWN = ("\x1b[A", "\x1bOA", "k"), ("\x1b[B", "\x1bOB", "j")
ENTRY = "from roost.cli.main import entry; entry()"
# Seconds after which a fresh table is shown at the latest.
BLINK = 0.1


@dataclass
class _View:
    """What is shown: the answers as they come, and the row that is marked."""

    fresh: queue.Queue[Rows | RoostError]
    table: Rows
    chosen: int = 0
    typed: list[str] = field(default_factory=list)

    def until_key(self, live: Live) -> str:
        """Show it until a key is pressed that is not for the table itself."""
        key = "first"
        while key not in KEYS and key != "q":
            self.chosen = max(self.chosen + (key in DOWN) - (key in UP), 0)
            news = not self.fresh.empty()
            if news:
                self.table = _taken(self.fresh.get())
            self.chosen = min(self.chosen, len(self.table[1]) - 1)
            if key or news:
                live.update(live_table(*self.table, chosen=self.chosen, hint=HINT), refresh=True)
            key = self._key()
        return key

    def _key(self) -> str:
        """The next key; nothing where none is pressed for a moment."""
        if not self.typed and select.select([sys.stdin], [], [], BLINK)[0]:
            said = os.read(sys.stdin.fileno(), 64).decode("utf-8", "replace")
            self.typed = re.findall(r"\x1b[\[O][A-Z]|.", said)
        return self.typed.pop(0) if self.typed else ""


def watch(ctx: Context, look: Callable[[], Rows], seconds: float) -> None:
    """Show a table until q or Ctrl-C; the boxes are asked meanwhile, so that no key waits for one.

    Args:
        ctx: where to print, and the workspace.
        look: asks the boxes; the first column of what it returns are their names.
        seconds: to wait between two looks.
    """
    from rich.live import Live

    fresh: queue.Queue[Rows | RoostError] = queue.Queue(1)
    threading.Thread(target=_keep_looking, args=(look, seconds, fresh), daemon=True).start()
    view = _View(fresh, _taken(fresh.get()))
    while True:
        # A new one each time: it would draw over what a command has left on the screen.
        with Live(console=ctx.out.console(), auto_refresh=False) as live, _keys():
            key = view.until_key(live)
        if key == "q":
            return
        _act(ctx, KEYS[key], str(view.table[1][view.chosen][0]))


def _keep_looking(
    look: Callable[[], Rows], seconds: float, fresh: queue.Queue[Rows | RoostError]
) -> None:
    while True:
        try:
            fresh.put(look())
        except RoostError as error:
            fresh.put(error)
        time.sleep(seconds)


def _taken(answer: Rows | RoostError) -> Rows:
    if isinstance(answer, RoostError):
        raise answer
    return answer


@contextmanager
def _keys() -> Iterator[None]:
    """Give each key at once, and do not show it."""
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _act(ctx: Context, verb: str, box: str) -> None:
    """Run a command on the terminal as if it had been typed."""
    from roost import process

    words = [*verb.split(), box]
    try:
        if verb == KEYS["t"]:
            words.append(_job(ctx, box))
        ctx.out.note(f"\n$ roost {' '.join(words)}")
        root = str(ctx.workspace().root)
        process.interactive([sys.executable, "-c", ENTRY, "-w", root, *words])
    except RoostError as error:
        ctx.out.error(error)


def _job(ctx: Context, box: str) -> str:
    """The newest job of a box, one that still runs before all others."""
    from roost import jobs
    from roost.cli.boxes import remote

    there = jobs.listing(remote(ctx, box))
    if not there:
        raise RoostError(f"{box} has no job", fix=f"roost run {box} -- COMMAND")
    return ([job for job in there if not job.over] or there)[-1].id
