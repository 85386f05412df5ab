"""The rendering of logs, held against a real terminal (tmux) for what programs draw."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from roost import process
from roost.terminal import Filter, Screen, render

TQDM = "".join(f"\r{p:3d}%|{'#' * (p // 10):<10}|" for p in range(0, 101, 7)) + "\rdone      \n"
NESTED = "".join(
    f"\router {a}\n\rinner {b}\x1b[A" for a in range(3) for b in range(3)
) + "\n\n\rthe end\n"  # fmt: skip
ERASED = "downloading 10 %\r\x1b[Kdownloading 100 %\r\x1b[2Kfinished\n"
CLEARED_BELOW = "one\ntwo\nthree\x1b[2A\r\x1b[0Jnew\n"

DRAWINGS = {
    "plain": "a\nb\n\nc\n",
    "no final newline": "a\nb",
    "carriage returns": TQDM,
    "nested bars": NESTED,
    "erased lines": ERASED,
    "erased below": CLEARED_BELOW,
    "backspaces": "abc\b\bX\n",
    "colours": "\x1b[31mred\x1b[0m and \x1b[1;38;5;200mbold\x1b[m\n",
    "tabs over text": "0123456789abcdef\r\tX\n",
    "cursor moves": "abcdef\x1b[3D__\x1b[1C!\n",
    "column": "abcdef\x1b[3GX\n",
    "delete and insert": "abcdef\r\x1b[2P\x1b[1@\x1b[C\x1b[X\n",
    "next and previous line": "a\nb\nc\x1b[2FA\x1b[1EB\n\n",
    "title": "\x1b]0;a title\x07text\x1b]2;other\x1b\\ more\n",
    "charset and keypad": "\x1b(B\x1b=text\x1b>\n",
    "unicode": "äöü ∑ ✓ 50%|█████▌   |\r100%|██████████|\n",
}


def on_tmux(folder: Path, data: str) -> str:
    """What a real terminal shows for ``data``."""
    source, socket = folder / "source", folder / "tmux"
    source.write_text(data, "utf-8")
    tmux = ["tmux", "-u", "-S", str(socket), "-f", "/dev/null"]
    shown = f"cat '{source}'; tmux -S '{socket}' wait-for -S drawn; read wait"
    process.run([*tmux, "new-session", "-d", "-x", "100", "-y", "50", "--", "sh", "-c", shown])
    try:
        process.run([*tmux, "wait-for", "drawn"], timeout=20)
        return process.run([*tmux, "capture-pane", "-p"]).stdout
    finally:
        process.run([*tmux, "kill-server"], check=False)


def trimmed(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


@pytest.mark.parametrize("drawing", DRAWINGS.values(), ids=DRAWINGS)
def test_shows_what_a_terminal_shows(tmp_path: Path, drawing: str) -> None:
    shown = trimmed(render(drawing.encode()))
    assert [line.expandtabs() for line in shown] == trimmed(on_tmux(tmp_path, drawing))


@pytest.mark.parametrize("drawing", DRAWINGS.values(), ids=DRAWINGS)
@pytest.mark.parametrize("kind", [Screen, Filter])
def test_chunks_do_not_matter(drawing: str, kind: type[Screen | Filter]) -> None:
    data = (drawing * 3).encode()
    chance = random.Random(drawing)
    whole, parts = kind(), kind()
    expected, found = whole.feed(data), ""
    while data:
        cut = chance.randint(1, 4)
        found += parts.feed(data[:cut])
        data = data[cut:]
    if isinstance(whole, Screen) and isinstance(parts, Screen):
        expected, found = expected + whole.finish(), found + parts.finish()
    assert found == expected


def test_what_could_upset_a_terminal_is_left_out() -> None:
    nasty = b"\x1b[?1049h\x1b[?25l\x1b]52;c;aGk=\x07\x1bc\x1b[6n\x0e\x07ok \x1b[32mgreen\x1b[0m\r\n"
    assert Filter().feed(nasty) == "ok \x1b[32mgreen\x1b[0m\r\n"


def test_bytes_that_are_no_text_do_no_harm() -> None:
    data = bytes(range(256)) * 40
    assert render(data).count("\n") >= 40
    Filter().feed(data)


def test_a_line_comes_out_as_soon_as_it_ends_for_a_reader_of_a_pipe() -> None:
    screen = Screen(height=1)
    assert screen.feed(b"one\ntw") == "one\n"
    assert screen.feed(b"o\n") == "two\n"
    assert screen.feed(b"50%\r100%") == ""
    assert screen.feed(b"\n") == "100%\n"
    assert screen.finish() == ""


def test_empty_lines_and_trailing_tabs_stay() -> None:
    assert render(b"a\n\n\nb\tc\n") == "a\n\n\nb\tc\n"
