"""Ask through a forward whether its other end answers.

A connect to the local side proves nothing: ssh accepts it before it asks the box. What proves
something is an answer, or the end that ssh puts to the connection when the box says no.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from roost.model import Forward, ForwardKind

# The canary's target on the box: a socket that is there on every systemd machine, that any user
# may connect to, and that answers this without writing to a log. D-Bus specification,
# "Authentication Protocol": a NUL byte, then AUTH alone asks for the list of mechanisms.
CANARY_TARGET = "/run/dbus/system_bus_socket"
_CANARY_QUESTION = b"\0AUTH\r\n"

# How long a server that speaks only when spoken to may take to refuse.
_QUIET_SECONDS = 0.4
_REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nUser-Agent: roost\r\n\r\n"
)
_WEB_PORTS = {80, 3000, 5000, 6006, 7860, 8000, 8080, 8501, 8787, 8888, 9090}


@dataclass(frozen=True)
class Answer:
    """What a probe found: ``state`` as in ``ForwardStatus``."""

    state: str
    why: str = ""


def speaks(forward: Forward) -> str:
    """What the forward's target most likely speaks, by its port; nothing where unknown."""
    port = forward.target.rpartition(":")[2]
    if port == "22":
        return "ssh"
    return "http /" if port.isdigit() and int(port) in _WEB_PORTS else ""


async def alive(path: str, timeout: float) -> bool:
    """Whether the session behind the canary socket ``path`` answers within ``timeout`` seconds.

    Any answer proves it, a refusal too: it takes the box to refuse.
    """
    try:
        async with asyncio.timeout(timeout):
            # Without an answer the box has said no, or ssh is just ending. It closes its sockets
            # in no certain order then; but it takes no further question, so a second one tells.
            return await _is_answered(path) or await _is_answered(path) or await _listens(path)
    except (OSError, TimeoutError):
        return False


async def _is_answered(path: str) -> bool:
    reader, writer = await asyncio.open_unix_connection(path)
    with contextlib.closing(writer), contextlib.suppress(ConnectionResetError, BrokenPipeError):
        writer.write(_CANARY_QUESTION)
        return bool(await reader.read(1))
    return False


async def _listens(path: str) -> bool:
    _, writer = await asyncio.open_unix_connection(path)
    writer.close()
    return True


async def ask(forward: Forward, language: str, timeout: float) -> Answer:
    """Connect to the local side of ``forward`` and see what the other end does.

    Args:
        forward: a local or a dynamic one; about a remote one nothing can be found from here.
        language: ``http PATH``, ``ssh``, or nothing: then nothing is sent.
        timeout: seconds for all of it.
    """
    if forward.kind is ForwardKind.REMOTE:
        return Answer("unknown")
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await _connect(forward.listen)
    except (OSError, TimeoutError) as error:
        return Answer("closed", f"nothing listens at {forward.listen} on this side: {error}")
    with contextlib.closing(writer):
        if forward.kind is ForwardKind.DYNAMIC:
            return await _ask_socks(reader, writer, timeout)
        return await _ask_target(forward.target, language, reader, writer, timeout)


async def _ask_target(
    target: str,
    language: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    timeout: float,
) -> Answer:
    try:
        async with asyncio.timeout(timeout if language else min(timeout, _QUIET_SECONDS)):
            if language.startswith("http"):
                path = language.partition(" ")[2] or "/"
                writer.write(_REQUEST.format(path=path).encode())
            first = await reader.read(1)
    except TimeoutError:
        return Answer("silent", f"{target} does not answer") if language else Answer("open")
    except OSError:
        first = b""
    if first:
        return Answer("answers")
    return Answer("refused", f"nothing answers at {target} on the box")


async def _ask_socks(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout: float
) -> Answer:
    """Greet ssh's own SOCKS server (RFC 1928, section 3)."""
    try:
        async with asyncio.timeout(timeout):
            writer.write(b"\x05\x01\x00")
            if await reader.read(2) == b"\x05\x00":
                return Answer("answers")
    except (OSError, TimeoutError):
        pass
    return Answer("silent", "the SOCKS server of ssh does not answer")


async def _connect(listen: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if listen.startswith("/"):
        return await asyncio.open_unix_connection(listen)
    host, _, port = listen.rpartition(":")
    reachable = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "::1"}  # noqa: S104
    return await asyncio.open_connection(reachable.get(host, host.strip("[]")), int(port))
