"""What a terminal shows of a stream, kept as text that only changes at its end.

Programs redraw: a carriage return and a progress bar, a few lines up and a second bar, colours.
A notebook stores text. ``Screen`` plays the control characters and escape sequences of
ECMA-48 (the part that line-oriented programs use) over the last lines of the stream; what has
scrolled out of their reach is settled and never changes again.
"""

from __future__ import annotations

import re

REACH = 100
"""Lines at the end of the stream that cursor movements can still reach."""

LONGEST_LINE = 16_384
"""Characters after which a line counts as wrapped: what is before them is settled."""

_TOKEN = re.compile(
    r"(?P<text>[^\x00-\x08\x0a-\x1f\x7f]+)"
    r"|(?P<newline>[\n\v\f])"
    r"|\x1b\[(?P<arguments>[0-9;:<=>?]*)[ -/]*(?P<final>[@-~])"
    r"|(?P<ignored>\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[P^_X][^\x1b]*\x1b\\"
    r"|\x1b[ -/]*[0-OQ-WYZ`-~])"
    r"|(?P<pending>\x1b(?:\[[0-9;:<=>?]*[ -/]*|\][^\x07\x1b]{0,512}\x1b?|[P^_X][^\x1b]{0,512}\x1b?"
    r"|[ -/]*)\Z)"
    r"|(?P<control>.)",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f]*\Z")

# Which codes of "select graphic rendition" replace each other.
_KINDS = (
    ("intensity", {1, 2}, 22),
    ("italic", {3}, 23),
    ("underline", {4}, 24),
    ("inverse", {7}, 27),
    ("conceal", {8}, 28),
    ("strike", {9}, 29),
    ("colour", {*range(30, 38), *range(90, 98)}, 39),
    ("background", {*range(40, 48), *range(100, 108)}, 49),
)

Style = tuple[str, ...]
Line = list[tuple[Style, str]]


class Screen:
    """The end of one stream as a terminal shows it.

    ``settled`` collects text that left the reach of the cursor; whoever reads it empties it
    with ``take_settled``. ``tail`` renders what can still change.
    """

    def __init__(self) -> None:
        self._lines: list[Line] = [[]]
        self._row = 0
        self._column = 0
        self._style: Style = ()
        self._settled: list[str] = []
        self._settled_style: Style = ()
        self._pending = ""

    def write(self, text: str) -> None:
        """Play ``text`` (any length, may end in the middle of an escape sequence)."""
        text = self._pending + text
        self._pending = ""
        if self._at_end() and _PLAIN.match(text):
            self._append_plain(text)
        else:
            for match in _TOKEN.finditer(text):
                self._play(match)
        self._settle()

    def take_settled(self) -> str:
        """The text settled since the last call."""
        text = "".join(self._settled)
        self._settled.clear()
        return text

    def tail(self) -> str:
        """The text that may still change; it follows the settled text."""
        text, style = _render(self._lines, self._settled_style)
        return text + _transition(style, self._style if self._at_end() else style)

    def _at_end(self) -> bool:
        return self._row == len(self._lines) - 1 and self._column == _length(self._lines[-1])

    def _append_plain(self, text: str) -> None:
        text = self._settle_most(text)
        first, *rest = text.split("\n")
        self._put(first)
        for line in rest:
            self._lines.append([(self._style, line)] if line else [])
        self._row = len(self._lines) - 1
        self._column = _length(self._lines[-1])

    def _settle_most(self, text: str) -> str:
        """Settle at once what a long text would push out of reach; the rest is returned."""
        if text.count("\n") <= REACH:
            return text
        cut = len(text)
        for _ in range(REACH):
            cut = text.rindex("\n", 0, cut)
        shown, style = _render(self._lines, self._settled_style)
        self._settled.append(shown + _transition(style, self._style) + text[: cut + 1])
        self._settled_style = self._style
        self._lines, self._row, self._column = [[]], 0, 0
        return text[cut + 1 :]

    def _play(self, match: re.Match[str]) -> None:
        if text := match["text"]:
            self._put(text)
        elif match["newline"]:
            self._row += 1
            self._column = 0
            if self._row == len(self._lines):
                self._lines.append([])
        elif match["final"]:
            self._command(match["final"], match["arguments"])
        elif match["pending"]:
            self._pending = match["pending"]
        elif match["control"] == "\r":
            self._column = 0
        elif match["control"] == "\b":
            self._column = max(0, self._column - 1)

    def _put(self, text: str) -> None:
        line = self._lines[self._row]
        length = _length(line)
        if self._column == length and line and line[-1][0] == self._style:
            line[-1] = (self._style, line[-1][1] + text)
        elif text:
            gap = " " * (self._column - length)
            left = _cut(line, 0, self._column) + ([((), gap)] if gap else [])
            right = _cut(line, self._column + len(text), length)
            self._lines[self._row] = [*left, (self._style, text), *right]
        self._column += len(text)

    def _command(self, final: str, arguments: str) -> None:
        if final == "m":
            self._style = _restyle(self._style, arguments)
            return
        numbers = [int(part) if part.isdecimal() else 0 for part in arguments.split(";")]
        amount = max(1, numbers[0])
        last = len(self._lines) - 1
        if final in "AF":
            self._row = max(0, self._row - amount)
        elif final in "BE":
            self._row = min(last, self._row + amount)
        elif final == "C":
            self._column = min(self._column + amount, LONGEST_LINE)
        elif final == "D":
            self._column = max(0, self._column - amount)
        elif final in "G`":
            self._column = min(amount, LONGEST_LINE) - 1
        elif final in "Hf":
            self._row = min(last, amount - 1)
            self._column = min(max(1, numbers[1] if len(numbers) > 1 else 1), LONGEST_LINE) - 1
        elif final in "JK":
            self._erase(final, numbers[0])
        if final in "EF":
            self._column = 0

    def _erase(self, final: str, what: int) -> None:
        line = self._lines[self._row]
        if what == 0:
            self._lines[self._row] = _cut(line, 0, self._column)
        elif what == 1:
            blank: Line = [((), " " * min(self._column + 1, _length(line)))]
            self._lines[self._row] = blank + _cut(line, self._column + 1, _length(line))
        else:
            self._lines[self._row] = []
        if final == "J":
            below = range(self._row + 1, len(self._lines)) if what != 1 else range(0)
            above = range(self._row) if what != 0 else range(0)
            for row in (*above, *below):
                self._lines[row] = []

    def _settle(self) -> None:
        extra = len(self._lines) - REACH
        if extra > 0:
            text, self._settled_style = _render([*self._lines[:extra], []], self._settled_style)
            self._settled.append(text)
            del self._lines[:extra]
            self._row = max(0, self._row - extra)
        if _length(self._lines[-1]) > LONGEST_LINE and self._at_end():
            text, self._settled_style = _render(self._lines, self._settled_style)
            self._settled.append(text)
            self._lines, self._row, self._column = [[]], 0, 0


def _length(line: Line) -> int:
    return sum(len(text) for _, text in line)


def _cut(line: Line, start: int, stop: int) -> Line:
    """The columns from ``start`` to before ``stop``."""
    part: Line = []
    at = 0
    for style, text in line:
        piece = text[max(0, start - at) : max(0, stop - at)]
        if piece:
            part.append((style, piece))
        at += len(text)
    return part


def _render(lines: list[Line], style: Style) -> tuple[str, Style]:
    """The text of ``lines``, the style before it being ``style``, and the style at its end."""
    parts: list[str] = []
    for number, line in enumerate(lines):
        if number:
            parts.append("\n")
        for run_style, text in line:
            parts.append(_transition(style, run_style) + text)
            style = run_style
    return "".join(parts), style


def _transition(old: Style, new: Style) -> str:
    if old == new:
        return ""
    if not new:
        return "\x1b[0m"
    if set(old) <= set(new):
        return f"\x1b[{';'.join(code for code in new if code not in old)}m"
    return f"\x1b[0;{';'.join(new)}m"


def _restyle(style: Style, arguments: str) -> Style:
    current: dict[str, str] = {_kind(code): code for code in style}
    codes = iter(arguments.replace(":", ";").split(";"))
    for code in codes:
        number = int(code) if code.isdecimal() else 0
        if number == 0:
            current.clear()
        elif number in (38, 48):
            mode = next(codes, "")
            values = [next(codes, "") for _ in range({"5": 1, "2": 3}.get(mode, 0))]
            colour = ";".join([str(number), mode, *values])
            current["colour" if number == 38 else "background"] = colour
        else:
            for kind, setting, unset in _KINDS:
                if number == unset:
                    current.pop(kind, None)
                elif number in setting:
                    current[kind] = str(number)
    return tuple(current[kind] for kind, _, _ in _KINDS if kind in current)


def _kind(code: str) -> str:
    number = int(code.split(";", maxsplit=1)[0])
    if number in (38, 48):
        return "colour" if number == 38 else "background"
    return next(kind for kind, setting, _ in _KINDS if number in setting)
