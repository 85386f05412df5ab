"""Show the output of a program as a terminal would, progress bars included.

Source of the sequences: ECMA-48, and xterm's "Control Sequences" for what is private.
"""

from __future__ import annotations

import codecs
import re

# A whole control sequence, one control character, or text up to the next of these.
_TOKEN = re.compile(
    r"\x1b\[(?P<params>[0-?]*)[ -/]*(?P<final>[@-~])"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[PX^_][^\x1b]*\x1b\\"
    r"|\x1b[ -/]*[0-Z\\`-~]"
    r"|(?P<control>[\x00-\x1f\x7f])"
    r"|(?P<text>[^\x00-\x1f\x7f]+)"
)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?|[ -/]*)?$")
_LONGEST_SEQUENCE = 4096
_PLAIN = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f]*")
_HARMLESS = set("\r\n\t\b")
# What draws progress bars and colours: cursor movement, erasing, SGR. The rest could leave the
# terminal of whoever looks in a state that they did not ask for.
_DRAWING = set("ABCDEFGJKPX@m")
# What tmux would have undone when it left: margins, mouse, focus, pasting, keys, colours, cursor,
# and its second screen. Where the cursor was before nobody knows: below all is free of text.
LEAVE_TMUX = (
    "\x1b[r\x1b[?1000;1002;1003;1005;1006l\x1b[?1004l\x1b[?2004l\x1b[>4m\x1b[?1l\x1b>"
    "\x1b[m\x1b(B\x1b[?25h\x1b[?1049l\x1b[999H\r\n"
)


class _Decoder:
    """Bytes to text, holding back what a later chunk has to complete."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def __call__(self, data: bytes, *, final: bool = False) -> str:
        text = self._held + self._utf8.decode(data, final)
        self._held = ""
        if not final and (cut := _UNFINISHED.search(text, max(0, len(text) - _LONGEST_SEQUENCE))):
            text, self._held = text[: cut.start()], text[cut.start() :]
        return text


class Filter:
    """For a real terminal: what draws is passed on, what could upset the terminal is not."""

    def __init__(self) -> None:
        self._decode = _Decoder()

    def feed(self, data: bytes) -> str:
        """What the terminal is to be given for ``data``."""
        text = self._decode(data)
        return text if _PLAIN.fullmatch(text) else "".join(map(_drawn, _TOKEN.finditer(text)))


def _drawn(token: re.Match[str]) -> str:
    if token["text"] or token["control"] in _HARMLESS:
        return token[0]
    private = (token["params"] or "")[:1] in set("<=>?")
    return token[0] if token["final"] in _DRAWING and not private else ""


class Screen:
    """For a file or a pipe: plain lines, each given out once nothing can change it any more.

    Lines are not folded, and colours are left out.

    Args:
        height: how many lines up the cursor can go: a line comes out once it is further up.
            1 gives every line as soon as it ends.
    """

    def __init__(self, height: int = 50) -> None:
        self._decode = _Decoder()
        self._height = height
        self._rows = [""]
        self._row = 0
        self._column = 0

    def feed(self, data: bytes) -> str:
        """The lines that are certain after ``data``, each with its line feed."""
        self._take(self._decode(data))
        return self._overflow()

    def finish(self) -> str:
        """What still stands on the screen."""
        self._take(self._decode(b"", final=True))
        rows, self._rows, self._row, self._column = self._rows, [""], 0, 0
        while rows and not rows[-1]:
            rows.pop()
        return "".join(row.rstrip() + "\n" for row in rows)

    def _overflow(self) -> str:
        done = len(self._rows) - self._height
        # Without a window above the cursor, a line that has ended is certain.
        if done <= 0:
            return ""
        rows, self._rows = self._rows[:done], self._rows[done:]
        self._row = max(0, self._row - done)
        return "".join(row.rstrip() + "\n" for row in rows)

    def _take(self, text: str) -> None:
        at_end = self._row == len(self._rows) - 1 and self._column == len(self._rows[-1])
        if at_end and "\t" not in text and _PLAIN.fullmatch(text):
            first, *others = text.split("\n")
            self._rows[-1] += first
            self._rows.extend(others)
            self._row, self._column = len(self._rows) - 1, len(self._rows[-1])
            return
        for token in _TOKEN.finditer(text):
            if token["text"]:
                self._write(token["text"])
            elif token["control"]:
                self._control(token["control"])
            elif token["final"]:
                self._sequence(token["params"], token["final"])

    def _write(self, text: str) -> None:
        row = self._rows[self._row].ljust(self._column)
        end = self._column + len(text)
        self._rows[self._row] = row[: self._column] + text + row[end:]
        self._column = end

    def _control(self, control: str) -> None:
        if control == "\n":
            self._down(1)
            self._column = 0
        elif control == "\r":
            self._column = 0
        elif control == "\b":
            self._column = max(0, self._column - 1)
        elif control == "\t":
            self._write_tab()

    def _write_tab(self) -> None:
        # At the end of a line the tab itself is kept: tables stay what they were.
        if self._column == len(self._rows[self._row]):
            self._write("\t")
        else:
            self._column += 8 - self._column % 8

    def _down(self, count: int) -> None:
        self._row += count
        while len(self._rows) <= self._row:
            self._rows.append("")

    def _sequence(self, params: str, final: str) -> None:
        if params[:1] in set("<=>?") and params:
            return
        numbers = [int(p) if p.isdigit() else 0 for p in params.split(";")]
        count = max(1, numbers[0])
        if final in "AF":
            self._row = max(0, self._row - count)
        elif final in "BE":
            self._row = min(len(self._rows) - 1, self._row + count)
        elif final == "C":
            self._column += count
        elif final == "D":
            self._column = max(0, self._column - count)
        elif final == "G":
            self._column = count - 1
        elif final in "KJ":
            self._erase(final, numbers[0])
        elif final in "P@X":
            self._edit(final, count)
        if final in "EF":
            self._column = 0

    def _erase(self, final: str, mode: int) -> None:
        row = self._rows[self._row]
        if mode == 0:
            self._rows[self._row] = row[: self._column]
        elif mode == 1 and final == "K":
            self._rows[self._row] = " " * (self._column + 1) + row[self._column + 1 :]
        elif mode == 2 and final == "K":
            self._rows[self._row] = ""
        if final == "J" and mode == 0:
            del self._rows[self._row + 1 :]

    def _edit(self, final: str, count: int) -> None:
        row, at = self._rows[self._row], self._column
        if final == "P":
            self._rows[self._row] = row[:at] + row[at + count :]
        elif final == "@" and at < len(row):
            self._rows[self._row] = row[:at] + " " * count + row[at:]
        elif final == "X":
            self._rows[self._row] = row[:at] + " " * len(row[at : at + count]) + row[at + count :]


def render(data: bytes, height: int = 50) -> str:
    """The whole of a log as lines of plain text."""
    screen = Screen(height)
    return screen.feed(data) + screen.finish()
