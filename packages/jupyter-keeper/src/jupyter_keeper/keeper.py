"""The keeper of one server: which runs have news, and when they are written and saved."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from .mirror import INSIST, Mirror
from .notebooks import Notebook, Notebooks
from .outputs import Limits, Outputs

ALONE = 2.0
"""Seconds between two updates of a notebook that nobody looks at."""

FLOOD = 2.0
"""Seconds between two updates of a cell that reached a limit."""

UNSETTLED = 10.0
"""Seconds from the end of a run in which the notebook's file may not have all of it."""

FLUSH_SHARE = 8
"""Updating a notebook takes at most one part in this many of the time."""

ECHO_WAIT = 1.0
"""Seconds that output after an answer to ``input()`` waits for the browser to show it."""


@dataclass(eq=False)
class Run:
    """One execution of a cell of a shared notebook.

    Attributes:
        msg_id: of the ``execute_request``; the kernel's messages name it as their parent.
        session: the client session that asked.
        count: the execution count, once the kernel has said it.
        ended: when the run was over, in seconds of the monotonic clock.
    """

    msg_id: str
    session: str
    notebook: Notebook
    outputs: Outputs
    mirror: Mirror
    count: int | None = None
    done: bool = False
    ended: float = 0.0
    echo_until: float = 0.0

    @property
    def settled(self) -> bool:
        """Whether a file that has other outputs is newer than ours."""
        return self.done and time.monotonic() - self.ended > UNSETTLED


@dataclass
class _Pace:
    runs: set[Run] = field(default_factory=set)
    timer: asyncio.TimerHandle | None = None
    due: float = 0.0
    last: float = 0.0
    took: float = 0.0


class Keeper:
    """Writes runs into their notebooks, not too often, and has the notebooks saved.

    Args:
        notebooks: the open ones.
        limits: how much a cell may hold.
        flush_interval: seconds between two updates of a notebook that somebody looks at.
        save_interval: seconds between two saves.
        log: where to report.
    """

    def __init__(
        self,
        notebooks: Notebooks,
        limits: Limits,
        *,
        flush_interval: float,
        save_interval: float,
        log: Any,
    ) -> None:
        self.notebooks = notebooks
        self.listeners: dict[str, Any] = {}
        self.log = log
        self._limits = limits
        self._flush_interval = flush_interval
        self._save_interval = save_interval
        self._paces: dict[Notebook, _Pace] = {}

    def new_outputs(self) -> Outputs:
        return Outputs(self._limits)

    def begin(self, msg_id: str, session: str, cell_id: str, kernel_id: str) -> Run | None:
        """A run of the cell starts; nothing if no open notebook has that cell."""
        notebook = self.notebooks.find(cell_id, kernel_id)
        if notebook is None:
            return None
        outputs = self.new_outputs()
        run = Run(msg_id, session, notebook, outputs, Mirror(notebook.shared, cell_id, outputs))
        run.mirror.start()
        notebook.touched()
        return run

    def end(self, run: Run) -> None:
        """The run is over: write the rest, its number and its state at once."""
        run.done = True
        run.ended = time.monotonic()
        run.echo_until = 0.0
        self.schedule(run, at_once=True)

    def drop(self, run: Run) -> None:
        """Leave the cell of ``run`` to another run."""
        run.done = True
        if run.notebook in self._paces:
            self._paces[run.notebook].runs.discard(run)

    def overwritten(self, room_id: str) -> None:
        """A notebook's file is being read again: what it cannot have yet is put back.

        Not only git changes files: a save during which the file is renamed counts as a change by
        others, too.
        """
        loop = asyncio.get_running_loop()
        for listener in self.listeners.values():
            for run in listener.latest():
                if run.notebook.room.room_id == room_id and not run.settled:
                    run.mirror.insist()
                    for seconds in range(1, int(INSIST)):
                        loop.call_later(seconds, self.schedule, run)

    def schedule(self, run: Run, *, at_once: bool = False) -> None:
        """Have the news of ``run`` written soon."""
        pace = self._paces.setdefault(run.notebook, _Pace())
        pace.runs.add(run)
        interval = self._flush_interval if run.notebook.watched else ALONE
        if run.outputs.flooded:
            interval = max(interval, FLOOD)
        wait = max(interval, FLUSH_SHARE * pace.took)
        now = time.monotonic()
        due = now if at_once else max(now + self._flush_interval / 4, pace.last + wait)
        if pace.timer is not None:
            if due >= pace.due:
                return
            pace.timer.cancel()
        pace.due = due
        loop = asyncio.get_running_loop()
        pace.timer = loop.call_later(due - now, self._flush, run.notebook, pace)

    async def save_all(self) -> None:
        """Write all news and save them now."""
        for notebook, pace in list(self._paces.items()):
            if pace.timer is not None:
                pace.timer.cancel()
                self._flush(notebook, pace)
        # Twice: a save that goes on already may have missed the last news, and one may fail.
        for _ in range(2):
            tasks = self._save(now=True)
            if tasks:
                await asyncio.wait(tasks)

    def tick(self) -> None:
        """What has to be looked after about once a second."""
        for listener in list(self.listeners.values()):
            listener.look_after()
            for run in listener.unfinished():
                run.notebook.stay()
        self._save()
        books = set(self.notebooks)
        for book in [book for book in self._paces if book not in books]:
            self._forget(book)

    def _save(self, *, now: bool = False) -> list[asyncio.Task[None]]:
        """Save what is due, or everything that changed."""
        tasks = [book.save_if_due(self._save_interval, now=now) for book in self.notebooks]
        return [task for task in tasks if task is not None]

    def _forget(self, book: Notebook) -> None:
        timer = self._paces.pop(book).timer
        if timer is not None:
            timer.cancel()

    def _flush(self, notebook: Notebook, pace: _Pace) -> None:
        pace.timer = None
        started = time.monotonic()
        runs, pace.runs = pace.runs, set()
        for run in runs:
            if started < run.echo_until and not run.mirror.has_echo():
                self.schedule(run)
                continue
            run.echo_until = 0.0
            try:
                run.mirror.sync()
                if run.done:
                    run.mirror.finish(run.count)
            except Exception:
                self.log.exception("jupyter-keeper could not update a cell")
        notebook.touched()
        pace.last = time.monotonic()
        pace.took = pace.last - started
