"""The text of one stream output, and the smallest edits that bring a shared copy up to date."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .terminal import Screen

RECENT = 16_384
"""Bytes of settled text that are still shown after a flood was cut."""

PIECE = 262_144
"""Characters that are taken at a time: a flood comes in messages of many megabytes, and each step
makes copies."""


@dataclass(frozen=True)
class Edit:
    """Cut ``delete`` bytes from the end, then append ``insert``.

    Bytes, because a pycrdt ``Text`` is indexed by the bytes of its UTF-8 form.
    """

    delete: int
    insert: str


class Stream:
    """One stream output.

    The text is ``head + note + recent + tail``. The head only grows, up to ``limit`` bytes;
    what no longer fits runs through ``recent``, which keeps its last lines, and the note says
    how much was left out between the two.
    """

    def __init__(self, limit: int) -> None:
        self._screen = Screen()
        self._limit = limit
        self._head: list[str] = []
        self._fresh: list[str] = []
        self._head_bytes = 0
        self._full = False
        self._recent: deque[str] = deque()
        self._recent_bytes = 0
        self._left_out = 0
        self._end = ""
        self.size = 0
        """Bytes of the shared copy after the last edit was applied."""

    @property
    def flooded(self) -> bool:
        """Whether text is left out: every edit then rewrites a few thousand bytes."""
        return self._left_out > 0

    @property
    def held(self) -> int:
        """Bytes that are held in memory, roughly."""
        return self._head_bytes + self._recent_bytes

    def write(self, text: str) -> None:
        """Append what the program wrote, control characters included."""
        for start in range(0, len(text), PIECE):
            self._screen.write(_encodable(text[start : start + PIECE]))
            settled = self._screen.take_settled()
            if settled:
                self._keep(settled)

    def take_edit(self) -> Edit:
        """What changed since the last call, as one edit at the end of the shared copy."""
        end = self._render_end()
        text = "".join(self._fresh) + end
        self._fresh.clear()
        kept = _common(self._end, text)
        edit = Edit(len(self._end[kept:].encode()), text[kept:])
        self._end = end
        self.size += len(edit.insert.encode()) - edit.delete
        return edit

    def text(self) -> str:
        """The whole text as it stands now."""
        return "".join(self._head) + self._render_end()

    def _keep(self, settled: str) -> None:
        if not self._full:
            size = len(settled.encode())
            if self._head_bytes + size <= self._limit:
                self._extend_head(settled, size)
                return
            self._full = True
            settled = self._fill_head(settled)
        for line in self._skip(settled).splitlines(keepends=True):
            self._recent.append(line)
            self._recent_bytes += len(line.encode())
        while self._recent_bytes > RECENT and self._recent:
            size = len(self._recent.popleft().encode())
            self._recent_bytes -= size
            self._left_out += size

    def _skip(self, settled: str) -> str:
        """Leave out at once what would run through ``recent`` anyway; the rest is returned."""
        if len(settled) <= 2 * RECENT:
            return settled
        start = settled.rfind("\n", 0, len(settled) - RECENT) + 1
        self._left_out += self._recent_bytes + len(settled[:start].encode())
        self._recent.clear()
        self._recent_bytes = 0
        return settled[start:]

    def _fill_head(self, settled: str) -> str:
        lines = settled.splitlines(keepends=True)
        for number, line in enumerate(lines):
            size = len(line.encode())
            if self._head_bytes + size > self._limit:
                return "".join(lines[number:])
            self._extend_head(line, size)
        return ""

    def _extend_head(self, text: str, size: int) -> None:
        self._head.append(text)
        self._fresh.append(text)
        self._head_bytes += size

    def _render_end(self) -> str:
        tail = self._screen.tail()
        if not self._left_out:
            return "".join(self._recent) + tail
        note = (
            f"[jupyter-keeper left out {self._left_out:,} bytes here; "
            f"c.KeeperExtension.stream_limit = {self._limit}]\n"
        )
        return note + "".join(self._recent) + tail


def _common(one: str, other: str) -> int:
    """How many characters ``one`` and ``other`` share at their start."""
    if other.startswith(one):
        return len(one)
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _encodable(text: str) -> str:
    """``text`` with lone surrogates replaced: kernels may send them, UTF-8 cannot say them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
