"""Tell somebody that a job has ended: by the terminal's bell, on the desktop, or by a command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping

from roost import process
from roost.errors import ProcessError, RoostError, UsageError

BELL, DESKTOP = "bell", "desktop"
_APPLESCRIPT = (
    "on run {title, message}",
    "display notification message with title title",
    "end run",
)


def check(how: str) -> str:
    """``how``, where it can be done here.

    Raises:
        UsageError: it is no command, or this machine has no desktop to show anything on.
    """
    words = [] if how == BELL else _desktop("", "") if how == DESKTOP else _words(how)
    if words and process.which(words[0]) is None:
        raise UsageError(f"--notify {how}: {words[0]} is not installed here")
    return how


def send(how: str, title: str, message: str, facts: Mapping[str, str]) -> None:
    """Notify.

    Args:
        how: ``bell``, ``desktop``, or a command, which finds ``facts`` in its environment.
        title: what it is about.
        message: what has happened.
        facts: environment variables for the command.

    Raises:
        RoostError: it could not be done.
    """
    if how == BELL:
        sys.stderr.write("\a")
        sys.stderr.flush()
        return
    import os

    words = _desktop(title, message) if how == DESKTOP else _words(how)
    try:
        process.run(words, env={**os.environ, **facts})
    except ProcessError as error:
        raise RoostError(f"the notification failed: {error.what}", why=error.why) from error


def _words(how: str) -> list[str]:
    try:
        words = shlex.split(how)
    except ValueError as error:
        raise UsageError(f"--notify {how}: {error}") from error
    if not words:
        raise UsageError("--notify names no command")
    return words


def _desktop(title: str, message: str) -> list[str]:
    if sys.platform == "darwin":
        script = [word for line in _APPLESCRIPT for word in ("-e", line)]
        return ["osascript", *script, title, message]
    return ["notify-send", "--app-name=roost", "--", title, message]
