"""A way to a server that can be cut, and that can fall silent, as a tunnel does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Protocol


class Link(Protocol):
    """A way to a server by a loopback port, with the faults that a tunnel has."""

    port: int

    def cut(self) -> None:
        """Close what is open and refuse what comes."""

    def stall(self) -> None:
        """Forward nothing more and close nothing, as when the other machine sleeps."""

    def mend(self) -> None:
        """Forward again what comes from now on."""

    def close(self) -> None:
        """Nothing is left."""


class Relay:
    """Forwards a loopback port to ``target``, in a thread of its own.

    What was stalled stays silent for good, also when it is mended.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._open: set[_Pair] = set()
        self._listener: asyncio.Server | None = None
        self.port = 0
        self._call(self._listen())

    def cut(self) -> None:
        self._call(self._cut())

    def stall(self) -> None:
        self._call(self._stall())

    def mend(self) -> None:
        self._call(self._mend())

    def close(self) -> None:
        self._call(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _call(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for pair in list(self._open):
            pair.close()

    async def _stall(self) -> None:
        self._stalled = True
        for pair in self._open:
            pair.silent = True

    async def _mend(self) -> None:
        self._stalled = False
        if self._listener is None:
            await self._listen()

    _stalled = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(writer, self._stalled)
        self._open.add(pair)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            pair.writers.append(back)
            await asyncio.gather(pair.pump(reader, back), pair.pump(there, writer))
        except OSError:
            pass
        finally:
            pair.close()
            self._open.discard(pair)


class _Pair:
    def __init__(self, writer: asyncio.StreamWriter, silent: bool) -> None:
        self.writers = [writer]
        self.silent = silent

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self.silent:
                writer.write(data)
                await writer.drain()
        if not self.silent:
            writer.close()

    def close(self) -> None:
        for writer in self.writers:
            with contextlib.suppress(OSError, RuntimeError):
                writer.transport.abort()
