"""The one line in a user's ssh config: how it is written, found, put in and taken out."""

from __future__ import annotations

import re
from pathlib import Path

from roost.errors import RoostError
from roost.ssh_config_reader import parse


def include_line(folder: str) -> str:
    """The ``Include`` of every config in ``folder``, written so that ssh takes it literally.

    Raises:
        RoostError: that cannot be written.
    """
    if re.search(r"[\"'\\%$*?\[\]{}\x00-\x1f#]", folder):
        raise RoostError(
            f"the folder {folder} cannot be included in an ssh config",
            why="its name holds a character that ssh would expand",
            fix="set XDG_CONFIG_HOME to a folder with a plainer name",
        )
    return f'Include "{folder}/*.conf"' if re.search(r"\s", folder) else f"Include {folder}/*.conf"


def with_line(text: bytes, line: str) -> bytes:
    """``text`` with ``line`` at its top, and nowhere else."""
    rest = without_line(text, line)
    newline = b"\r\n" if rest.split(b"\n", 1)[0].endswith(b"\r") else b"\n"
    return line.encode("utf-8", "surrogateescape") + newline + rest


def without_line(text: bytes, line: str) -> bytes:
    """``text`` without ``line``; every other byte stays."""
    ours = line.encode("utf-8", "surrogateescape")
    return b"".join(one for one in re.split(rb"(?<=\n)", text) if one.strip() != ours)


def decode(text: bytes) -> str:
    """A config as text, whatever it is encoded in."""
    return text.decode("utf-8", "surrogateescape")


def position(text: str, line: str) -> int | None:
    """The number of the line that is ``line``, or None."""
    lines = (one.strip() for one in text.split("\n"))
    return next((number for number, one in enumerate(lines, 1) if one == line), None)


def is_effective(text: str, line: str) -> bool:
    """Whether the line stands above everything that could have the first word."""
    at = position(text, line)
    first = next(parse(text, Path()), None)
    return at is not None and first is not None and first.number == at
