"""Decide about a connection that does not answer: wait for it, or make a new one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from roost.supervisor import probe
from roost.supervisor.failure import Failure, diagnose
from roost.supervisor.session import Session
from roost.supervisor.way import Way

# Seconds. How often the first machine is asked, at first, whether it can be reached again.
ASK_EVERY = 0.3
# Limits to how long an old connection may take to answer, and what silence is a long one.
_LEAST_GRACE, _MOST_GRACE, _LONG_QUIET = 0.5, 3.0, 10.0
# A retransmission that is due so soon is worth waiting for.
_SOON = 1.0
# Where the first machine cannot be asked, silence alone has to decide.
_SILENCE_DECIDES = 9.0
# How long a box may be too busy to answer whose system takes every byte that is sent.
_BUSY_BOX = 15.0
_FOR_EVER = 1e6


async def decide(
    session: Session,
    way: Way,
    canary: str,
    silent: float,
    sent: int,
    login: float,
    show: Callable[[str, str], None],
) -> Failure | None:
    """Watch a session that does not answer until it does, or has to be replaced.

    As long as the first machine cannot be reached either, the network is at fault, and the
    connection may survive the cut. Once that machine answers a new connection, the old one has a
    moment to follow: a longer one where ssh has passed the question on and the box has acknowledged
    all that was sent, since then the network is well and its sshd gets no time.

    Args:
        session: the ssh.
        way: asks the first machine.
        canary: the socket whose answer proves the session alive.
        silent: for how many seconds it has been asked in vain.
        sent: what ``session.sent()`` said before it was asked.
        login: the seconds that the last login took.
        show: is told the state and its reason.

    Returns:
        Why it is to be replaced; None if it came back to life.
    """
    began = time.monotonic() - silent
    answer = asyncio.create_task(probe.alive(canary, _FOR_EVER))
    known = await way.is_known()
    try:
        while session.running():
            took = await way.ask(ASK_EVERY)
            quiet = time.monotonic() - began
            offline = took is None and (known or quiet <= _SILENCE_DECIDES)
            sending = None if offline else await way.sending(session.pid)
            taken = sending is not None and not sending.waiting and session.sent() > sent
            busy = quiet < _BUSY_BOX and taken
            if offline:
                patience = 0.0
            elif busy:
                show("silent", "the box takes what is sent, and its sshd does not answer")
                patience = _BUSY_BOX - quiet
            else:
                again_in = sending.again_in if sending else 0.0
                patience = grace(quiet, took or 0.0, login, again_in)
            await asyncio.wait({answer}, timeout=patience)
            if answer.done() and answer.result():
                show("up", "")
                return None
            if offline:
                show("silent", "nothing answers, the first machine on the way neither")
            elif not busy and not answer.done():
                return Failure("the connection had gone silent", silent=quiet)
        return replace(diagnose(session.complaint()), silent=time.monotonic() - began)
    finally:
        answer.cancel()
        way.stop_asking()


def grace(quiet: float, round_trip: float, login: float, again_in: float = 0.0) -> float:
    """How long an old connection may take to answer once the network is back, in seconds.

    After a short silence TCP's next retransmission is near, and a new login takes time, too: so
    it may take as long as that, and the connections inside survive. After a long one the next
    retransmission is too far away, but after sleep an old connection answers at once or never.

    Args:
        quiet: for how long it has said nothing.
        round_trip: what a question to the first machine took.
        login: what the last login took.
        again_in: when the next retransmission is due, as far as that is known.
    """
    if quiet > _LONG_QUIET:
        return min(4 * round_trip, _MOST_GRACE)
    due = again_in + _LEAST_GRACE if again_in <= _SOON else 0.0
    return min(max(_LEAST_GRACE, 4 * round_trip, login, due), _MOST_GRACE)
