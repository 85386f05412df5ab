"""Learn at once that the network changed, or that the machine has slept."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Callable

_TICK = 2.0
_JUMP = 3.0

# linux/rtnetlink.h: link, IPv4 and IPv6 address and route groups.
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400


def open_monitor() -> socket.socket | None:
    """A socket that becomes readable when links, addresses or routes change, or None.

    Sources: rtnetlink(7) on Linux, route(4) on macOS.
    """
    try:
        if sys.platform == "linux":
            monitor = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
            monitor.bind((0, _GROUPS))
        else:
            monitor = socket.socket(socket.AF_ROUTE, socket.SOCK_RAW, 0)
    except OSError:
        return None
    monitor.setblocking(False)
    return monitor


def watch_network(monitor: socket.socket, changed: Callable[[], None]) -> None:
    """Call ``changed`` whenever ``monitor`` says something, several messages at once as one."""

    def readable() -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            while monitor.recv(65536):
                pass
        changed()

    asyncio.get_running_loop().add_reader(monitor, readable)


async def watch_clock(woke: Callable[[float], None]) -> None:
    """Call ``woke`` with the seconds missed whenever this process stood still.

    The wall clock runs on while the machine sleeps; the monotonic one does so on some systems,
    and runs on while only this process is stopped. So the larger of the two counts.
    """
    while True:
        wall, steady = time.time(), time.monotonic()
        await asyncio.sleep(_TICK)
        elapsed = max(time.time() - wall, time.monotonic() - steady)
        if elapsed > _TICK + _JUMP:
            woke(elapsed - _TICK)
