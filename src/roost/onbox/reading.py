"""Send a log, from some byte of it on, and the news of its job."""

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from roost.onbox.store import GOING, Job, describe, find, job_folder

KEEPALIVE = 10.0
POLL = 0.1
BLOCK = 1 << 16


def emit(text: str, data: bytes = b"") -> None:
    """Write one frame."""
    sys.stdout.buffer.write(text.encode("ascii") + data)
    sys.stdout.buffer.flush()


def follow(request: dict[str, Any]) -> Job:
    """Send a log from an offset on, and with ``wait`` go on until the job has ended."""
    job_id = find(request["name"])
    path = os.path.join(job_folder(job_id), "log")
    job = describe(job_id)
    with_log = request.get("data") is not None
    offset = first_byte(request, job_id, job["log_size"]) if with_log else job["log_size"]
    emit(f"o {offset} {job_id}\n")
    sent = time.time()
    while True:
        # The state before the bytes: what an ended job wrote is all there.
        job = describe(job_id)
        for chunk in chunks(path, offset, job["log_size"]) if with_log else ():
            emit(f"d {len(chunk)}\n", chunk)
            offset += len(chunk)
            sent = time.time()
        going = job["state"] in GOING or (with_log and job["writing"])
        if not going or not request.get("wait"):
            return job
        if time.time() - sent > KEEPALIVE:
            emit("k\n")
            sent = time.time()
        time.sleep(POLL)


def chunks(path: str, offset: int, end: int) -> Iterator[bytes]:
    """The bytes of a file between two offsets."""
    if offset >= end:
        return
    with open(path, "rb") as file:
        file.seek(offset)
        while offset < end:
            chunk = file.read(min(BLOCK, end - offset))
            if not chunk:
                return
            offset += len(chunk)
            yield chunk


def first_byte(request: dict[str, Any], job_id: str, size: int) -> int:
    """Where to begin: at an offset, at what came since a time, or so many lines before the end."""
    path = os.path.join(job_folder(job_id), "log")
    if request.get("since") is not None:
        at = offset_at(os.path.join(job_folder(job_id), "times"), float(request["since"]), size)
        # The whole line that was being written then; where nothing has come since: nothing.
        return at if at in (0, size) else line_start(path, at)
    if request.get("tail") is not None:
        return tail_start(path, size, int(request["tail"]))
    return int(request["data"])


def offset_at(path: str, since: float, size: int) -> int:
    """How long the log was at a time (negative: seconds before now)."""
    since += time.time() if since < 0 else 0
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                seconds, _, offset = line.partition(" ")
                if int(seconds) >= int(since):
                    return int(offset)
    except OSError:
        return 0
    return size


def line_start(path: str, at: int) -> int:
    """The beginning of the line that the byte ``at`` is in."""
    with open(path, "rb") as file:
        file.seek(at - 1)
        return at if file.read(1) == b"\n" else tail_start(path, at, 1)


def tail_start(path: str, end: int, count: int) -> int:
    """Where the last ``count`` lines before ``end`` begin; one that is not yet ended counts."""
    if end == 0 or count <= 0:
        return end
    with open(path, "rb") as file:
        at, needed = end, count
        file.seek(end - 1)
        if file.read(1) == b"\n":
            needed += 1
        while at > 0:
            begin = max(0, at - BLOCK)
            file.seek(begin)
            block = file.read(at - begin)
            cut = len(block)
            while (cut := block.rfind(b"\n", 0, cut)) >= 0:
                needed -= 1
                if not needed:
                    return begin + cut + 1
            at = begin
    return 0
