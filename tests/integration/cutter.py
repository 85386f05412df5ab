"""A ProxyCommand for ssh that cuts the connection after a given number of bytes.

Usage: ``python3 cutter.py FOLDER HOST PORT``. ``FOLDER/limits`` holds a number a line; each
connection takes the first away and ends when so many bytes have gone either way. Where none is
left, nothing is cut. ``FOLDER/cuts`` gets a line for each connection that was cut.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
from pathlib import Path


def next_limit(folder: Path) -> int | None:
    with (folder / "limits").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        first, *others = file.read().split("\n") or [""]
        file.seek(0)
        file.truncate()
        file.write("\n".join(others))
    return int(first) if first else None


def main(folder: Path, host: str, port: int) -> None:
    limit = next_limit(folder)
    with socket.create_connection((host, port)) as line:
        routes = {0: line.fileno(), line.fileno(): 1}
        while True:
            for source in select.select(list(routes), [], [])[0]:
                room = 1 << 16 if limit is None else min(1 << 16, limit)
                data = os.read(source, room) if room else b""
                if limit is not None:
                    limit -= len(data)
                if not data:
                    if room == 0:
                        with (folder / "cuts").open("a") as cuts:
                            cuts.write("cut\n")
                    return
                while data:
                    data = data[os.write(routes[source], data) :]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
