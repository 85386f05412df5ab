"""Why an ssh ended, and what that says about trying again."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HOPELESS = re.compile(
    r"Permission denied|Host key verification failed|HOST IDENTIFICATION HAS CHANGED"
    r"|[Bb]ad configuration|Bad owner or permissions|host key is known for"
    r"|Too many authentication failures|not installed|administratively prohibited"
    r"|no new privileges"
)
_PORT_TAKEN = re.compile(
    r"Address already in use|cannot listen to|remote port forwarding failed|Could not request"
    r" local forwarding"
)


@dataclass(frozen=True)
class Failure:
    """Why a tunnel is not up.

    Attributes:
        why: for people.
        hopeless: trying again soon cannot help; something has to be changed.
        network: the way to the first machine may be gone: ask it before ssh is started.
        left_over: the socket of a remote forward is there already, on the box.
        silent: for how many seconds nothing was heard before it was given up.
    """

    why: str
    hopeless: bool = False
    network: bool = True
    left_over: bool = False
    silent: float = 0.0


def diagnose(text: str) -> Failure:
    """What ssh's messages come down to."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for pattern in (_HOPELESS, _PORT_TAKEN):
        telling = [line for line in lines if pattern.search(line)]
        if telling:
            left_over = "forwarding failed for listen path" in telling[0]
            hopeless = pattern is _HOPELESS
            return Failure(telling[0], hopeless=hopeless, network=False, left_over=left_over)
    lines = [line for line in lines if not line.startswith("channel ")] or lines
    return Failure(lines[0] if lines else "ssh ended without a word")
