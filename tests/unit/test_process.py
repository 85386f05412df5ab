"""How a program that takes too long is ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost import process
from roost.errors import ProcessTimeoutError


def over(number: Path) -> bool:
    """Whether the process whose number a file holds has ended; nobody may have reaped it yet."""
    try:
        stat = Path("/proc", number.read_text().strip(), "stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def test_it_may_clean_up_and_its_children_end_with_it(tmp_path: Path) -> None:
    made, child = tmp_path / "half-made", tmp_path / "child"
    script = f"""
        touch {made}
        trap 'rm {made}; exit 1' TERM
        sleep 60 & echo $! >{child}
        wait
    """
    with pytest.raises(ProcessTimeoutError, match="did not end within"):
        process.run(["sh", "-c", script], timeout=1)
    assert not made.exists()
    assert over(child)


def test_one_that_does_not_listen_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.1)
    number = tmp_path / "pid"
    script = f"trap '' TERM; echo $$ >{number}; while :; do sleep 60; done"
    with pytest.raises(ProcessTimeoutError):
        process.run(["sh", "-c", script], timeout=1)
    assert over(number)
