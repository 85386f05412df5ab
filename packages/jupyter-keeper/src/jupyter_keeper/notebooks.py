"""The shared notebooks that jupyter-collaboration holds in the server.

This is the one module that knows its rooms. The names used beside its public ones are
``ywebsocket_server.rooms``, ``DocumentRoom._document``, ``._file``, ``.ready``, ``.cleaner``,
``._maybe_save_document``: ``versions.py`` says for which releases they were tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

from pycrdt import Array

SAVE_SHARE = 20
"""A notebook is saved at most one part in this many of the time."""

RETRY_LIMIT = 60.0
"""Longest time in seconds from a save that failed to the next."""


class Notebook:
    """One open shared notebook, and when it was saved last."""

    def __init__(self, room: Any, log: Any) -> None:
        self.room = room
        self._log = log
        self._dirty = False
        self._saved_at = 0.0
        self._took = 0.0
        self._failures = 0
        self._saving: asyncio.Task[None] | None = None

    @property
    def shared(self) -> Any:
        """The ``jupyter_ydoc.YNotebook``."""
        return self.room._document

    @property
    def watched(self) -> bool:
        """Whether a browser has it open."""
        return bool(self.room.clients)

    def touched(self) -> None:
        """Note that it has to be saved."""
        self._dirty = True

    def saved(self) -> None:
        """Note that its file has been written."""
        self._failures = 0

    def failed(self) -> None:
        """Note that its file could not be written: collaboration gives up until the next change."""
        self._failures += 1
        self._dirty = True

    def stay(self) -> None:
        """Stop a clean-up that the user's settings have started while a cell still runs."""
        if self.room.cleaner is not None and not self.room.cleaner.done():
            self.room.cleaner.cancel()

    def save_if_due(self, interval: float, *, now: bool = False) -> asyncio.Task[None] | None:
        """Start to save what changed, unless that was done less than ``interval`` s ago.

        The result is the save that goes on, also where it was started before.
        """
        if self._saving is not None and not self._saving.done():
            return self._saving
        retry = min(interval * (1 + self._failures), RETRY_LIMIT)
        wait = 0.0 if now else max(interval, retry, SAVE_SHARE * self._took)
        if not self._dirty or time.monotonic() - self._saved_at < wait:
            return None
        if not self._autosaved() or self._is_deleted():
            return None
        self._dirty = False
        self._saving = asyncio.create_task(self._save())
        return self._saving

    def _autosaved(self) -> bool:
        """Whether saving is wanted: everybody who has it open may have turned it off."""
        wishes = [s.get("autosave", True) for s in self.room.awareness.states.values() if s]
        return any(wishes) or not wishes

    def _is_deleted(self) -> bool:
        try:
            return not self.room._file.path
        except RuntimeError:
            return True

    async def _save(self) -> None:
        started = time.monotonic()
        try:
            # As a task of our own: the stock one is cancelled by the next change.
            await self.room._maybe_save_document(None, save_now=True)
        except Exception as error:
            self._log.warning("jupyter-keeper could not save a notebook: %s", error)
            self.failed()
        self._saved_at = time.monotonic()
        self._took = self._saved_at - started


class Notebooks:
    """Finds the shared notebook that a cell belongs to.

    Args:
        collaboration: the ``YDocExtension`` of the server.
        session_manager: the server's, to tell copies of one notebook apart.
        log: where to report.
    """

    def __init__(self, collaboration: Any, session_manager: Any, log: Any) -> None:
        self._collaboration = collaboration
        self._sessions = session_manager
        self._log = log
        self._known: dict[str, Notebook] = {}

    def __iter__(self) -> Iterator[Notebook]:
        rooms = self._collaboration.ywebsocket_server.rooms
        for name in [
            name for name, book in self._known.items() if rooms.get(name) is not book.room
        ]:
            del self._known[name]
        for name, room in list(rooms.items()):
            if getattr(room, "file_type", None) == "notebook" and room.ready:
                if name not in self._known:
                    self._known[name] = Notebook(room, self._log)
                    self._settle(self._known[name])
                yield self._known[name]

    def take_note(self) -> None:
        """Notice notebooks that were just loaded, before anybody can run a cell of theirs."""
        for _ in self:
            pass

    def find(self, cell_id: str, kernel_id: str) -> Notebook | None:
        """The open notebook with that cell, or nothing where there is doubt."""
        books = [book for book in self if _has_cell(book.shared.ycells, cell_id)]
        if len(books) > 1:
            # A copied notebook has the same cell ids: the kernel's sessions tell.
            paths = self._paths(kernel_id)
            books = [book for book in books if book.room._file.path in paths]
        return books[0] if len(books) == 1 else None

    def of_room(self, room_id: str) -> Notebook | None:
        """The notebook that was looked at in that room."""
        return self._known.get(room_id)

    def _paths(self, kernel_id: str) -> set[str]:
        try:
            rows = self._sessions.cursor.execute(
                "SELECT path FROM session WHERE kernel_id = ?", (kernel_id,)
            ).fetchall()
        except (AttributeError, sqlite3.Error):
            return set()
        return {row["path"].removeprefix("RTC:") for row in rows}

    def _settle(self, book: Notebook) -> None:
        """Cells of a notebook just loaded do not run: their server was stopped meanwhile."""
        for cell in book.shared.ycells:
            if cell.get("execution_state") == "running":
                cell["execution_state"] = "idle"


def _has_cell(cells: Array[Any], cell_id: str) -> bool:
    return any(cells[index].get("id") == cell_id for index in range(len(cells)))


def end_threads_with_main() -> None:
    """Have the threads that read files and the store of edits end with the main thread.

    anyio ends each with the task that it was started for, and tasks of jupyter-collaboration do not
    end while a page is open or after a notebook was deleted: the process would wait for ever.
    """
    threading.Thread(target=_end_threads, name="jupyter-keeper end", daemon=True).start()


def _end_threads() -> None:
    threading.main_thread().join()
    for thread in threading.enumerate():
        if thread.name == "AnyIO worker thread" and hasattr(thread, "stop"):
            # Its queue has two places: where they are taken, one of them holds such a word already.
            with contextlib.suppress(queue.Full):
                thread.stop()
