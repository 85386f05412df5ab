"""ansible-runner's dictionaries become events; the outcome is what the events add up to."""

from __future__ import annotations

import io
from typing import Any

import pytest

from roost.events import Event, History, Kind, Outcome
from roost.playbook import translate
from roost.progress import PlainProgress, result_line
from roost.report import Reporter


def raw(event: str, **data: Any) -> dict[str, Any]:
    base = {"host": "gpu1", "role": "roost.box.tmux", "task": "Install tmux"}
    return {"event": event, "event_data": base | data}


def only(event: dict[str, Any]) -> Event:
    events = list(translate(event))
    assert len(events) == 1
    return events[0]


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (raw("runner_on_ok", res={"changed": False}), Kind.OK),
        (raw("runner_on_ok", res={"changed": True}), Kind.CHANGED),
        (raw("runner_on_skipped", res={}), Kind.SKIPPED),
        (raw("runner_on_failed", res={"msg": "no"}), Kind.FAILED),
        (raw("runner_on_failed", res={"msg": "no"}, ignore_errors=True), Kind.IGNORED),
        (raw("runner_on_unreachable", res={"msg": "no"}), Kind.UNREACHABLE),
        (raw("runner_on_start"), Kind.START),
        (raw("playbook_on_task_start"), Kind.TASK),
    ],
)
def test_kind_of_an_event(event: dict[str, Any], kind: Kind) -> None:
    assert only(event).kind is kind


def test_role_is_named_without_its_collection() -> None:
    assert only(raw("runner_on_start")).step == "tmux: Install tmux"
    assert only(raw("runner_on_start", role="")).step == "Install tmux"


def test_items_and_play_starts_tell_nothing_new() -> None:
    for name in ("runner_item_on_ok", "runner_on_file_diff", "playbook_on_play_start"):
        assert list(translate(raw(name, res={"changed": True}))) == []


def test_message_of_a_loop_is_that_of_the_items_that_failed() -> None:
    result = {
        "msg": "One or more items failed",
        "results": [{"msg": "fine"}, {"failed": True, "msg": "bad key", "stderr": "line 3"}],
    }
    event = only(raw("runner_on_failed", res=result))
    assert event.message == "bad key"
    assert "line 3" in event.detail


def test_hidden_result_stays_hidden() -> None:
    censored = {"censored": "the output has been hidden", "changed": True}
    assert only(raw("runner_on_ok", res=censored)).diff == ""
    assert only(raw("runner_on_failed", res=censored)).message == "the output has been hidden"


def test_hidden_change_is_a_change() -> None:
    event = raw("runner_on_ok", res={"censored": "the output has been hidden"})
    assert only(event).kind is Kind.OK
    assert only(event | {"stdout": "\x1b[0;33mchanged: [gpu1]\x1b[0m"}).kind is Kind.CHANGED


def test_diff_is_unified() -> None:
    result = {
        "changed": True,
        "diff": [{"before": "a\n", "after": "b\n", "after_header": "/etc/x"}],
    }
    diff = only(raw("runner_on_ok", res=result)).diff
    assert "-a\n+b\n" in diff
    assert "+++ /etc/x" in diff


def outcome_of(*events: dict[str, Any]) -> Outcome:
    outcome = Outcome()
    for one in events:
        for event in translate(one):
            outcome.add(event)
    return outcome


def test_failure_that_the_playbook_rescued_is_no_failure() -> None:
    outcome = outcome_of(
        raw("runner_on_failed", res={"msg": "no"}),
        raw("playbook_on_stats", ok={"gpu1": 3}, changed={"gpu1": 1}, rescued={"gpu1": 1}),
    )
    assert outcome.failed == []
    assert (outcome.boxes["gpu1"].ok, outcome.boxes["gpu1"].changed) == (3, 1)


def test_failed_and_unreachable_boxes_are_told_apart() -> None:
    outcome = outcome_of(
        raw("runner_on_failed", res={"msg": "no"}),
        raw("runner_on_unreachable", host="gpu2", res={"msg": "timed out"}),
        raw("playbook_on_stats", failures={"gpu1": 1}, dark={"gpu2": 1}),
    )
    assert outcome.failed == ["gpu1"]
    assert outcome.unreachable == ["gpu2"]


def test_fraction_weighs_the_steps_by_their_last_time() -> None:
    history = History({"a": 30.0, "b": 10.0})
    assert history.fraction({}) == 0
    assert history.fraction({"a": 1.0}) == 0.75
    assert history.fraction({"a": 1.0, "b": 1.0, "new": 9.0}) == 1.0
    assert History().fraction({"a": 1.0}) is None


def test_plain_progress_says_what_changed_and_what_failed_and_no_more() -> None:
    err = io.StringIO()
    display = PlainProgress(Reporter(io.StringIO(), err))
    for event in (
        raw("playbook_on_task_start"),
        raw("runner_on_ok", res={"changed": False}, duration=0.2),
        raw("runner_on_ok", res={"changed": True}, duration=12.34),
        raw("runner_on_failed", res={"msg": "E: dpkg was interrupted, you must manually run"}),
    ):
        for one in translate(event):
            display.show(one)
    assert err.getvalue().splitlines() == [
        "== tmux",
        "gpu1: changed  tmux: Install tmux  (12 s)",
        "gpu1: failed  tmux: Install tmux: an earlier installation was cut off in the middle",
    ]


def test_step_that_took_long_is_worth_a_line_though_nothing_changed() -> None:
    assert result_line(Event(Kind.OK, box="b", task="t", seconds=61)) == "b: ok  t  (1 min 01 s)"
    assert result_line(Event(Kind.OK, box="b", task="t", seconds=1)) is None
