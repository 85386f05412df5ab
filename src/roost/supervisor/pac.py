"""Serve one proxy script on loopback, where the user's browser asks for it."""

from __future__ import annotations

import asyncio
import contextlib

from roost import ports
from roost.errors import RoostError

PATH = "/proxy.pac"
_TYPE = "application/x-ns-proxy-autoconfig"


async def serve(port: int, script: str) -> asyncio.Server:
    """Answer ``GET /proxy.pac`` on ``port`` with ``script`` until the server is closed.

    Other users of this machine are told nothing: the script names what is private.

    Raises:
        OSError: the port is taken.
    """
    body = script.encode()
    found = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {_TYPE}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-cache\r\nConnection: close\r\n\r\n"
    ).encode() + body
    missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        expected = (OSError, TimeoutError, ValueError, RoostError)
        with contextlib.closing(writer), contextlib.suppress(*expected):
            async with asyncio.timeout(5):
                words = (await reader.readline()).split(b" ")
                while (await reader.readline()).strip():
                    pass
                wanted = len(words) == 3 and words[1].split(b"?")[0] == PATH.encode()
                asking = writer.get_extra_info("socket")
                allowed = wanted and await asyncio.to_thread(ports.is_ours, asking)
                writer.write(found if allowed else missing)
                await writer.drain()

    return await asyncio.start_server(answer, "127.0.0.1", port, limit=8192)
