"""Record what a program shows on a terminal, and draw it as SVG: still, or as it moved.

tmux is the terminal: it says at any moment what stands on it, with colours (``capture-pane -e``).
The SVG holds text, fetches nothing, and runs as an image in any browser.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.terminal_theme import MONOKAI as THEME

COLUMNS, ROWS = 100, 30
# Pixels of a character, and around all of them.
WIDE, HIGH, ROUND = 8.4, 18, 14
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
# Shown so many times as fast as it was; of frames that are closer than that, in seconds, the last.
SPEED, CLOSE = 4, 0.2
# Seconds: a wait is cut down to that, and the end stays for a while.
LONGEST, LAST = 1.2, 6.0
EVERY = 0.15
# A shell that runs a program, notes its exit code, and keeps the terminal as it is.
KEPT = '"$@"; echo $? >"$0"; exec sleep infinity'


@dataclass(frozen=True)
class Frame:
    """What stood on the terminal from one moment on: seconds, and text with colours."""

    at: float
    text: str


class Screen:
    """A terminal with a program on it."""

    def __init__(self, tmux: Sequence[str], code: Path) -> None:
        self.tmux, self.code = [*tmux], code

    def text(self) -> str:
        return self._say("capture-pane", "-e", "-p")

    def plain(self) -> str:
        return self._say("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        self._say("send-keys", *keys)

    def ended(self) -> str:
        """The exit code; empty as long as the program runs."""
        return self.code.read_text("utf-8").strip() if self.code.exists() else ""

    def _say(self, *words: str) -> str:
        done = subprocess.run([*self.tmux, *words], capture_output=True, text=True, check=True)
        return done.stdout


@contextmanager
def screen(argv: Sequence[str], env: Mapping[str, str], rows: int = ROWS) -> Iterator[Screen]:
    """Run a program on a terminal of its own; it stays readable after the program's end."""
    with tempfile.TemporaryDirectory() as folder:
        tmux = ["tmux", "-u", "-S", f"{folder}/s", "-f", "/dev/null"]
        size = ["-x", str(COLUMNS), "-y", str(rows)]
        # tmux may never hear of a program's end, on a machine that has much to do.
        code = Path(folder) / "code"
        line = ["sh", "-c", f"trap : INT; sleep 0.5; {KEPT}", str(code), *argv]
        # The status line would be the last row.
        start = [*tmux, "new-session", "-d", *size, "--", *line]
        subprocess.run([*start, ";", "set-option", "status", "off"], env=dict(env), check=True)
        try:
            yield Screen(tmux, code)
        finally:
            subprocess.run([*tmux, "kill-server"], check=False)


def record(
    argv: Sequence[str], env: Mapping[str, str], *, seconds: float, rows: int = ROWS
) -> list[Frame]:
    """What a program shows until it ends, each time that it changes."""
    frames: list[Frame] = []
    with screen(argv, env, rows) as shown:
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            ended = shown.ended()
            text = shown.text()
            if not frames or frames[-1].text != text:
                frames.append(Frame(now, text))
            if ended not in {"", "0"}:
                raise RuntimeError(f"{argv} failed ({ended}):\n{shown.plain()}")
            if ended:
                return frames
            time.sleep(EVERY)
    raise TimeoutError(f"{argv} did not end within {seconds:g} s:\n{frames[-1].text}")


def wait_for(shown: Screen, ready: Callable[[str], bool], seconds: float = 120) -> str:
    """The screen as soon as it is ready."""
    deadline = time.monotonic() + seconds
    while not ready(text := shown.plain()):
        if time.monotonic() > deadline:
            raise TimeoutError(text)
        time.sleep(EVERY)
    return shown.text()


def still(text: str, title: str) -> str:
    """One screen as SVG, without empty rows at its end."""
    return draw([Frame(0, text.rstrip("\n") + "\n")], title)


def draw(frames: Sequence[Frame], title: str) -> str:
    """Frames as SVG, one beside the other; the window moves from one to the next."""
    frames = _thinned(frames)
    rows = max(len(frame.text.rstrip("\n").splitlines()) for frame in frames)
    width, height = COLUMNS * WIDE + 2 * ROUND, rows * HIGH + 2 * ROUND
    times = [*(frame.at for frame in frames), frames[-1].at + LAST]
    strip = "".join(
        f'<g transform="translate({number * width:.0f} 0)">{_lines(frame.text)}</g>'
        for number, frame in enumerate(frames)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title><style>text{{font:14px {FONT};white-space:pre;"
        f"fill:{_hex(THEME.foreground_color)}}}.b{{font-weight:bold}}{_motion(times, width)}"
        f'</style><rect width="100%" height="100%" rx="8" fill="{_hex(THEME.background_color)}"/>'
        f'<g class="strip">{strip}</g></svg>\n'
    )


def _thinned(frames: Sequence[Frame]) -> list[Frame]:
    """Fewer frames, at the times at which they are shown, with long waits cut short."""
    kept: list[Frame] = []
    now = 0.0
    for number, frame in enumerate(frames):
        before = frames[max(number - 1, 0)].at
        now += min((frame.at - before) / SPEED, LONGEST)
        if kept and now - kept[-1].at < CLOSE:
            kept[-1] = Frame(kept[-1].at, frame.text)
        else:
            kept.append(Frame(now, frame.text))
    return kept


def _motion(times: Sequence[float], width: float) -> str:
    last = (len(times) - 2) * width
    if last == 0:
        return ""
    steps = "".join(
        f"{100 * at / times[-1]:.3f}%{{transform:translateX({-number * width:.0f}px)}}"
        for number, at in enumerate(times[:-1])
    )
    # Who wants no motion sees the end.
    return (
        f".strip{{transform:translateX({-last:.0f}px)}}@keyframes roll{{{steps}"
        f"100%{{transform:translateX({-last:.0f}px)}}}}"
        "@media (prefers-reduced-motion:no-preference){"
        f".strip{{animation:roll {times[-1]:.1f}s step-end infinite}}}}"
    )


def _lines(text: str) -> str:
    console = Console(width=4 * COLUMNS, color_system="truecolor", force_terminal=True)
    drawn = []
    # Of the whole text: tmux says a colour once, also where it goes on in the next row.
    for row, line in enumerate(AnsiDecoder().decode(text.rstrip("\n"))):
        y = ROUND + (row + 0.75) * HIGH
        column, spans = 0, []
        for piece in line.render(console, end=""):
            x = ROUND + column * WIDE
            if getattr(piece.style, "reverse", False):
                drawn.append(
                    f'<rect x="{x:.1f}" y="{ROUND + row * HIGH}" height="{HIGH}" '
                    f'width="{piece.cell_length * WIDE:.1f}" shape-rendering="crispEdges" '
                    f'fill="{_hex(THEME.foreground_color)}"/>'
                )
            if piece.text.strip() and not piece.control:
                spans.append(
                    f'<tspan x="{x:.1f}"{_style(piece.style)}>{escape(piece.text)}</tspan>'
                )
            column += piece.cell_length
        if spans:
            drawn.append(f'<text y="{y:.1f}" xml:space="preserve">{"".join(spans)}</text>')
    return "".join(drawn)


def _style(style: object) -> str:
    bold = ' class="b"' if getattr(style, "bold", False) else ""
    color = getattr(style, "color", None)
    if getattr(style, "reverse", False):
        return f'{bold} fill="{_hex(THEME.background_color)}"'
    shade = f' fill="{color.get_truecolor(THEME).hex}"' if color and not color.is_default else ""
    return bold + shade


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
