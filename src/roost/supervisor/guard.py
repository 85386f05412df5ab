"""Which forwards have a door before them, and the process that guards it (``door``).

A TCP port on loopback is open to every user of this machine, and ssh does not ask who comes. So
ssh listens on sockets in a folder of this user, and the door on the ports.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from roost import peers, process
from roost.model import Forward, ForwardKind
from roost.supervisor.processes import processes
from roost.supervisor.protocol import Places, Wish

_DOOR = "roost.supervisor.door"


def guarded(forward: Forward) -> bool:
    """Whether it gets a door: what listens for other machines, too, is for everybody."""
    on_loopback = forward.listen.startswith(("127.", "[::1]:"))
    return forward.kind is not ForwardKind.REMOTE and on_loopback and peers.known()


def behind(forward: Forward, number: int, wish: Wish, places: Places) -> Path:
    """The socket where ssh listens behind the door, for the ``number``-th forward of ``wish``."""
    if forward.kind is ForwardKind.DYNAMIC:
        return places.control(wish.id)
    return places.inner(wish.id, number)


class Guard:
    """A running door.

    Args:
        pid: its process id.
        child: the process, if it is a child of ours.
    """

    def __init__(self, pid: int, child: subprocess.Popen[str] | None = None) -> None:
        self.pid = pid
        self._child = child

    @classmethod
    def start(cls, wish: Wish, places: Places, ssh: int, log: IO[str]) -> Guard | None:
        """Start the door of ``wish``, behind which the process ``ssh`` listens already.

        Returns:
            The door, which may not listen yet; None where the wish needs none.
        """
        words: list[str] = []
        for number, forward in enumerate(wish.parsed):
            if guarded(forward):
                inner = behind(forward, number, wish, places)
                words += [forward.kind.value, forward.listen, str(inner)]
        if not words:
            return None
        argv = [sys.executable, "-m", _DOOR, str(places.config(wish.id)), str(ssh), *words]
        child = process.start(argv, stderr=log, cwd=Path("/"), new_session=True)
        return cls(child.pid, child)

    @classmethod
    def find(cls, config: Path, ssh: int) -> Guard | None:
        """The door of the process ``ssh`` that an earlier supervisor started."""
        marks = ["-m", _DOOR, str(config), str(ssh)]
        found = [pid for pid, argv in processes() if argv[1:5] == marks] if peers.known() else []
        return cls(found[0]) if found else None

    async def opened(self) -> None:
        """Return when it listens, or has ended."""
        if self._child is not None and self._child.stdout is not None:
            await asyncio.to_thread(self._child.stdout.read)
            self._child.stdout.close()

    def running(self) -> bool:
        """Whether it still runs; a child that has ended is reaped."""
        if self._child is not None:
            return self._child.poll() is None
        return any(_DOOR in argv for _, argv in processes([self.pid]))

    async def end(self) -> None:
        """End it, and wait until it is gone; it leaves nothing behind."""
        if self.running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        while self.running():
            await asyncio.sleep(0.01)
