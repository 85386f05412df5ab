"""What the doctor makes of what a box says: one thing wrong at a time."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from roost.verdicts import Seen, judge, skew

UNIT = "roost-jupyter@me.service"
HEALTHY: dict[str, Any] = {
    "user": "me",
    "begun": 1000.5,
    "ended": 1002.5,
    "python": {"version": [3, 11, 2], "missing": []},
    "system": {
        "id": "debian", "release": "12", "reboot": False, "memory": [16 << 30, 8 << 30],
        "synchronized": "yes", "container": False,
    },
    "sudo": {"code": 0, "said": ""},
    "disks": [
        {"mount": "/", "total": 50 << 30, "free": 25 << 30, "inodes": [1000, 900],
         "read_only": False}
    ],
    "apt": {"holders": [], "interrupted": False, "half": []},
    "archive": [{"uri": "http://deb.example.org/debian/dists/x/InRelease", "said": ""}],
    "index": {"uri": "https://pypi.example.org/simple/pip/", "said": ""},
    "jupyter": {
        "unit": UNIT, "user": "me", "LoadState": "loaded", "ActiveState": "active",
        "Result": "success", "status": 200, "said": "", "keeper": {"active": True},
    },
    "kernels": {"python3": ""},
    "tmux": {"code": 0, "said": "", "server": ""},
    "units": {"failed": [], "ownerless": []},
    "gpu": {},
}  # fmt: skip
DISK = HEALTHY["disks"][0]
FULL = {**DISK, "mount": "/data", "free": 1 << 20}
INODES = {**DISK, "inodes": [1000, 5]}
BIG = {**DISK, "total": 8 << 40, "free": 100 << 30}
SUDO_ASKS = {"code": 1, "said": "sudo: a password is required"}
SUDO_NOT = {"code": 1, "said": "sudo: me may not run sudo on gpu1."}
OLD_TMUX = "open terminal failed: server version is too old for client"
DEAD = "FileNotFoundError: [Errno 2] No such file or directory: '/home/me/x/bin/python'"
RESOLVE = "E: Failed to fetch http://a/InRelease  Temporary failure resolving 'a'"

# The part of the facts, what changes in it, and the finding: subject, level, words, fix, safe.
CASES: list[tuple[str, Any, str, str, str, str, bool]] = [
    ("system", {"reboot": True}, "system", "note", "waits for a reboot", "reboot", False),
    ("system", {"id": "alpine"}, "system", "error", "not supported", "Ubuntu", False),
    ("system", {"memory": [16 << 30, 1 << 20]}, "system", "warning", "1 MiB", "ps axu", False),
    ("system", {"synchronized": "no"}, "clock", "note", "nothing keeps", "set-ntp true", False),
    ("python", {"missing": ["venv"]}, "Python", "warning", "venv missing", "roost up gpu1", False),
    ("sudo", SUDO_ASKS, "sudo", "warning", "asks", "--ask-become-pass", False),
    ("sudo", SUDO_NOT, "sudo", "error", "may not", "ansible_user", False),
    ("sudo", {"code": 127}, "sudo", "error", "no sudo", "apt-get install sudo", False),
    ("disks", [DISK, FULL], "disk", "error", "/data is almost full: 1 MiB", "du -xh", False),
    ("disks", [INODES], "disk", "error", "5 inodes", "du -xh", False),
    ("disks", [{**DISK, "free": 4 << 30}], "disk", "warning", "4096 MiB", "du -xh", False),
    ("disks", [{**DISK, "read_only": True}], "disk", "error", "read-only", "dmesg", False),
    ("apt", {"holders": [[7, "apt-get", "/l"]]}, "apt", "warning", "apt-get", "-p 7", False),
    ("apt", {"interrupted": True}, "apt", "error", "cut off", "--configure -a", True),
    ("apt", {"half": ["vim"]}, "apt", "error", "middle: vim", "--configure -a", True),
    ("archive", [{"uri": "http://a", "said": RESOLVE}], "archive", "error", "resolving", "DNS",
     False),
    ("index", {"said": "CERTIFICATE_VERIFY_FAILED"}, "PyPI", "error", "CERT", "base_ca_", False),
    ("index", {"said": "timed out"}, "PyPI", "error", "timed out", "base_pypi_index", False),
    ("jupyter", {"LoadState": "not-found"}, "Jupyter", "note", "no JupyterLab", "roost up", False),
    ("jupyter", {"ActiveState": "failed"}, "Jupyter", "error", "failed", "restart", True),
    ("jupyter", {"ActiveState": "inactive"}, "Jupyter", "warning", "inactive", "restart", True),
    ("jupyter", {"said": "timed out"}, "Jupyter", "error", "not answer", "ends its ker", False),
    ("jupyter", {"status": 403}, "Jupyter", "error", "HTTP 403", "ends its kernels", False),
    ("jupyter", {"keeper": {}}, "notebooks", "warning", "no jupyter-keeper", "tags jupyter", False),
    ("kernels", {"nlp": DEAD}, "kernel", "error", "nlp", "roost kernel remove gpu1 nlp", False),
    ("kernels", {"nlp": "died"}, "kernel", "error", "died", "roost kernel list gpu1", False),
    ("tmux", {"code": 127, "said": "tmux: not found"}, "tmux", "error", "not found", "up", False),
    ("tmux", {"server": OLD_TMUX}, "tmux", "warning", "too old", "kill-server", False),
    ("units", {"ownerless": ["roost-jupyter@gone.service"]}, "units", "warning", "no such account",
     "disable --now", True),
    ("units", {"failed": ["roost-people.service"]}, "units", "warning", "failed", "status", False),
    ("gpu", {"code": 18, "said": "Driver/library version mismatch"}, "GPU", "error", "mismatch",
     "reboot", False),
]  # fmt: skip


def seen(part: str = "", change: Any = None) -> Seen:
    facts = copy.deepcopy(HEALTHY)
    if isinstance(change, dict):
        facts[part].update(change)
    elif part:
        facts[part] = change
    return Seen("gpu1", facts, sent=1000.0, received=1003.0)


def test_a_healthy_box_has_nothing_to_mend() -> None:
    assert {f.level for f in judge(seen())} == {"ok"}
    # A tenth of a large disk is a lot.
    assert {f.level for f in judge(seen("disks", [BIG]))} == {"ok"}
    working = seen("gpu", {"code": 0, "said": "GPU 0: NVIDIA RTX A5000"})
    assert ("gpu1 GPU", "ok") in {(f.subject, f.level) for f in judge(working)}


@pytest.mark.parametrize(
    ("part", "change", "subject", "level", "words", "fix", "safe"), CASES,
    ids=[f"{c[2]}-{c[4]}" for c in CASES],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_mends_it(
    part: str, change: Any, subject: str, level: str, words: str, fix: str, safe: bool
) -> None:
    (found,) = (f for f in judge(seen(part, change)) if f.level != "ok")
    assert (found.subject, found.level, found.safe) == (f"gpu1 {subject}", level, safe)
    assert words in found.text
    assert fix in found.fix


def test_nothing_is_configured_while_somebody_installs() -> None:
    busy = {"holders": [[7, "apt-get", "/var/lib/dpkg/lock"]], "interrupted": True}
    found = [f for f in judge(seen("apt", busy)) if f.level != "ok"]
    assert [f.level for f in found] == ["warning", "error"]
    assert not any(f.safe for f in found)


def test_a_part_that_stumbles_hides_no_other() -> None:
    facts = seen("tmux", {"trouble": "OSError: [Errno 24] Too many open files"})
    (found,) = (f for f in judge(facts) if f.level != "ok")
    assert (found.subject, found.level) == ("gpu1 tmux", "note")
    assert "Too many open files" in found.text


@pytest.mark.parametrize(
    ("begun", "ended", "off"),
    [
        (1000.5, 1002.5, 0),  # within the question and the answer: nobody can tell more
        (1000.0, 1003.0, 0),
        (1010.0, 1012.0, 9),
        (900.0, 902.0, -100),
        (4600.0, 4602.0, 3599),
    ],
)
def test_a_clock_is_off_by_what_the_round_trip_cannot_explain(
    begun: float, ended: float, off: float
) -> None:
    assert skew(1000.0, 1003.0, begun, ended) == off


@pytest.mark.parametrize(
    ("shift", "level"), [(0, "ok"), (3, "ok"), (30, "warning"), (-30, "warning"), (-4000, "error")]
)
def test_a_clock_that_is_off_is_named(shift: float, level: str) -> None:
    facts = {**HEALTHY, "begun": 1000.5 + shift, "ended": 1002.5 + shift}
    (found,) = (f for f in judge(Seen("gpu1", facts, 1000.0, 1003.0)) if f.subject == "gpu1 clock")
    assert found.level == level
    assert level == "ok" or "timedatectl" in found.fix
