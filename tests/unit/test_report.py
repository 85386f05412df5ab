from __future__ import annotations

import io
import json

import pytest

from roost.errors import RoostError
from roost.report import Reporter, duration, format_error


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (0.64, "0.6 s"),
        (42.4, "42 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration_reads_as_a_person_says_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_error_says_what_why_and_the_fix() -> None:
    assert format_error(RoostError("it broke")) == "roost: it broke"
    full = RoostError("it broke", why="the disk is full", fix="df -h")
    assert format_error(full) == "roost: it broke\n  why: the disk is full\n  fix: df -h"


def test_data_goes_to_stdout_and_notes_to_stderr() -> None:
    out, err = io.StringIO(), io.StringIO()
    report = Reporter(out, err)
    report.note("working")
    report.json({"name": "Zoë", "boxes": []})
    assert json.loads(out.getvalue()) == {"name": "Zoë", "boxes": []}
    assert err.getvalue() == "working\n"


def test_table_in_a_pipe_is_whole_and_takes_text_as_it_is() -> None:
    out = io.StringIO()
    Reporter(out).table(
        ("NAME", "NOTE"), [("a", "x" * 300), ("b", "[bold]not markup[/]"), ("c", None)]
    )
    lines = out.getvalue().splitlines()
    assert lines[0].split() == ["NAME", "NOTE"]
    assert "x" * 300 in lines[1]
    assert "[bold]not markup[/]" in lines[2]
    assert lines[3].split() == ["c"]
    assert "\x1b" not in out.getvalue()
