"""What a SOCKS client says, and what it is told: version 5 without a password, 4 and 4a.

Sources: RFC 1928; "SOCKS: A protocol for TCP proxy across firewalls" and "SOCKS 4A: A Simple
Extension to SOCKS 4 Protocol" by Ying-Da Lee. Only CONNECT: ssh carries nothing else.
"""

from __future__ import annotations

import socket

# How much a client says at most until it is understood: a version 4 request with long names.
LONGEST = 1024

GRANTED = {4: b"\0\x5a" + bytes(6), 5: b"\x05\x00\x00\x01" + bytes(6)}
# The box does not say why it did not connect, so this is the general failure.
REFUSED = {4: b"\0\x5b" + bytes(6), 5: b"\x05\x01\x00\x01" + bytes(6)}
_NO_METHOD = b"\x05\xff"
_NO_COMMAND = b"\x05\x07\x00\x01" + bytes(6)
_NO_ADDRESS = b"\x05\x08\x00\x01" + bytes(6)

# Version, host and port.
Target = tuple[int, str, int]
# How many bytes were understood (0: it is refused), what to reply now, where to connect to.
Step = tuple[int, bytes, Target | None]


def read(data: bytes, *, greeted: bool = False) -> Step | None:
    """What the next step of the dialogue is.

    Args:
        data: all that the client has said and that no earlier step has understood.
        greeted: whether it was a version 5 client's greeting that the earlier step understood.

    Returns:
        The step; None where more has to be said first.
    """
    if not data:
        return None
    if greeted:
        return _request(data) if data[0] == 5 else (0, b"", None)
    if data[0] == 5:
        return _greeting(data)
    return _version_4(data) if data[0] == 4 else (0, b"", None)


def _greeting(data: bytes) -> Step | None:
    if len(data) < 2 or len(data) < 2 + data[1]:
        return None
    used = 2 + data[1]
    return (used, b"\x05\x00", None) if 0 in data[2:used] else (0, _NO_METHOD, None)


def _request(data: bytes) -> Step | None:
    if len(data) < 5:
        return None
    _, command, _, kind, length = data[:5]
    lengths = {1: (4, 4), 3: (5, length), 4: (4, 16)}
    if command != 1:
        return 0, _NO_COMMAND, None
    if kind not in lengths:
        return 0, _NO_ADDRESS, None
    begin, size = lengths[kind]
    used = begin + size + 2
    if len(data) < used:
        return None
    raw, port = data[begin : begin + size], int.from_bytes(data[used - 2 : used], "big")
    if kind == 3:
        host = _name(raw)
    else:
        host = socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, raw)
    return (used, b"", (5, host, port)) if host else (0, _NO_ADDRESS, None)


def _version_4(data: bytes) -> Step | None:
    """``VN CD DSTPORT DSTIP USERID NUL``; with 4a and an address 0.0.0.x, a name and NUL."""
    user_ends = data.find(b"\0", 8)
    if user_ends < 0:
        return None
    used, host = user_ends + 1, socket.inet_ntop(socket.AF_INET, data[4:8])
    if data[4:7] == bytes(3) and data[7]:
        name_ends = data.find(b"\0", used)
        if name_ends < 0:
            return None
        host, used = _name(data[used:name_ends]), name_ends + 1
    if data[1] != 1 or not host:
        return 0, REFUSED[4], None
    return used, b"", (4, host, int.from_bytes(data[2:4], "big"))


def _name(raw: bytes) -> str:
    """A host name; nothing where it is none."""
    text = raw.decode("ascii", "replace")
    return text if text.isprintable() and text.isascii() and " " not in text else ""
