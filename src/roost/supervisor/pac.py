"""Serve one proxy script on loopback, where a browser asks for it."""

from __future__ import annotations

import asyncio
import contextlib

PATH = "/proxy.pac"
_TYPE = "application/x-ns-proxy-autoconfig"


async def serve(port: int, script: str) -> asyncio.Server:
    """Answer ``GET /proxy.pac`` on ``port`` with ``script`` until the server is closed.

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
        with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(5):
                words = (await reader.readline()).split(b" ")
                while (await reader.readline()).strip():
                    pass
                wanted = len(words) == 3 and words[1].split(b"?")[0] == PATH.encode()
                writer.write(found if wanted else missing)
                await writer.drain()

    return await asyncio.start_server(answer, "127.0.0.1", port, limit=8192)
