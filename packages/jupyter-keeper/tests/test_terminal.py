"""The stream model against a terminal emulator."""

from __future__ import annotations

import re
import tracemalloc

import pyte
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_keeper.streams import Stream
from jupyter_keeper.terminal import LONGEST_LINE, REACH, Screen

WORDS = st.text(alphabet="abcXYZ 0189é█→ßЖ", min_size=1, max_size=12)
CODES = ["0", "", "1", "22", "3", "31", "39", "42", "49", "1;35", "38;5;208", "97", "4", "7", "27"]
MOVES = st.sampled_from(
    ["\r", "\b", "\b\b\b", "\n", "\r\n", "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[J"]
)
SIZED = st.builds("\x1b[{}{}".format, st.integers(0, 5), st.sampled_from("ACDG"))
STYLES = st.builds("\x1b[{}m".format, st.sampled_from(CODES))
NOISE = st.sampled_from(["\x07", "\x1b[?25l", "\x1b[?25h", "\x1b]0;title\x07", "\x1b(B"])
TOKENS = st.lists(st.one_of(WORDS, WORDS, MOVES, SIZED, STYLES, NOISE), max_size=25)


class Terminal(pyte.Screen):
    """pyte, but what is erased is left without a style: a notebook has no cells to colour."""

    def erase_in_line(self, how: int = 0, private: bool = False) -> None:
        attributes, self.cursor.attrs = self.cursor.attrs, self.default_char
        super().erase_in_line(how, private)
        self.cursor.attrs = attributes

    def erase_in_display(self, how: int = 0, *args: object, **kwargs: object) -> None:
        attributes, self.cursor.attrs = self.cursor.attrs, self.default_char
        super().erase_in_display(how, *args, **kwargs)
        self.cursor.attrs = attributes


def shown(text: str) -> list[list[tuple[object, ...]]]:
    """What a terminal shows, character by character with its style, without blank ends."""
    screen = Terminal(400, 60)
    pyte.Stream(screen).feed(text.replace("\n", "\r\n"))
    lines = []
    for number in range(60):
        row = screen.buffer.get(number, {})
        cells = [row.get(column, screen.default_char) for column in range(max(row, default=-1) + 1)]
        # the foreground of a blank cannot be seen
        line = [(c.data, c.data != " " and (c.fg, c.bold, c.italics), c.bg, c.underscore, c.reverse)
                for c in cells]  # fmt: skip
        while line and line[-1] == (" ", False, "default", False, False):
            line.pop()
        lines.append(line)
    while lines and not lines[-1]:
        lines.pop()
    return lines


def played(chunks: list[str]) -> str:
    screen = Screen()
    settled = ""
    for chunk in chunks:
        screen.write(chunk)
        settled += screen.take_settled()
    return settled + screen.tail()


@settings(max_examples=400, deadline=None)
@given(TOKENS, st.integers(1, 7))
def test_shows_what_a_terminal_shows(tokens: list[str], step: int) -> None:
    text = "".join(tokens)
    chunks = [text[at : at + step] for at in range(0, len(text), step)]
    result = played(chunks)
    assert shown(result) == shown(text)
    assert not re.search(r"[\r\b]|\x1b\[[0-9;]*[^0-9;m]", result)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(TOKENS.map("".join), max_size=4), max_size=6), st.integers(200, 2000))
def test_edits_rebuild_the_text_byte_by_byte(flushes: list[list[str]], limit: int) -> None:
    """Applying every edit to a byte string gives the same text as rendering at the end."""
    stream = Stream(limit)
    document = b""
    for chunks in flushes:
        for chunk in chunks:
            stream.write(chunk)
        edit = stream.take_edit()
        assert edit.delete <= len(document)
        document = document[: len(document) - edit.delete] + edit.insert.encode()
        assert len(document) == stream.size
        assert document.decode() == stream.text()


def test_plain_text_is_kept_as_it_is() -> None:
    text = "".join(f"line {number} ✓\n" for number in range(REACH * 3)) + "end"
    assert played([text]) == text
    assert played(list(text)) == text


def test_a_progress_bar_keeps_its_last_state_only() -> None:
    bar = "".join(f"\r{percent:3d}%|{'█' * (percent // 10):10}|" for percent in range(101))
    assert played([bar]) == "100%|██████████|"


def test_nested_bars_are_drawn_in_place() -> None:
    text = "outer 1\n\rinner 1\x1b[A\router 2\n\rinner 2\x1b[A\n\n"
    assert played([text]) == "outer 2\ninner 2\n"


def test_a_line_longer_than_the_reach_is_wrapped() -> None:
    text = "x" * (LONGEST_LINE + 10)
    assert played([text, "\rabc"]) == text + "abc"


def test_only_the_changed_tail_is_rewritten() -> None:
    stream = Stream(10_000)
    stream.write("first\nsecond é 10%")
    stream.take_edit()
    stream.write("\rsecond é 11%")
    edit = stream.take_edit()
    assert (edit.delete, edit.insert) == (2, "1%")


def test_a_flood_is_bounded_and_says_so() -> None:
    stream = Stream(100_000)
    total = 0
    largest = 0
    for number in range(40_000):
        line = f"{number:08d} {'é' * 100}\n"
        total += len(line.encode())
        stream.write(line)
        if number % 500 == 0:
            edit = stream.take_edit()
            largest = max(largest, len(edit.insert))
    stream.take_edit()
    text = stream.text()
    assert stream.size == len(text.encode()) <= 100_000 * 1.5
    assert text.startswith("00000000 ")
    assert text.endswith(line)
    left_out = int(re.search(r"jupyter-keeper left out ([\d,]+) bytes", text)[1].replace(",", ""))
    note = next(part for part in text.split("\n") if "left out" in part)
    assert total == left_out + stream.size - len(f"{note}\n".encode())
    assert largest < 100_000 * 1.5


def test_a_flood_of_long_lines_is_no_quadratic_work() -> None:
    """With such work it would not end within the time that a test may take."""
    stream = Stream(1_000_000)
    for _ in range(2_000):
        stream.write("x" * 99 + "\n" + "y" * 900)
        stream.take_edit()
    assert stream.text().endswith("y" * 900)


def test_a_message_of_many_megabytes_is_taken_in_pieces() -> None:
    text = "".join(f"{number:07d} {'x' * 91}\n" for number in range(200_000))
    stream = Stream(1_000_000)
    tracemalloc.start()
    try:
        stream.write(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(text) == 20_000_000
    assert peak < 10_000_000
    assert stream.text().endswith(text[-10_000:])


def test_a_flood_in_large_pieces_loses_no_count() -> None:
    stream = Stream(100_000)
    total = 0
    for number in range(40):
        text = "".join(f"{number:04d} {line:04d} é\n" for line in range(5_000))
        stream.write(text)
        total += len(text.encode())
    text = stream.text()
    left_out = int(re.search(r"jupyter-keeper left out ([\d,]+) bytes", text)[1].replace(",", ""))
    note = next(part for part in text.split("\n") if "left out" in part)
    assert total == left_out + len(text.encode()) - len(f"{note}\n".encode())
    assert text.endswith("0039 4999 é\n")
    assert len(text) < 150_000


def test_colours_in_a_long_text() -> None:
    text = "\x1b[31m" + "red\n" * (REACH * 3) + "\x1b[0mplain"
    assert played([text]) == text
