"""Hold Ctrl-C back where half a step would leave something behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred() -> Iterator[None]:
    """Let the block end before Ctrl-C (SIGINT), SIGTERM or SIGHUP takes effect.

    For short steps alone, such as the one in which an engine makes a container: killed in the
    middle, it can leave a container that it no longer knows by name. In another thread than the
    main one signals do not arrive, and nothing is held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        pending.append(number)

    held = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, remember) for number in held}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for arrived in pending[:1]:
            signal.raise_signal(arrived)
