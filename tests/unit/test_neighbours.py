"""Who else uses this machine, as its files tell it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roost.neighbours import others, warning

ACCOUNTS = """\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
me:x:1900:1900::/home/me:/bin/bash
zoe:x:1901:1901:Zoë:/home/zoe:/bin/zsh
build:x:1902:1902::/home/build:/usr/sbin/nologin
ann:x:1903:1903:Ann Lee,,,:/home/ann:
nobody:x:65534:65534:nobody:/nonexistent:/bin/sh

a line that is none
"""


def test_people_are_those_with_an_account_or_a_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1900)
    (tmp_path / "passwd").write_text(ACCOUNTS)
    for name in ("0", "1901", "59999", "1900", "not a number"):
        (tmp_path / "run" / name).mkdir(parents=True)
    assert others(tmp_path / "passwd", tmp_path / "run") == ["59999", "ann", "zoe"]


def test_a_machine_that_does_not_say(tmp_path: Path) -> None:
    assert others(tmp_path / "passwd", tmp_path / "run") == []


def test_one_line_whoever_they_are() -> None:
    assert warning(8157, []) == ""
    assert "(ann)" in warning(8157, ["ann"])
    assert "(a, b, c and 2 more) can use port 8157" in warning(8157, list("abcde"))
