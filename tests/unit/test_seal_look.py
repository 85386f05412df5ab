"""What is seen of files and environments, and how a difference is put into words."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

from roost.onbox import drift, observe, patterns, sealing

FILE = {"type": "file", "mode": "0644", "owner": "root", "content": "a" * 32}


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (FILE, FILE, []),
        (FILE, FILE | {"mode": "0600"}, ["mode 0644 -> 0600"]),
        (FILE, FILE | {"content": "b" * 32, "owner": "ann"}, ["content", "owner root -> ann"]),
        (FILE, {"type": "absent"}, ["gone"]),
        ({"type": "absent"}, FILE, ["added"]),
        (FILE, {"type": "link", "target": "/x", "owner": "root"}, ["type file -> link"]),
        (
            {"/a type": "file"},
            {"/a type": "file", "/ab type": "file", "/ab mode": "1"},
            ["/ab added"],
        ),
        (
            {"/a type": "file", "/a mode": "1"},
            {"/a type": "file", "/a mode": "2"},
            ["/a mode 1 -> 2"],
        ),
        ({"password": "locked"}, {"password": "usable"}, ["password locked -> usable"]),
        ({"end": "", "shell": "/a"}, {"end": "9", "shell": "/a"}, ["end none -> 9"]),
        ({"type": "x", "six-1": "a" * 32}, {"type": "x"}, ["six-1 gone"]),
        ({"/unit": "a" * 32}, {"/unit": "b" * 32}, ["/unit changed"]),
    ],
)
def test_differences_in_words(
    before: dict[str, str], now: dict[str, str], words: list[str]
) -> None:
    assert drift.differences({}, before, now) == words


def test_what_is_added_to_something_that_is_somebodys_does_not_count() -> None:
    leaf = {"venv": "/v", "more": True}
    assert drift.differences(leaf, {"six-1": "a"}, {"six-1": "a", "numpy-2": "b"}) == []
    assert drift.differences(leaf, {"six-1": "a"}, {"numpy-2": "b"}) == ["six-1 gone"]


def test_a_newer_version_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "newer", lambda now, before: now > before)
    leaf = {"package": "tmux"}
    assert drift.differences(leaf, {"version": "1"}, {"version": "2"}) == []
    assert drift.differences(leaf, {"version": "2"}, {"version": "1"}) == ["version 2 -> 1"]


def test_hashes_are_salted_and_nothing_else_is() -> None:
    seen = {"type": "file", "content": "0" * 64, "answer": "secret"}
    one, two = (sealing.without_contents(salt, seen) for salt in ("1", "2"))
    assert one["type"] == "file"
    assert one["content"] != two["content"]
    assert "secret" not in one["answer"] and one["answer"] != two["answer"]


def test_a_path_is_seen_whole(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("text")
    file.chmod(0o640)
    link.symlink_to(file)
    seen = observe.path(str(file))
    assert (seen["type"], seen["mode"]) == ("file", "0640")
    file.write_text("else")
    assert len(seen["content"]) == 64
    assert observe.path(str(link))["target"] == str(file)
    assert "content" not in observe.path(str(link))
    assert observe.path(str(tmp_path / "no")) == {"type": "absent"}
    (by_link,) = observe.look([{"path": str(link), "follow": True}])
    assert by_link["type"] == "file"


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert observe.path(str(tmp_path / "pipe"))["type"] == "special"
    assert observe.digest(str(tmp_path / "pipe")) == ""


def test_many_paths_carry_their_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").mkdir()
    ((one), (two)) = observe.look([{"glob": f"{tmp_path}/*"}, {"tree": str(tmp_path / "b")}])
    assert {k for k in one if k.endswith(" type")} == {f"{tmp_path}/a type", f"{tmp_path}/b type"}
    assert two[f"{tmp_path}/b type"] == "directory"
    (only,) = observe.look([{"path": str(tmp_path / "a"), "only": ["type"]}])
    assert only == {"type": "file"}


def test_an_environment_is_its_interpreter_and_its_packages(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    (site / "six-1.dist-info").mkdir(parents=True)
    (site / "six-1.dist-info" / "RECORD").write_text("six.py,,\n")
    (site / "six.py").write_text("")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to("/bin/sh")
    (before,) = observe.look([{"venv": str(tmp_path)}])
    assert before["interpreter"] == os.path.realpath("/bin/sh")
    assert before["module six.py"] == "file"
    (site / "six.py").unlink()
    (site / "six-1.dist-info" / "RECORD").write_text("")
    (now,) = observe.look([{"venv": str(tmp_path)}])
    assert sorted(k for k in before if before[k] != now.get(k)) == ["module six.py", "six-1"]
    (tmp_path / "bin" / "python").unlink()
    assert observe.venv(str(tmp_path))["interpreter"] == ""


def test_a_program_is_asked_for_its_answer() -> None:
    (seen,) = observe.look([{"command": ["cat"], "stdin": "ä"}])
    assert seen == {"answer": "ä", "exit code": "0"}
    (failed,) = observe.look([{"command": ["false"]}])
    assert failed["exit code"] == "1"
    (gone,) = observe.look([{"command": ["/no/such/program"]}])
    assert gone == {"answer": "", "exit code": "cannot be run"}


def test_programs_run_side_by_side_and_much_is_read_of_them() -> None:
    long = "x" * 300_000
    seen = observe.look([{"command": ["cat"], "stdin": long}, {"command": ["sh", "-c", "exit 3"]}])
    assert seen == [{"answer": long, "exit code": "0"}, {"answer": "", "exit code": "3"}]


@pytest.mark.parametrize(
    ("pattern", "name", "wanted"),
    [
        ("*", "", True),
        ("a*b", "ab", True),
        ("a*b", "axyb", True),
        ("a*a", "a", False),
        ("a*b", "abc", False),
        ("user-*.slice", "user-1000.slice", True),
        ("a*b*c", "axbyc", True),
        ("a*[0-9]", "ax7", True),
        ("a*[0-9]", "ax", False),
        ("a?c", "abc", True),
        ("abc", "abc", True),
        ("abc", "abcd", False),
    ],
)
def test_a_name_fits_a_pattern(pattern: str, name: str, wanted: bool) -> None:
    assert patterns.fits(pattern)(name) == wanted


@pytest.mark.parametrize(
    "pattern",
    ["*", "*/x", "a/*", "?/x", "[ab]/x", "a*/.*", "a/x", "none/*", "a/none", "**/x", "*/*/"],
)
def test_paths_are_those_of_the_standard_library(tmp_path: Path, pattern: str) -> None:
    for name in ("a/x", "a/.hidden", "b/x", "ab/y", ".c/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loose").symlink_to("nowhere")
    whole = f"{tmp_path}/{pattern}"
    assert patterns.paths(whole) == sorted(glob.glob(whole))  # noqa: PTH207 - it is the model


def test_a_unit_that_was_started_anew_is_no_drift() -> None:
    was, new = {"started before its files": "yes"}, {"started before its files": "no"}
    assert drift.differences({}, was, new) == []
    assert drift.differences({}, new, was) == ["started before its files no -> yes"]
    assert drift.differences({}, new, {}) == []
