"""Open an address that holds a secret in the user's browser, and leave the secret nowhere else.

A program's arguments are there for every user of the machine to see, so the browser is started
with the address of a page on loopback that works once and leads on to the real one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from roost import ports, process
from roost.errors import MissingProgramError, RoostError

_WAIT_SECONDS = 60.0
_WSL = Path("/proc/sys/fs/binfmt_misc/WSLInterop")
_ANSWER = (
    "HTTP/1.1 {status}\r\n{header}Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n"
    "Content-Length: 0\r\nConnection: close\r\n\r\n"
)


def command(environ: Mapping[str, str]) -> list[str] | None:
    """What opens an address in the user's browser; None where there is no display."""
    if environ.get("BROWSER"):
        return [environ["BROWSER"].split(os.pathsep)[0]]
    if sys.platform == "darwin":
        return None if "SSH_CONNECTION" in environ else ["open"]
    if _WSL.exists() and process.which("wslview", environ):
        return ["wslview"]
    if environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"):
        return ["xdg-open"] if process.which("xdg-open", environ) else None
    return None


def open_secret(address: str, environ: Mapping[str, str]) -> None:
    """Open ``address`` in the browser and return when the browser has fetched it.

    Raises:
        RoostError: there is no browser, or it did not come for the address.
    """
    words = command(environ)
    if words is None:
        raise RoostError(
            "there is no browser here to open",
            why="no display, or no xdg-open",
            fix="--print-url prints the address with its token",
        )
    path = f"/{secrets.token_urlsafe(24)}"
    with socket.create_server((ports.LOOPBACK, 0)) as server:
        page = f"http://{ports.LOOPBACK}:{server.getsockname()[1]}{path}"
        try:
            opener = process.start(
                [*words, page],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environ,
                new_session=True,
            )
        except MissingProgramError as error:
            raise RoostError(f"the browser {words[0]} cannot be started") from error
        if not _serve_once(server, path, address, time.monotonic() + _WAIT_SECONDS):
            with contextlib.suppress(OSError):
                opener.kill()
            raise RoostError(
                f"the browser did not open within {_WAIT_SECONDS:.0f} s",
                fix="--print-url prints the address with its token",
            )


def _serve_once(server: socket.socket, path: str, address: str, deadline: float) -> bool:
    """Lead the first one who asks for ``path`` on to ``address``, if it is this user."""
    while (left := deadline - time.monotonic()) > 0:
        server.settimeout(left)
        try:
            connection, _ = server.accept()
        except TimeoutError:
            return False
        with connection, contextlib.suppress(OSError):
            # Browsers open connections ahead of time and say nothing on them.
            connection.settimeout(2.0)
            asked = connection.recv(8192).split(b" ")
            mine = ports.is_ours(connection)
            if mine and asked[:2] == [b"GET", path.encode()]:
                header = f"Location: {address}\r\n"
                connection.sendall(_ANSWER.format(status="303 See Other", header=header).encode())
                return True
            connection.sendall(_ANSWER.format(status="404 Not Found", header="").encode())
    return False
