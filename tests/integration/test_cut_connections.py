"""The connection is cut at random points: every line once, every checksum right.

``FAULT_ROUNDS`` says how often (``make faults``); the points are the same in every run.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from workplace import as_root, as_user, equip, way

from boxes import LiveBox
from roost import jobs, transfer
from roost.job_model import Job
from roost.job_stream import Remote

pytestmark = pytest.mark.box

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "5"))
CUTTER = Path(__file__).with_name("cutter.py")
# What a connection carries at most before the first byte of a log: keys, the program for the box.
OVERHEAD = 50_000
# The first contact has to succeed. Where the line is cut, ssh may drop what it has not yet
# passed on: so the first cut comes well behind the first byte.
FIRST = OVERHEAD + 200_000
LINE = len("line 10000\n")


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.node.name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "limits").touch()
    (tmp_path / "cuts").touch()
    return tmp_path


@pytest.fixture
def cut_line(
    shared_box: Callable[..., LiveBox], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LiveBox]:
    """The box, reached through a line that is cut as ``folder / "limits"`` says."""
    box = shared_box("jobs", prepare=equip)
    own = box.workspace.inventory / "host_vars" / f"{box.name}.yml"
    own.parent.mkdir(exist_ok=True)
    proxy = f"{sys.executable} {CUTTER} {folder} %h %p"
    own.write_text(
        f"roost_ssh_options:\n  ProxyCommand: {proxy!r}\n  ControlMaster: 'no'\n"
        "  ControlPath: none\n",
        "utf-8",
    )
    for module in (jobs, transfer):
        monkeypatch.setattr(module, "LONGEST_PAUSE", 0.2)
    yield box
    own.unlink()
    way(box)


def cuts(folder: Path) -> int:
    return len((folder / "cuts").read_text("utf-8").splitlines())


def plan(folder: Path, limits: list[int]) -> None:
    (folder / "limits").write_text("\n".join(map(str, limits)), "utf-8")


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_a_followed_log_has_every_line_once(
    cut_line: LiveBox, folder: Path, chance: random.Random
) -> None:
    remote = way(cut_line)
    # More than all the cut connections together can carry.
    lines = (FIRST + ROUNDS * (OVERHEAD + 12_000)) // LINE * 2
    script = f"import time\nfor n in range({lines}):\n    print('line', n)\n"
    script += "    if n % 100 == 0: time.sleep(0.02)"
    jobs.start(remote, ["python3", "-u", "-c", script], name="cut")
    plan(folder, [FIRST] + [chance.randint(500, OVERHEAD + 12000) for _ in range(ROUNDS)])
    lost: list[object] = []
    parts = list(jobs.follow(remote, "cut", lost=lost.append))
    assert isinstance(parts[-1], Job) and parts[-1].code == 0
    found = b"".join(part for part in parts if isinstance(part, bytes))
    assert found.decode().splitlines() == [f"line {n}" for n in range(lines)]
    assert cuts(folder) == len(lost) == ROUNDS + 1


def tree(root: Path, chance: random.Random) -> None:
    """One big file, and small ones with names that people give."""
    root.mkdir()
    (root / "big file.bin").write_bytes(chance.randbytes(250_000 * (ROUNDS + 3)))
    for number in range(60):
        folder = root / f"ordner ü {number % 7}" / "it's"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"-{number} $x *.txt").write_bytes(chance.randbytes(chance.randint(0, 3000)))


def moved(remote: Remote, source: str, target: str, *, up: bool) -> list[object]:
    lost: list[object] = []
    options = transfer.Options(retries=ROUNDS * 3)
    one = transfer.Transfer(remote.config, remote.box, (source,), target, up, options, remote.fleet)
    transfer.run(one, lost=lost.append)
    return lost


def test_a_push_goes_on_where_it_stopped(
    cut_line: LiveBox, folder: Path, chance: random.Random, tmp_path: Path
) -> None:
    remote = way(cut_line)
    tree(tmp_path / "tree", chance)
    as_user(cut_line, "rm -rf ~/in && mkdir ~/in")
    plan(folder, [chance.randint(1000, 400_000) for _ in range(ROUNDS)])
    lost = moved(remote, f"{tmp_path}/tree/", "in/", up=True)
    script = "cd ~/in && find . -type f -printf '%P\\0' | sort -z | xargs -0 sha256sum -z"
    sums = as_user(cut_line, script).stdout.rstrip("\0").split("\0")
    assert {s[66:]: s[:64] for s in sums} == digests(tmp_path / "tree")
    # No connection but the last could carry the big file: it came in pieces.
    assert cuts(folder) == len(lost) == ROUNDS


def test_a_pull_goes_on_where_it_stopped(
    cut_line: LiveBox, folder: Path, chance: random.Random, tmp_path: Path
) -> None:
    remote = way(cut_line)
    tree(tmp_path / "tree", chance)
    as_user(cut_line, "rm -rf ~/out")
    moved(remote, f"{tmp_path}/tree/", "out", up=True)
    (tmp_path / "back").mkdir()
    plan(folder, [chance.randint(1000, 400_000) for _ in range(ROUNDS)])
    lost = moved(remote, "out/", f"{tmp_path}/back", up=False)
    assert digests(tmp_path / "back") == digests(tmp_path / "tree")
    assert cuts(folder) == len(lost) == ROUNDS


def test_a_log_goes_on_when_the_login_is_killed_on_the_box(cut_line: LiveBox) -> None:
    remote = way(cut_line)
    # Where the writer of the step before has not yet closed it, the next read ends at once.
    script = "for n in 1 2 3; do echo $n; until read x < ~/step; do :; done; done"
    as_user(cut_line, "rm -f ~/step; mkfifo ~/step")
    jobs.start(remote, ["sh", "-c", script], name="steps")
    found, lost, steps = b"", [], 0
    for part in jobs.follow(remote, "steps", lost=lost.append):
        if isinstance(part, bytes):
            found += part
        # A line may come in pieces.
        if found.count(b"\n") > steps:
            steps += 1
            as_root(cut_line, "pkill", "-9", "-f", "^sshd.*: .*@notty")
            as_user(cut_line, "echo > ~/step")
    assert found == b"1\n2\n3\n"
    assert lost
