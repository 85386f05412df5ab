"""One run of a cell, written into the shared notebook.

JupyterLab applies remote changes of a cell's outputs in a simple way (``CodeCellModel`` in
``@jupyterlab/cells``), and this module keeps to what it understands: a changed stream is the
last output and changes at its end only; new outputs are appended; text is removed in one
transaction and added in the next. Any other change removes outputs up to the end and appends
them again.
"""

from __future__ import annotations

import time
from typing import Any

from pycrdt import Array, Map, Text

from .outputs import Output, Outputs, RichOutput, StreamOutput

ORIGIN = "jupyter-keeper"
"""Origin of our transactions: one that undo managers do not track."""

INSIST = 10.0
"""Seconds that reading a changed file again may take."""


class Mirror:
    """Brings a cell of a shared notebook up to date with ``outputs``.

    Args:
        notebook: a ``jupyter_ydoc.YNotebook``.
        cell_id: the cell's nbformat id.
        outputs: what the cell has to show.
    """

    def __init__(self, notebook: Any, cell_id: str, outputs: Outputs) -> None:
        self._notebook = notebook
        self._index = 0
        self._shown: list[Output | None] = []
        self._state = "running"
        self._insist_until = 0.0
        self.cell_id = cell_id
        self.outputs = outputs

    def start(self) -> None:
        """Empty the cell and show it as running."""
        cell = self._find()
        if cell is None:
            return
        with self._notebook.ydoc.transaction(origin=ORIGIN):
            outputs = cell["outputs"]
            if len(outputs):
                del outputs[0 : len(outputs)]
            _assign(cell, "execution_state", "running")
            _assign(cell, "execution_count", None)

    def sync(self) -> bool:
        """Write what is new; tells whether the cell is (still) there."""
        cell = self._find()
        if cell is None:
            return False
        youtputs = cell["outputs"]
        self._reconcile(youtputs)
        insert = self._remove_old(youtputs)
        with self._notebook.ydoc.transaction(origin=ORIGIN):
            if insert:
                text = youtputs[len(self._shown) - 1]["text"]
                text += insert
            new = self.outputs.items[len(self._shown) :]
            youtputs.extend([_to_map(item.as_json()) for item in new])
            _assign(cell, "execution_state", self._state)
        for item in new:
            if isinstance(item, StreamOutput):
                item.stream.take_edit()
        self._shown += new
        return True

    def finish(self, count: int | None) -> None:
        """Show the cell as done, with its number (none if it never ran)."""
        self._state = "idle"
        cell = self._find()
        if cell is not None:
            with self._notebook.ydoc.transaction(origin=ORIGIN):
                _assign(cell, "execution_count", count)
                _assign(cell, "execution_state", self._state)

    def insist(self) -> None:
        """The notebook is being read from disk again: what we wrote is to be put back."""
        self._insist_until = time.monotonic() + INSIST

    def has_echo(self) -> bool:
        """Whether somebody else has appended an output: the answer to ``input()``."""
        cell = self._find()
        return cell is None or len(cell["outputs"]) != len(self._shown)

    def _find(self) -> Map[Any] | None:
        cells = self._notebook.ycells
        count = len(cells)
        for index in (self._index, *range(count)):
            if index < count and cells[index].get("id") == self.cell_id:
                self._index = index
                cell: Map[Any] = cells[index]
                return cell if isinstance(cell.get("outputs"), Array) else None
        return None

    def _remove_old(self, youtputs: Array[Any]) -> str:
        """Remove what is to be replaced; the result goes to the end of the last stream."""
        count = len(self._shown)
        pairs = zip(self._shown, self.outputs.items, strict=False)
        same = next(
            (at for at, (a, b) in enumerate(pairs) if a is not b),
            min(count, len(self.outputs.items)),
        )
        last = self._shown[-1] if self._shown else None
        if same < count:
            with self._notebook.ydoc.transaction(origin=ORIGIN):
                del youtputs[same:count]
            del self._shown[same:]
        elif isinstance(last, StreamOutput):
            edit = last.stream.take_edit()
            if edit.delete:
                with self._notebook.ydoc.transaction(origin=ORIGIN):
                    text = youtputs[count - 1]["text"]
                    del text[len(text) - edit.delete : len(text)]
            return edit.insert
        return ""

    def _reconcile(self, youtputs: Array[Any]) -> None:
        """Make up for what others did to the outputs since the last time.

        A person clears them, a browser appends the answer to ``input()`` or a pager's text, a
        file that changed on disk replaces the cell by an older one.
        """
        missing = len(self._shown) - len(youtputs)
        insist = time.monotonic() < self._insist_until
        if missing > 0 and not insist and self._is_cleared(youtputs):
            self.outputs.forget([item for item in self._shown[:missing] if item is not None])
            del self._shown[:missing]
        elif missing > 0 or not self._ends_alike(youtputs):
            self._shown = [None] * len(youtputs)
        elif missing < 0:
            self._adopt(youtputs)

    def _adopt(self, youtputs: Array[Any]) -> None:
        count = len(self._shown)
        last = self._shown[-1] if self._shown else None
        others: list[Output] = [
            RichOutput(youtputs[index].to_py()) for index in range(count, len(youtputs))
        ]
        pairs = zip(self.outputs.items, self._shown, strict=False)
        if all(ours is shown for ours, shown in pairs):
            self.outputs.items[count:count] = others
            if isinstance(last, StreamOutput):
                self.outputs.continue_stream(last, at=count + len(others))
        self._shown += others

    def _is_cleared(self, youtputs: Array[Any]) -> bool:
        """Whether what is left are our latest outputs: the earlier ones were removed."""
        left = [youtputs[index].get("output_type") for index in range(len(youtputs))]
        ours = [_kind(item) for item in self._shown]
        return ours[len(ours) - len(left) :] == left and (not left or ours[: len(left)] != left)

    def _ends_alike(self, youtputs: Array[Any]) -> bool:
        if not self._shown:
            return True
        ours = self._shown[-1]
        theirs = youtputs[len(self._shown) - 1].get("text")
        if isinstance(ours, StreamOutput):
            return isinstance(theirs, Text) and len(theirs) == ours.stream.size
        return not isinstance(theirs, Text)


def _kind(item: Output | None) -> Any:
    if isinstance(item, RichOutput):
        return item.content.get("output_type")
    return "stream" if item else None


def _to_map(output: dict[str, Any]) -> Map[Any]:
    if output.get("output_type") == "stream":
        output = {**output, "text": Text(output["text"])}
    return Map(output)


def _assign(cell: Map[Any], key: str, value: Any) -> None:
    if cell.get(key, ...) != value:
        cell[key] = value
