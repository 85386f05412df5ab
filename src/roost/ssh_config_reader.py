"""Read a user's ssh config line by line, with what it includes; nothing is resolved here.

What a host's settings come to, ``ssh -G`` alone says. Source of the syntax: ssh_config(5), and
``process_config_line_depth`` and ``argv_split`` of OpenSSH.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAX_DEPTH = 16  # READCONF_MAX_DEPTH of OpenSSH
_SPACE = " \t\r\n\f"


@dataclass(frozen=True)
class Line:
    """One line that says something.

    Attributes:
        file: the file that it stands in.
        number: its number there, from 1.
        keyword: in lower case.
        value: the rest of the line as it stands.
        words: the rest, split as ssh splits it.
    """

    file: Path
    number: int
    keyword: str
    value: str
    words: tuple[str, ...]

    @property
    def place(self) -> str:
        """``file:line``."""
        return f"{self.file}:{self.number}"


def read(config: Path, *, skip: Path | None = None) -> Iterator[Line]:
    """Every line of ``config`` and of the files that it includes, in the order of reading.

    Args:
        config: the file; nothing where it is missing or cannot be read.
        skip: a folder whose files are left out.
    """
    yield from _read(config, config.parent, skip, 0)


def parse(text: str, file: Path) -> Iterator[Line]:
    """The lines of one file."""
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(_SPACE)
        if not line or line.startswith("#"):
            continue
        end = next((i for i, char in enumerate(line) if char in _SPACE + "="), len(line))
        value = line[end:].lstrip(_SPACE)
        value = value[1:].lstrip(_SPACE) if value.startswith("=") else value
        yield Line(file, number, line[:end].lower().strip('"'), value, tuple(split(value)))


def split(text: str) -> list[str]:
    """Words as ``argv_split`` makes them: quotes, backslashes, and a comment ends the line."""
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
            continue
        if text[at] == "#":
            break
        word, at = _word(text, at)
        words.append(word)
    return words


def _word(text: str, at: int) -> tuple[str, int]:
    out: list[str] = []
    quote = ""
    while at < len(text):
        char, following = text[at], text[at + 1 : at + 2]
        if char == "\\" and (following in ("'", '"', "\\") or (not quote and following == " ")):
            out.append(following)
            at += 1
        elif not quote and char in " \t":
            break
        elif not quote and char in "'\"":
            quote = char
        elif quote and char == quote:
            quote = ""
        else:
            out.append(char)
        at += 1
    return "".join(out), at


def is_literal(pattern: str) -> bool:
    """Whether a ``Host`` pattern names one host."""
    return not any(char in pattern for char in "*?!")


def _read(config: Path, base: Path, skip: Path | None, depth: int) -> Iterator[Line]:
    try:
        text = config.read_text("utf-8", "surrogateescape")
    except (OSError, ValueError):
        return
    for line in parse(text, config):
        yield line
        if line.keyword == "include" and depth < _MAX_DEPTH:
            for word in line.words:
                for file in _expand(word, base):
                    if skip is None or file.parent != skip:
                        yield from _read(file, base, skip, depth + 1)


def _expand(word: str, base: Path) -> list[Path]:
    """The files that an ``Include`` means; a relative one lies in the folder of the config."""
    home = base.parent
    pattern = home / word[2:] if word.startswith("~/") else base / word
    found = sorted(glob.glob(str(pattern)))  # noqa: PTH207 - Path.glob takes no absolute pattern
    return [Path(name) for name in found if not Path(name).is_dir()]
