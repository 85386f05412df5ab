"""Which editor is started, with which words, and what would keep it from the box."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roost import editor
from roost.errors import MissingProgramError

Fake = dict[str, str]


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """An environment whose PATH has editors that list the extensions in ``$EXTENSIONS``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("cursor", "codium", "my editor"):
        (folder / name).write_text('#!/bin/sh\nprintf "$EXTENSIONS"\n', "utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return {"PATH": str(folder)}


def test_the_first_that_is_installed_unless_one_is_asked_for(environ: Fake) -> None:
    assert editor.choose(None, environ) == ["cursor"]
    assert editor.choose("codium", environ) == ["codium"]
    wished = {**environ, "ROOST_EDITOR": "'my editor' --new-window"}
    assert editor.choose(None, wished) == ["my editor", "--new-window"]
    assert editor.choose("cursor", wished) == ["cursor"]
    with pytest.raises(MissingProgramError, match="code is not on the PATH"):
        editor.choose("code", environ)
    with pytest.raises(MissingProgramError, match="no editor of the VS Code family"):
        editor.choose(None, {"PATH": "/nonexistent"})


def test_the_words_that_open_a_folder_there() -> None:
    words = editor.command(["codium"], "gpu1", "/home/ann/my project")
    assert words == ["codium", "--remote", "ssh-remote+gpu1", "/home/ann/my project"]


@pytest.mark.parametrize(
    "extensions",
    ["a.b\\nms-vscode-remote.remote-ssh\\n", "jeanp413.open-remote-ssh", "anysphere.remote-ssh"],
)
def test_what_would_keep_the_extension_from_the_box(
    environ: Fake, monkeypatch: pytest.MonkeyPatch, extensions: str
) -> None:
    monkeypatch.setenv("EXTENSIONS", extensions)
    # A name that plain ssh takes for the address itself is found; another one is not.
    assert editor.findings(["cursor"], "203.0.113.7", "203.0.113.7") == []
    [unknown] = editor.findings(["cursor"], "gpu1", "203.0.113.7")
    assert unknown.fix == "roost ssh-config install"
    monkeypatch.setenv("EXTENSIONS", "ms-python.python\\nnot-remote-ssh-edit\\n")
    [missing] = editor.findings(["cursor"], "203.0.113.7", "203.0.113.7")
    assert "no Remote-SSH extension" in missing.what
