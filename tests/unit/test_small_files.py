"""The module small_files, run as Ansible runs it: JSON in, JSON out."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MODULE = Path(__file__).resolve().parents[2] / "plugins/modules/small_files.py"
ME = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Not the folder itself: the temporary home lies in it."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def run(*files: dict[str, Any], check: bool = False) -> dict[str, Any]:
    arguments = {"files": [{**ME, **f} for f in files], "_ansible_check_mode": check,
                 "_ansible_diff": True}  # fmt: skip
    done = subprocess.run(
        [sys.executable, MODULE], input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_places_and_then_leaves_alone(place: Path) -> None:
    files = [
        {"path": str(place / "d"), "state": "directory", "mode": "0750"},
        {"path": str(place / "d/a"), "content": "one\n", "mode": "0600"},
        {"path": str(place / "new/b"), "content": "zwölf\r\n"},
        {"path": str(place / "l"), "state": "link", "target": "d/a"},
    ]
    first = run(*files)
    assert first["changed_paths"] == [f["path"] for f in files]
    assert (place / "new/b").read_bytes() == "zwölf\r\n".encode()
    assert [mode(place / p) for p in ("d", "d/a", "new/b")] == [0o750, 0o600, 0o644]
    assert (place / "l").readlink() == Path("d/a")
    before = (place / "d/a").stat().st_mtime_ns
    second = run(*files)
    assert (second["changed"], second["changed_paths"]) == (False, [])
    assert (place / "d/a").stat().st_mtime_ns == before
    assert sorted(p.name for p in place.rglob("*")) == ["a", "b", "d", "l", "new"]


@pytest.mark.parametrize("tamper", ["content", "mode", "link", "gone"])
def test_mends_what_was_changed(place: Path, tamper: str) -> None:
    path, other = place / "a", place / "other"
    spec = {"path": str(path), "content": "one\n"}
    run(spec)
    other.write_text("somebody's")
    if tamper == "content":
        path.write_text("two\n")
    elif tamper == "mode":
        path.chmod(0o666)
    else:
        path.unlink()
        if tamper == "link":
            path.symlink_to(other)
    assert run(spec)["changed"]
    assert (path.read_text(), mode(path), path.is_symlink()) == ("one\n", 0o644, False)
    assert other.read_text() == "somebody's"


def test_check_says_the_same_and_does_nothing(place: Path) -> None:
    path = place / "a"
    path.write_text("old\n")
    specs = [{"path": str(path), "content": "new\n"}, {"path": str(place / "b")}]
    check = run(*specs, check=True)
    assert path.read_text() == "old\n"
    assert not (place / "b").exists()
    assert check["changed_paths"] == run(*specs)["changed_paths"]
    assert (check["diff"][0]["before"], check["diff"][0]["after"]) == ("old\n", "new\n")


def test_takes_away(place: Path) -> None:
    (place / "full").mkdir()
    (place / "full/theirs").touch()
    (place / "empty").mkdir()
    (place / "dangling").symlink_to("nowhere")
    specs = [{"path": str(place / n), "state": "absent"} for n in ("full", "empty", "dangling")]
    assert run(*specs)["changed_paths"] == [str(place / "empty"), str(place / "dangling")]
    assert [p.name for p in place.iterdir()] == ["full"]
    assert not run(*specs)["changed"]


def test_somebody_elses_file_comes_back(place: Path) -> None:
    path = place / "pip.conf"
    path.write_text("theirs\n")
    ours = {"path": str(path), "content": "# by us\n", "ours": "by us"}
    assert not run({**ours, "state": "absent"})["changed"]
    run(ours)
    assert path.read_text() == "# by us\n"
    assert not run(ours)["changed"]
    run({**ours, "state": "absent"})
    assert path.read_text() == "theirs\n"
    assert [p.name for p in place.iterdir()] == ["pip.conf"]


def test_a_refused_file_stays_as_it_was(place: Path) -> None:
    path = place / "a"
    path.write_text("good\n")
    done = run({"path": str(path), "content": "bad\n", "validate": "grep -q good %s"})
    assert done["failed"]
    assert "is refused by grep" in done["msg"]
    assert path.read_text() == "good\n"
    assert [p.name for p in place.iterdir()] == ["a"]


def test_follows_a_link_where_it_is_told_to(place: Path) -> None:
    link = place / "link"
    link.symlink_to(place / "real")
    assert run({"path": str(link), "content": "x\n", "follow": True})["changed"]
    assert link.is_symlink()
    assert (place / "real").read_text() == "x\n"


def test_an_impossible_path_is_one_message(place: Path) -> None:
    (place / "file").touch()
    done = run({"path": str(place / "file/below"), "content": "x"})
    assert done["failed"]
    assert done["msg"].startswith(f"{place}/file/below cannot be put in order")


def test_what_has_to_follow_a_change_follows_it_and_nothing_else(place: Path) -> None:
    path, told = place / "a", place / "told"
    spec = {"path": str(path), "content": "one\n", "then": f"sh -c 'cat {path} >> {told}'"}
    assert run(spec, check=True)["changed"]
    assert not told.exists()
    run(spec)
    run(spec)
    assert told.read_text() == "one\n"
    run({**spec, "state": "absent", "then": f"rm {told}"})
    assert not told.exists()
    assert run({**spec, "then": "false"})["failed"]
