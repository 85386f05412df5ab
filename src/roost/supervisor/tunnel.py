"""One tunnel: brought up, asked whether it is alive, brought up again, for ever."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from roost.errors import RoostError
from roost.model import ForwardKind
from roost.supervisor import doubt, pac, probe
from roost.supervisor.failure import Failure, diagnose
from roost.supervisor.protocol import ForwardStatus, Places, Status, Wish
from roost.supervisor.session import Session, remove_left_over_sockets
from roost.supervisor.way import Way

# Seconds. How often a tunnel is asked, and how long it may take to answer: less where something
# has happened (a wake-up, another network) that makes a dead connection likely.
_STEADY, _PATIENCE, _PATIENCE_AFTER_EVENT = 5.0, 3.0, 1.0
_FORWARDS_EVERY = 6
# ssh's own limits (ConnectTimeout for each hop, then the login) end long before this.
_COME_UP = 60.0
_FIRST_RETRY, _SLOWEST_RETRY, _SLOWEST_HOPELESS = 0.25, 10.0, 60.0
_REMEMBERED = ("opened", "breaks", "broke", "broke_why", "gone")


class Tunnel:
    """Keeps one wish fulfilled.

    Args:
        wish: what is wanted.
        places: the supervisor's files.
        environment: called for the environment of every new ssh.
        changed: called when the tunnel broke or came back.
    """

    def __init__(
        self,
        wish: Wish,
        places: Places,
        environment: Callable[[], Mapping[str, str]],
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        now = time.time()
        self.wish = wish
        self.places = places
        self.status = Status(
            id=wish.id,
            box=wish.box,
            label=wish.label,
            config=wish.config,
            forwards=[ForwardStatus(spec) for spec in wish.forwards],
            since=now,
            opened=now,
        )
        self.session: Session | None = None
        self.said = ""
        self._swept = False
        self._login = 0.0
        self._pac: asyncio.Server | None = None
        self._environment = environment
        self._changed = changed
        self._wake = asyncio.Event()
        self._event = ""
        self._way = Way(places.config(wish.id), wish.box, Path(wish.config))

    def wake(self, event: str = "") -> None:
        """Look now, not at the next turn; ``event`` says what has happened, if anything has."""
        self._event = event or self._event
        self._wake.set()

    def record(self) -> dict[str, Any]:
        """What is to be remembered of it: the wish, and what people want to know later."""
        kept = {name: getattr(self.status, name) for name in _REMEMBERED}
        return {"wish": dataclasses.asdict(self.wish), **kept}

    def recall(self, record: Mapping[str, Any]) -> None:
        """Take over what ``record`` returned in an earlier supervisor."""
        for name in _REMEMBERED:
            before = getattr(self.status, name)
            if isinstance(record.get(name), type(before)):
                setattr(self.status, name, record[name])

    async def adjust(self, wish: Wish) -> None:
        """Take another purpose for the same forwards."""
        self.wish = wish
        self.status.label = wish.label
        await self._serve_pac()

    async def _serve_pac(self) -> None:
        if self._pac is not None:
            self._pac.close()
        self._pac, self.status.pac_port = None, 0
        if self.wish.pac is not None:
            # Taken by a stranger: tried again with the next ssh, and `list` does not show it.
            with contextlib.suppress(OSError):
                self._pac = await pac.serve(*self.wish.pac)
                self.status.pac_port = self.wish.pac[0]

    async def run(self) -> None:
        """Bring the tunnel up and keep it up until the task is cancelled."""
        while True:
            if self._pac is None:
                await self._serve_pac()
            failure = await self._life()
            self.status.pid = 0
            if failure.left_over and not self._swept:
                self._swept = True
                await asyncio.to_thread(
                    remove_left_over_sockets, self.wish, self.places, self._environment()
                )
                continue
            self._set_state("down", failure.why)
            self.status.tries += 1
            await self._wait_for_return(failure)

    async def end(self) -> None:
        """End its ssh and remove its files; the task has been cancelled before."""
        if self._pac is not None:
            self._pac.close()
        if self.session is not None:
            await self.session.end()
        await self._way.end()
        for path in self.places.runtime.glob(f"{self.wish.id}.*"):
            with contextlib.suppress(OSError):
                path.unlink()
        for forward in self.wish.parsed:
            if forward.kind is ForwardKind.LOCAL and forward.listen.startswith("/"):
                with contextlib.suppress(OSError):
                    _unlink_socket(forward.listen)

    async def _life(self) -> Failure:
        """One ssh from its start to its end, and why it ended."""
        if self.session is None:
            try:
                self.session = Session.start(self.wish, self.places, self._environment())
            except (OSError, RoostError) as error:
                return Failure(str(error), hopeless=True, network=False)
        session = self.session
        self._way.forget()
        try:
            await session.begun()
            self.status.pid = session.pid
            failure = await self._come_up(session)
            if failure is None:
                await self._arrived()
                failure = await self._keep(session)
                self._lost(failure)
        finally:
            if not asyncio.current_task().cancelling():  # type: ignore[union-attr]
                self.said = session.complaint()
                await session.end()
                self.session = None
        return failure

    async def _come_up(self, session: Session) -> Failure | None:
        canary = str(self.places.canary(self.wish.id))
        began = time.monotonic()
        while time.monotonic() < began + _COME_UP:
            if await probe.alive(canary, 5.0) and session.running():
                self._login = time.monotonic() - began
                return None
            if not session.running():
                return diagnose(session.complaint())
            await asyncio.sleep(0.02)
        return Failure("the box accepts the connection, but does not finish the login")

    async def _arrived(self) -> None:
        now = time.time()
        if self.status.broke and self.status.state == "down":
            self.status.gone = now - self.status.broke
        self.status.tries = 0
        self._swept = False
        self._set_state("up")
        await self.refresh(2.0)
        await self._way.remember(_PATIENCE)

    def _lost(self, failure: Failure) -> None:
        self.status.breaks += 1
        self.status.broke = time.time() - failure.silent
        self.status.broke_why = failure.why
        for forward in self.status.forwards:
            forward.state, forward.why = "unknown", ""
        self._set_state("down", failure.why)

    def _set_state(self, state: str, why: str = "") -> None:
        changed = self.status.state != state
        self.status.state, self.status.why = state, why
        if changed:
            self.status.since = time.time()
            self._changed()

    async def refresh(self, timeout: float) -> None:
        """Ask every forward now."""
        answers = await asyncio.gather(
            *(
                probe.ask(f, self.wish.speaks.get(str(f)) or probe.speaks(f), timeout)
                for f in self.wish.parsed
            )
        )
        for known, answer in zip(self.status.forwards, answers, strict=True):
            known.state, known.why = answer.state, answer.why

    async def _keep(self, session: Session) -> Failure:
        """Watch a tunnel that is up, and return why it is so no more."""
        canary = str(self.places.canary(self.wish.id))
        for turn in itertools.count(1):
            event = await self._pause(_STEADY)
            if not session.running():
                return diagnose(session.complaint())
            before, sent = session.received(), session.sent()
            patience = _PATIENCE_AFTER_EVENT if event else _PATIENCE
            if await probe.alive(canary, patience):
                session.trim_log()
                if (turn % _FORWARDS_EVERY == 0) and (broken := await self._broken_forward()):
                    return broken
            elif session.running() and not session.busy_since(before):
                failure = await doubt.decide(
                    session, self._way, canary, patience, sent, self._login, self._set_state
                )
                if failure is not None:
                    return failure
        raise AssertionError("unreachable")

    async def _broken_forward(self) -> Failure | None:
        """A forward that is dead while its session lives; only one that answered is missed."""
        for forward, known in zip(self.wish.parsed, self.status.forwards, strict=True):
            language = self.wish.speaks.get(str(forward), "")
            if forward.kind is ForwardKind.REMOTE:
                continue
            if not language and not forward.listen.startswith("/"):
                continue
            before = known.state
            answer = await probe.ask(forward, language, _PATIENCE)
            known.state, known.why = answer.state, answer.why
            if answer.state == "closed" or (answer.state == "silent" and before == "answers"):
                return Failure(f"the forward {forward} was dead while the connection was up")
        return None

    async def _wait_for_return(self, failure: Failure) -> None:
        tries = self.status.tries
        if failure.hopeless:
            await self._pause(min(_SLOWEST_HOPELESS, 2.0**tries))
            return
        down = time.time() - self.status.since
        if tries > 1:
            # A try is a login on the gateway. After a long outage it may be later by some
            # hundredths of it, never by more than ten seconds.
            slowest = min(1.0 + down / 30, _SLOWEST_RETRY)
            await self._pause(min(_FIRST_RETRY * 2.0 ** min(tries, 20), slowest))
        if not failure.network:
            return
        if not await self._way.is_known():
            return
        try:
            while await self._way.ask(min(1.0, doubt.ASK_EVERY + down / 600)) is None:
                down = time.time() - self.status.since
                if self._wake.is_set():
                    await self._pause(0)
                    self._way.stop_asking()
        finally:
            self._way.stop_asking()

    async def _pause(self, seconds: float) -> str:
        """Wait until something happens, at most ``seconds``, and return what happened."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()
        event, self._event = self._event, ""
        return event


def _unlink_socket(path: str) -> None:
    if stat.S_ISSOCK(Path(path).lstat().st_mode):
        Path(path).unlink()
