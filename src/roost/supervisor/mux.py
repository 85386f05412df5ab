"""Have a running ssh open a connection from the box, by its control socket.

Source: PROTOCOL.mux of OpenSSH. A message is its length, its type and its fields, all of them
big-endian; descriptors follow one by one, each with a byte of its own (SCM_RIGHTS).
"""

from __future__ import annotations

import os
import socket
import struct
from io import FileIO

_HELLO, _VERSION = 0x00000001, 4
_STDIO_FORWARD, _OPENED = 0x10000008, 0x80000006
_REQUEST_ID = 1


def connect(path: str, host: str, port: int) -> tuple[socket.socket, FileIO, FileIO]:
    """Ask the ssh behind ``path`` to connect to ``host`` from the box.

    Returns:
        The connection to ssh, which answers on it and ends with it; where to write to the host;
        where to read from it.

    Raises:
        OSError: ssh does not listen at ``path``.
    """
    line = socket.socket(socket.AF_UNIX)
    its_input, to_host = pipe()
    from_host, its_output = pipe()
    try:
        line.connect(path)
        # All at once: ssh waits for the descriptors when it has read the request.
        line.sendall(_message(_HELLO, struct.pack("!I", _VERSION)) + request(host, port))
        for file in (its_input, its_output):
            socket.send_fds(line, [b"\0"], [file.fileno()])
        line.setblocking(False)
    except OSError:
        for one in (line, to_host, from_host):
            one.close()
        raise
    finally:
        its_input.close()
        its_output.close()
    return line, to_host, from_host


def request(host: str, port: int) -> bytes:
    """The message MUX_C_NEW_STDIO_FWD."""
    fields = struct.pack("!II", _REQUEST_ID, 0) + _string(host.encode()) + struct.pack("!I", port)
    return _message(_STDIO_FORWARD, fields)


def answer(data: bytes) -> bool | None:
    """Whether the connection was opened, by all that ssh has said; None where it did not say."""
    at = 0
    while len(data) >= at + 8:
        length, kind = struct.unpack_from("!II", data, at)
        at += 4 + length
        if kind != _HELLO:
            return kind == _OPENED if len(data) >= at else None
    return None


def _message(kind: int, fields: bytes) -> bytes:
    return struct.pack("!II", 4 + len(fields), kind) + fields


def _string(text: bytes) -> bytes:
    return struct.pack("!I", len(text)) + text


def pipe() -> tuple[FileIO, FileIO]:
    """Where to read from, and where to write to; neither waits."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    return FileIO(reader, "rb"), FileIO(writer, "wb")
