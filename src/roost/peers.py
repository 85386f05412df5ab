"""Whose a TCP connection on this machine is, as the kernel of Linux knows it.

Sources: sock_diag(7), netlink(7), linux/inet_diag.h, and tcp_states.h of the kernel. It imports
next to nothing: the process that guards the ports runs all day, one for each tunnel.
"""

from __future__ import annotations

import os
import socket
import struct

_SOCK_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1
_ANY = 0xFFFFFFFF
# Of tcp_states.h: established, and what closes on one side or on both.
_CONNECTED = {1, 4, 5, 8, 9, 11}
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_WANTED = struct.Struct("=BBBxI")  # inet_diag_req_v2, up to the two ends
_ENDS = struct.Struct("!HH16s16s")  # inet_diag_sockid: ports and addresses,
_COOKIE = struct.Struct("=III")  # then the interface and no cookie
_FOUND = struct.Struct("=BBxx48x4x8xII")  # inet_diag_msg: family, state, user, inode


def is_ours(connection: socket.socket) -> bool:
    """Whether a process of this user, or of root, made the accepted ``connection``.

    Also false where the kernel does not say whose it is.
    """
    return user_of(connection) in {0, os.getuid()}


def user_of(connection: socket.socket) -> int | None:
    """The user id of who made the accepted ``connection`` and still holds it.

    None where no process holds it any more, where it comes from another machine, and where the
    kernel does not say.
    """
    try:
        message = question(connection.getpeername(), connection.getsockname(), connection.family)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as kernel:
            kernel.send(message)
            answer = kernel.recv(4096)
        # Still connected: so long no other connection can have had the same two ends.
        connection.getpeername()
    except OSError:
        return None
    return holder(answer)


def question(end: tuple[object, ...], other: tuple[object, ...], family: int) -> bytes:
    """Ask for the one TCP socket that stands at ``end`` and is connected to ``other``."""
    (host, port), (far_host, far_port) = end[:2], other[:2]
    near, far = (
        socket.inet_pton(family, str(h).partition("%")[0]).ljust(16, b"\0")
        for h in (host, far_host)
    )
    body = _WANTED.pack(family, socket.IPPROTO_TCP, 0, _ANY)
    body += _ENDS.pack(port, far_port, near, far) + _COOKIE.pack(0, _ANY, _ANY)
    return _HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST, 0, 0) + body


def holder(answer: bytes) -> int | None:
    """The user id in the kernel's answer; None where there is no socket that somebody holds."""
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind != _BY_FAMILY:
        return None
    _, state, user, inode = _FOUND.unpack_from(answer, _HEADER.size)
    # What nobody holds any more (closed while bytes are under way) says user 0, inode 0. And where
    # there is no such connection the kernel may answer with somebody else: who listens at its end.
    return int(user) if inode and state in _CONNECTED else None
