"""Copying by scp from a machine that has no rsync; what scp does on a box is in test_transfer."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.errors import UsageError
from roost.model import Box
from roost.transfer import Options, Transfer, copy_plainly


@pytest.fixture
def scp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it but an scp, which writes down its arguments."""
    program, said = tmp_path / "bin" / "scp", tmp_path / "said"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{said}\n", "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return said


def test_names_reach_the_box_as_they_are(scp: Path, tmp_path: Path) -> None:
    config = tmp_path / "config"
    there = Transfer(config, Box("box", "192.0.2.1"), ("a b", "dir/"), "my data/$x", up=True)
    copy_plainly(there)
    words = scp.read_text("utf-8").splitlines()
    assert words[words.index("--") + 1 :] == ["./a b", "./dir/.", "box:./my data/$x"]
    back = Transfer(config, Box("box", "192.0.2.1"), ("it's",), "/tmp/x", up=False)
    copy_plainly(back)
    assert scp.read_text("utf-8").splitlines()[-2:] == ["box:./it's", "/tmp/x"]


def test_what_scp_cannot_do_is_refused_with_where_rsync_is_missing(scp: Path) -> None:
    more = Options(ignore_existing=True)
    wanted = Transfer(scp, Box("box", "192.0.2.1"), ("a",), "b", up=True, options=more)
    with pytest.raises(UsageError) as caught:
        copy_plainly(wanted)
    assert caught.value.fix == "install it here: sudo apt-get install rsync"
    assert not scp.exists()
