"""The first machine on the way to a box: whether it can be reached now."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from roost import ports, process
from roost.errors import ProcessError

_MOST_HOPS = 8
# Seconds until a question is given up, and every how many questions the name is looked up.
_PATIENCE, _BY_NAME = 2.5, 5


@dataclass(frozen=True)
class Hop:
    """Where the first connection of a tunnel goes to, and whether that is the box itself."""

    host: str
    port: int
    is_box: bool = True


def first_hop(config: Path, box: str) -> Hop | None:
    """The machine that ssh connects to first; None where a command of the user's does that."""
    name = box
    for _ in range(_MOST_HOPS):
        try:
            done = process.run(["ssh", "-F", str(config), "-G", name], check=False, timeout=20)
        except ProcessError:
            return None
        options = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
        jump = options.get("proxyjump", "none")
        if jump != "none":
            name = jump.split(",")[0]
            continue
        if options.get("proxycommand", "none") != "none" or "hostname" not in options:
            return None
        return Hop(options["hostname"], int(options.get("port", "22")), name == box)
    return None


class Way:
    """Asks the first machine by a bare TCP connection, which costs neither side a login.

    Args:
        config: the tunnel's ssh config.
        box: where the tunnel leads to.
        source: the workspace's ssh config, which that one includes: it changes when the inventory
            does.
    """

    def __init__(self, config: Path, box: str, source: Path) -> None:
        self._config = config
        self._box = box
        self._source = source
        self._stamp = 0
        self._hop: Hop | None = None
        self._known = False
        self._address = ""
        self._asked: set[asyncio.Task[float | None]] = set()
        self._count = 0
        self._reading: asyncio.Task[Hop | None] | None = None

    def forget(self) -> None:
        """Read the config anew at the next question: the inventory may have changed."""
        self._known = False

    async def is_known(self) -> bool:
        """Whether there is a machine to ask; not where a ProxyCommand makes the connection."""
        return await self._find() is not None

    async def sending(self, pid: int) -> ports.Sending | None:
        """What the ssh ``pid`` has sent to the box and the box has not acknowledged.

        Behind a gateway nobody here can know, nor on a system without ``/proc``.
        """
        hop = await self._find()
        return ports.sending(pid, hop.port) if hop is not None and hop.is_box else None

    async def ask(self, within: float) -> float | None:
        """Ask once more, and wait for an answer to this or to an earlier question.

        Questions overlap: the kernel repeats a lost one after a second, which is a second late.

        Args:
            within: seconds; the time is used up where there is no answer.

        Returns:
            The seconds that the answer took, without those that a lost question waited to be
            repeated; None where there was none.
        """
        hop = await self._find()
        if hop is None:
            return None
        self._count += 1
        # The resolver needs the network too, and may sleep for seconds after that is back. So
        # the address of the last time is asked, and now and then the name, which may have moved.
        by_name = self._count % _BY_NAME == 0 or not self._address
        self._asked.add(
            asyncio.create_task(_connect(hop.host if by_name else self._address, hop.port))
        )
        deadline = time.monotonic() + within
        while (left := deadline - time.monotonic()) > 0:
            if not self._asked:
                await asyncio.sleep(left)
                break
            done, self._asked = await asyncio.wait(
                self._asked, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            answers = [took for task in done if (took := task.result()) is not None]
            if answers:
                self.stop_asking()
                # RFC 6298, section 2: the first is repeated after one second, and the others of
                # the seconds that are waited for here are whole, too.
                return min(answers) % 1.0
        return None

    def stop_asking(self) -> None:
        """Drop the questions that are still open."""
        for task in self._asked:
            task.cancel()
        self._asked = set()

    async def end(self) -> None:
        """Drop all questions; no ssh that reads the config is left when this returns."""
        self.stop_asking()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    async def remember(self, timeout: float) -> None:
        """Look up the address, while that works."""
        hop = await self._find()
        if hop is None:
            return
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(timeout):
                found = await asyncio.get_running_loop().getaddrinfo(
                    hop.host, hop.port, type=socket.SOCK_STREAM
                )
                self._address = str(found[0][4][0])

    async def _find(self) -> Hop | None:
        # The address may change while the old one is being asked, and nothing else would tell.
        if (stamp := _changed_at(self._source)) != self._stamp:
            self._stamp, self._known = stamp, False
        if not self._known:
            if self._reading is None:
                reading = asyncio.to_thread(first_hop, self._config, self._box)
                self._reading = asyncio.create_task(reading)
            # A thread cannot be cancelled; ``end`` waits for it.
            try:
                hop = await asyncio.shield(self._reading)
            finally:
                if self._reading.done():
                    self._reading = None
            if hop != self._hop:
                self.stop_asking()
                self._hop, self._address = hop, ""
            self._known = True
        return self._hop


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


async def _connect(host: str, port: int) -> float | None:
    began = time.monotonic()
    try:
        async with asyncio.timeout(_PATIENCE):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return None
    writer.close()
    return time.monotonic() - began
