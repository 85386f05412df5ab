"""Files that are replaced: the old one or the new one, whole, whenever the writer is stopped."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from faults import Faults

from roost import files

OLD, NEW = b"old\n" * 5000, b"new\n" * 9000


def stopped(mode: str, step: int, target: Path) -> int:
    """Replace ``target`` in a child that is killed at that change; how many it made before."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        report, faults = os.write, Faults(mode, step)
        faults.arm()
        files.replace(target, NEW)
        report(writer, str(faults.count).encode())
        os._exit(0)
    os.close(writer)
    said = os.read(reader, 100)
    os.close(reader)
    os.waitpid(pid, 0)
    return int(said or 0)


@pytest.mark.parametrize("mode", ["before", "half", "after"])
def test_a_killed_writer_leaves_the_old_or_the_new(mode: str, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(OLD)
    most = stopped("none", 0, target)
    assert most >= 5, "what changes something is counted"
    for step in range(1, most + 1):
        target.write_bytes(OLD)
        stopped(mode, step, target)
        assert target.read_bytes() in (OLD, NEW), (mode, step)
        files.replace(target, NEW)
        assert target.read_bytes() == NEW


def test_nothing_is_written_where_nothing_changes(tmp_path: Path) -> None:
    target = tmp_path / "file"
    assert files.replace(target, NEW, mode=0o640)
    before = target.stat()
    assert before.st_mode & 0o777 == 0o640
    assert not files.replace(target, NEW)
    assert target.stat() == before
    assert [p.name for p in tmp_path.glob("*file*")] == ["file"]


def test_a_reader_keeps_the_file_that_it_opened(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(OLD)
    with target.open("rb") as reader:
        files.replace(target, NEW)
        assert reader.read() == OLD
    assert target.read_bytes() == NEW


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    inside: list[int] = []
    together: list[int] = []

    def work() -> None:
        for _ in range(50):
            with files.locked(tmp_path / "lock"):
                inside.append(1)
                together.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [1] * 200
