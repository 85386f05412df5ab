"""The process itself: one lock, one socket, the tunnels that are wanted."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roost import files
from roost.errors import RoostError
from roost.supervisor import network, session
from roost.supervisor.protocol import PASSED_ON, VERSION, Places, Wish, encode, ensure_private
from roost.supervisor.tunnel import Tunnel

# Seconds that a supervisor with nothing to do waits for the client that started it.
_FIRST_REQUEST = 10.0
_HOUSEKEEPING = 2.0
_LONGEST_REQUEST = 1 << 20


class Supervisor:
    """Keeps the wishes of one user fulfilled until there are none left."""

    def __init__(self, places: Places, lock: Lock) -> None:
        self.places = places
        self._lock = lock
        self.tunnels: dict[str, Tunnel] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._environment = {k: v for k, v in os.environ.items() if k in PASSED_ON}
        self._finished = asyncio.Event()
        self._keep_sessions = False

    async def serve(self) -> None:
        """Answer requests until nothing is left to do, a signal comes, or a successor asks."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._wake_all)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._finished.set)
        await self._resume()
        self.places.socket.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(
            self._answer, str(self.places.socket), limit=_LONGEST_REQUEST
        )
        monitor = network.open_monitor()
        if monitor is not None:
            network.watch_network(monitor, lambda: self._wake_all("the network changed"))
        clock = asyncio.create_task(
            network.watch_clock(lambda s: self._wake_all(f"this machine slept for {s:.0f} s"))
        )
        keeper = asyncio.create_task(self._housekeeping())
        await self._finished.wait()
        for task in (clock, keeper):
            task.cancel()
        server.close()
        await self._end_all()
        if self._lock.is_ours():
            self.places.socket.unlink(missing_ok=True)

    def _wake_all(self, event: str = "") -> None:
        for tunnel in self.tunnels.values():
            tunnel.wake(event)

    async def _end_all(self) -> None:
        tunnels = list(self.tunnels.values())
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if not self._keep_sessions:
            await asyncio.gather(*(t.end() for t in tunnels))

    async def _housekeeping(self) -> None:
        began = time.monotonic()
        while not self._finished.is_set():
            await asyncio.sleep(_HOUSEKEEPING)
            if not self._lock.is_ours():
                # The run-time folder was cleared (a logout, a clean-up of /tmp): nobody finds
                # this process any more. What is wanted is written down; the next one goes on.
                self._finished.set()
            elif not self.tunnels and time.monotonic() - began > _FIRST_REQUEST:
                self._finished.set()

    # What is wanted

    async def _resume(self) -> None:
        """Take up what is written down, with the ssh processes that still run."""
        running = session.find(self.places)
        for raw in self._recorded():
            try:
                wish = Wish.from_json(raw["wish"])
                wanted = session.arguments(wish, self.places)[1:]
            except (KeyError, TypeError, ValueError, RoostError) as error:
                _complain(f"a recorded tunnel is not understood: {error!r}")
                continue
            tunnel = self._make(wish)
            tunnel.recall(raw)
            for pid, argv in list(running.get(wish.id, [])):
                found = session.Session(self.places.ssh_log(wish.id), pid=pid)
                like_ours = _same(argv[1:], wanted) and found.guarded is session.has_door(wish)
                if tunnel.session is None and like_ours:
                    tunnel.session = found
                    running[wish.id].remove((pid, argv))
        for left_over in (pid for others in running.values() for pid, _ in others):
            await session.Session(self.places.log, pid=left_over).end()
        for tunnel in self.tunnels.values():
            self._run(tunnel)

    def _recorded(self) -> list[dict[str, Any]]:
        try:
            raw = json.loads(self.places.wishes.read_text("utf-8"))
            return [entry for entry in raw["tunnels"] if isinstance(entry, dict)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            _complain(f"{self.places.wishes} cannot be read: {error!r}")
            with contextlib.suppress(OSError):
                self.places.wishes.rename(self.places.wishes.with_suffix(".unreadable"))
            return []

    def _record(self) -> str:
        """Write the wishes down, and return what went wrong, if anything did."""
        entries = [t.record() for t in self.tunnels.values()]
        try:
            ensure_private(self.places.state)
            if entries:
                text = json.dumps({"tunnels": entries}, indent=1)
                files.replace(self.places.wishes, text.encode())
            else:
                self.places.wishes.unlink(missing_ok=True)
        except (OSError, RoostError) as error:
            _complain(f"{self.places.wishes} cannot be written: {error}")
            return str(error)
        return ""

    def _make(self, wish: Wish) -> Tunnel:
        tunnel = Tunnel(wish, self.places, self._ssh_environment, self._record)
        self.tunnels[wish.id] = tunnel
        return tunnel

    def _run(self, tunnel: Tunnel) -> None:
        task = asyncio.create_task(tunnel.run())
        self._tasks[tunnel.wish.id] = task
        task.add_done_callback(_report_crash)

    def _ssh_environment(self) -> dict[str, str]:
        # Its messages are read by a program, so they have to be the English ones.
        return {**self._environment, "LC_ALL": "C"}

    # Requests

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request: dict[str, Any] = {}
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            try:
                async with asyncio.timeout(30):
                    request = json.loads(await reader.readline() or b"{}")
                    reply = await self._carry_out(request)
            except RoostError as error:
                reply = {"error": {"what": error.what, "why": error.why, "fix": error.fix}}
            except (ValueError, KeyError, TypeError, TimeoutError) as error:
                reply = {"error": {"what": f"the supervisor cannot do that: {error!r}"}}
            writer.write(encode({"version": VERSION, **reply}))
            await writer.drain()
        if not self.tunnels and request.get("do") == "close":
            self._finished.set()

    async def _carry_out(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if request.get("version") != VERSION:
            # Another release: its own supervisor takes over the running ssh processes.
            self._keep_sessions = True
            self._finished.set()
            return {"leaving": True}
        for name in PASSED_ON:
            if name in request.get("environ", {}):
                self._environment[name] = str(request["environ"][name])
        match request["do"]:
            case "open":
                return await self._open(Wish.from_json(request["wish"]))
            case "close":
                return await self._close([str(i) for i in request["ids"]])
            case "list":
                if request.get("ask"):
                    await self._settle(float(request["ask"]))
                    up = [t for t in self.tunnels.values() if t.status.state == "up"]
                    await asyncio.gather(*(t.refresh(float(request["ask"])) for t in up))
                return {"tunnels": [self._report(t) for t in self.tunnels.values()]}
            case other:
                raise ValueError(other)

    async def _settle(self, seconds: float) -> None:
        """Give tunnels that are just being brought up the time to say how that went."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(t.status.state == "connecting" for t in self.tunnels.values()):
                    await asyncio.sleep(0.05)

    def _report(self, tunnel: Tunnel) -> dict[str, Any]:
        said = tunnel.session.complaint() if tunnel.session else tunnel.said
        return {**dataclasses.asdict(tunnel.status), "said": said}

    async def _open(self, wish: Wish) -> dict[str, Any]:
        tunnel = self.tunnels.get(wish.id)
        if tunnel is not None and tunnel.wish.door is not wish.door:
            await self._close([wish.id])
            tunnel = None
        if tunnel is None:
            tunnel = self._make(wish)
            self._run(tunnel)
        elif wish.purpose != tunnel.wish.purpose and wish.label:
            await tunnel.adjust(wish)
        tunnel.wake("somebody asked for it")
        return {"id": wish.id, "unrecorded": self._record()}

    async def _close(self, ids: list[str]) -> dict[str, Any]:
        closed = []
        for one in ids:
            tunnel = self.tunnels.pop(one, None)
            task = self._tasks.pop(one, None)
            if tunnel is None:
                continue
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await tunnel.end()
            closed.append(one)
        return {"closed": closed, "unrecorded": self._record()}


def _same(argv: list[str], wanted: list[str]) -> bool:
    # By way of ps the arguments come split at every space.
    return " ".join(a for a in argv if a) == " ".join(wanted)


def _report_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        # A tunnel that nobody looks after is worse than a restart: the next client starts a
        # supervisor, which takes over every ssh that runs.
        _complain(f"a tunnel's keeper failed: {task.exception()!r}")
        os.kill(os.getpid(), signal.SIGKILL)


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n")
        sys.stderr.flush()


class Lock:
    """Makes this the one supervisor of its user, as long as the process lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def take(self) -> bool:
        """Take it, and return whether it was free."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._handle = handle
        return True

    def is_ours(self) -> bool:
        """Whether the file at the path is still the one that is held."""
        if self._handle is None:
            return False
        try:
            mine, there = os.fstat(self._handle), self.path.stat()
        except OSError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def run(places: Places) -> int:
    """Serve until nothing is left to do, and return the exit code.

    Raises:
        RoostError: the folder of the sockets is not safe, or cannot be made.
    """
    os.umask(0o077)
    ensure_private(places.runtime)
    lock = Lock(places.lock)
    if not lock.take():
        return 0
    asyncio.run(Supervisor(places, lock).serve())
    return 0
