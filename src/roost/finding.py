"""What ``roost doctor`` found, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what it is about, one or two words.
        level: ``error`` stops roost or ssh, ``warning`` will hurt, ``note`` is good to know.
        text: what was found.
        fix: the command, or the step, that mends it.
        safe: ``fix`` is a command that asks nothing, may be run twice, and loses nobody's work:
            ``roost doctor --fix`` runs it.
    """

    subject: str
    level: Level
    text: str
    fix: str = ""
    safe: bool = False
