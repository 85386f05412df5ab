"""The outputs of one cell: what the kernel's messages make of them.

Messages: https://jupyter-client.readthedocs.io/en/stable/messaging.html (IOPub channel).
Outputs: https://nbformat.readthedocs.io/en/latest/format_description.html#code-cell-outputs
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .streams import Stream

OUTPUT_TYPES = frozenset(
    {"stream", "display_data", "execute_result", "error", "clear_output", "update_display_data"}
)

_FIELDS = {
    "display_data": ("data", "metadata"),
    "execute_result": ("data", "metadata", "execution_count"),
    "error": ("ename", "evalue", "traceback"),
}


@dataclass(frozen=True)
class Limits:
    """How much one cell may hold.

    Attributes:
        stream: bytes of one stream output that are kept from its start.
        count: outputs of the cell.
        total: bytes of all its outputs together, roughly.
    """

    stream: int = 1_000_000
    count: int = 20_000
    total: int = 50_000_000


@dataclass(frozen=True)
class StreamOutput:
    """``stdout`` or ``stderr``, until something else is shown after it."""

    name: str
    stream: Stream

    def as_json(self) -> dict[str, Any]:
        return {"output_type": "stream", "name": self.name, "text": self.stream.text()}


@dataclass(frozen=True)
class RichOutput:
    """A result, a display or an error; ``content`` is its nbformat form."""

    content: dict[str, Any]
    display_id: str | None = None

    def as_json(self) -> dict[str, Any]:
        return self.content


Output = StreamOutput | RichOutput


class Outputs:
    """The outputs of one run of a cell, in order.

    An entry of ``items`` never changes once it is there, except for the growing end of the last
    stream: what is updated is replaced by a new object.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.items: list[Output] = []
        self._clear_next = False
        self._bytes = 0
        self._left_out: int | None = None

    @property
    def flooded(self) -> bool:
        """Whether a limit was reached, so that every update rewrites more than it adds."""
        last = self.items[-1] if self.items else None
        return self._left_out is not None or (
            isinstance(last, StreamOutput) and last.stream.flooded
        )

    def apply(self, kind: str, content: Mapping[str, Any]) -> None:
        """Apply one message of a type in ``OUTPUT_TYPES``, except ``update_display_data``."""
        if kind == "clear_output":
            self._clear_next = bool(content.get("wait"))
            if not self._clear_next:
                self.clear()
            return
        if self._clear_next:
            self._clear_next = False
            self.clear()
        if kind == "stream":
            self._write(str(content["name"]), str(content["text"]))
        else:
            self._show(kind, content)

    def update_display(self, display_id: str, content: Mapping[str, Any]) -> bool:
        """Apply ``update_display_data``; tells whether the cell shows that display."""
        found = False
        for index, item in enumerate(self.items):
            if isinstance(item, RichOutput) and item.display_id == display_id:
                new = _encodable({key: content[key] for key in ("data", "metadata")})
                self.items[index] = RichOutput({**item.content, **new}, display_id)
                found = True
        return found

    def forget(self, removed: list[Output]) -> None:
        """Leave out what somebody else has removed from the shared copy."""
        gone = {id(item) for item in removed}
        last = self.items[-1] if self.items else None
        self.items = [item for item in self.items if id(item) not in gone]
        if isinstance(last, StreamOutput) and id(last) in gone:
            self.continue_stream(last)

    def continue_stream(self, stream: StreamOutput, at: int = 0) -> None:
        """Let a new stream at index ``at`` show what ``stream`` got since its last edit."""
        if text := stream.stream.take_edit().insert:
            fresh = StreamOutput(stream.name, Stream(self._limits.stream))
            fresh.stream.write(text)
            self.items.insert(at, fresh)

    def clear(self) -> None:
        """Remove all outputs."""
        self.items = []
        self._bytes = 0
        self._left_out = None

    def as_json(self) -> list[dict[str, Any]]:
        return [item.as_json() for item in self.items]

    def _write(self, name: str, text: str) -> None:
        last = self.items[-1] if self.items else None
        if not (isinstance(last, StreamOutput) and last.name == name):
            last = StreamOutput(name, Stream(self._limits.stream))
            self._append(last)
        last.stream.write(text)

    def _show(self, kind: str, content: Mapping[str, Any]) -> None:
        output: dict[str, Any] = {"output_type": kind}
        output |= {field: content[field] for field in _FIELDS[kind] if field in content}
        transient = content.get("transient") or {}
        self._append(RichOutput(_encodable(output), transient.get("display_id")))

    def _append(self, item: Output) -> None:
        last = self.items[-1] if self.items else None
        if isinstance(last, StreamOutput):
            self._bytes += last.stream.held
        if isinstance(item, RichOutput):
            self._bytes += _size(item.content)
        if len(self.items) < self._limits.count and self._bytes < self._limits.total:
            self.items.append(item)
        elif self._left_out is None:
            self._left_out = 0
            self.items += [self._note(), item]
        else:
            self._left_out += 1
            self.items[-2:] = [self._note(), item]

    def _note(self) -> RichOutput:
        text = (
            f"[jupyter-keeper shows only the latest output from here on, {self._left_out:,} are "
            f"left out; c.KeeperExtension.output_limit = {self._limits.count}, "
            f"c.KeeperExtension.cell_limit = {self._limits.total}]"
        )
        data = {"text/plain": text}
        return RichOutput({"output_type": "display_data", "data": data, "metadata": {}})


def _size(output: Mapping[str, Any]) -> int:
    values = output.get("data", output).values()
    return sum(len(value) if isinstance(value, str) else 100 for value in values)


def _encodable(value: dict[str, Any]) -> dict[str, Any]:
    """A copy with lone surrogates replaced: kernels may send them, UTF-8 cannot say them."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
