"""Changes of a folder are noticed, whenever they come."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.watching import watch


@pytest.mark.timeout(30)
def test_what_changes_between_two_looks_is_not_missed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1", "utf-8")
    changes = watch(tmp_path, interval=0.01)
    # As during a first push: nobody has asked for a change yet.
    (tmp_path / "b").write_text("2", "utf-8")
    next(changes)
    (tmp_path / "a").write_text("longer", "utf-8")
    next(changes)
    (tmp_path / "sub").mkdir()
    next(changes)
    (tmp_path / "sub" / "c").write_text("3", "utf-8")
    next(changes)
    (tmp_path / "b").unlink()
    next(changes)
