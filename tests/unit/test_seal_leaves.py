"""What tasks leave behind: a table of modules, and what is not known is said."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from roost.seal_leaves import Task, UncoveredError, leaves
from roost.seals import Record


def answer(**args: Any) -> dict[str, Any]:
    return {"changed": True, "invocation": {"module_args": args}}


@pytest.mark.parametrize(
    ("action", "result", "expected"),
    [
        ("ansible.builtin.file", answer(path="/a", state="directory"), [{"path": "/a"}]),
        ("file", answer(path="/a", recurse=True), [{"tree": "/a"}]),
        (
            "copy",
            answer(src="x", dest="/d/") | {"dest": "/d/x", "checksum": "0"},
            [{"path": "/d/x"}],
        ),
        ("ansible.legacy.template", answer(dest="/t") | {"checksum": "0"}, [{"path": "/t"}]),
        ("lineinfile", answer(path="/l"), [{"path": "/l"}]),
        (
            "apt",
            answer(name=["tmux=3.3", "git"]),
            [{"package": n, "expect": {"status": "installed"}} for n in ("tmux", "git")],
        ),
        ("apt", answer(package=["vim"], state="absent"), [{"package": "vim"}]),
        ("apt", answer(update_cache=True), []),
        ("user", answer(name="ann", groups=["video"]), [{"user": "ann"}, {"group": "video"}]),
        ("group", answer(name="lab"), [{"group": "lab"}]),
        ("systemd_service", answer(name="cron"), [{"unit": "cron.service"}]),
        ("service", answer(name="a.timer"), [{"unit": "a.timer"}]),
        ("systemd", answer(daemon_reload=True), []),
        ("stat", answer(path="/s", follow=False), [{"path": "/s", "follow": False}]),
        ("command", answer(creates="/done"), [{"path": "/done", "only": ["type"]}]),
        ("whatever", {"roost_leaves": [{"path": "/w"}]}, [{"path": "/w"}]),
        ("set_fact", {}, []),
    ],
)
def test_what_is_known(action: str, result: dict[str, Any], expected: object) -> None:
    assert leaves(Task(action), result) == expected


def test_a_file_of_ours_is_expected_to_be_what_was_written() -> None:
    specs = [{"path": "/a", "content": "ä\n"}, {"path": "/b", "state": "absent"}]
    found = leaves(Task("roost.box.small_files"), answer(files=specs))
    digest = hashlib.sha256("ä\n".encode()).hexdigest()
    assert found == [
        {"path": "/a", "follow": False, "expect": {"content": digest}},
        {"path": "/b", "follow": False},
    ]


def test_a_loop_leaves_what_its_turns_leave() -> None:
    result = {"results": [answer(path="/a"), {"skipped": True}, answer(path="/b")]}
    assert leaves(Task("file"), result) == [{"path": "/a"}, {"path": "/b"}]
    assert leaves(Task("no.such.module"), {"results": []}) == []


@pytest.mark.parametrize(
    ("task", "result"),
    [
        (Task("no.such.module"), answer()),
        (Task("command"), answer(argv=["x"])),
        (Task("raw", changes_nothing=True, answers=True), {}),
        (Task("file", elsewhere=True), answer(path="/a")),
        (Task("file", in_background=True), answer(path="/a")),
        (Task("systemd"), {"censored": "hidden"}),
        (Task("apt"), answer(name=["x"], state="latest")),
        (Task("apt"), answer(name=["py*"])),
        (Task("apt"), answer(upgrade="dist")),
        (Task("systemd"), answer(name="x", scope="user")),
        (Task("setup"), answer(gather_subset=["all"])),
        (Task("file"), answer()),
        (Task("copy"), {"dest": "/d", "src": "/s", "changed": True}),
    ],
)
def test_what_nobody_can_tell_is_said(task: Task, result: dict[str, Any]) -> None:
    with pytest.raises(UncoveredError):
        leaves(task, result)


def test_a_task_may_tell_itself_and_one_that_is_not_heard_changes_nothing() -> None:
    declared = Task("command", elsewhere=True, declared=[{"unit": "a.service"}])
    assert leaves(declared, {"censored": "hidden"}) == [{"unit": "a.service"}]
    assert leaves(Task("command", changes_nothing=True), answer()) == []


def test_a_record_is_whole_or_there_is_no_seal() -> None:
    lines = [
        '{"box": "a", "leaf": {"path": "/x", "expect": {"content": "1"}}}',
        '{"box": "a", "leaf": {"path": "/x"}}',
        '{"box": "b", "uncovered": "why"}',
        '{"box": "b", "leaf": {"path": "/x"}}',
    ]
    cut = Record.read("\n".join(lines))
    assert cut.obstacles("a") == ["the run was not recorded to its end"]
    whole = Record.read("\n".join([*lines, '{"box": "*", "end": true}']))
    assert whole.obstacles("a") == []
    # The last task that touches a thing decides what it has to be.
    assert list(whole.leaves["a"].values()) == [{"path": "/x"}]
    assert whole.obstacles("b") == ["why"]
    assert whole.obstacles("c") == ["the run left nothing that could be looked at"]
    everywhere = Record.read('{"box": "*", "end": true}\n{"box": "*", "uncovered": "all"}')
    assert everywhere.obstacles("a") == ["all"]
    with pytest.raises(ValueError):
        Record.read('{"box": "a", "le')
