"""The command line as a user meets it: help, errors, exit codes, completion."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from roost import process
from roost.cli.main import GROUPS, build_parser, main
from roost.inventory import ansible_program
from roost.model import Fleet
from roost.workspace import Workspace

ROOST = ansible_program("roost")


def roost(*words: str, cwd: Path, env: dict[str, str] | None = None) -> process.Completed:
    return process.run([ROOST, *words], cwd=cwd, env=env or dict(os.environ), check=False)


def verbs(called: str | None = None) -> list[str]:
    (sub,) = (a for a in build_parser(called)._actions if hasattr(a, "choices") and a.choices)
    return sorted(sub.choices or [])


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert f"usage: roost {verb}" in capsys.readouterr().out


def test_a_verb_brings_its_own_group_alone() -> None:
    listed = {verb: sorted(group) for group in GROUPS.values() for verb in group}
    assert sorted(listed) == verbs()
    assert {verb: verbs(verb) for verb in listed} == listed


def test_the_verb_is_found_behind_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["-w", "up", "-v", "logs"], ["--workspace=up", "logs"], ["-wup", "logs"]):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        assert "usage: roost logs" in capsys.readouterr().out


def test_no_command_and_wrong_commands_are_usage_errors(tmp_path: Path) -> None:
    for words in ([], ["nonsense"], ["up", "--nonsense"]):
        done = roost(*words, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stdout == ""
        assert "usage: roost" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["statsu"], "there is no 'statsu', but there is 'status'; roost --help lists"),
        (["xyzzy"], "there is no 'xyzzy'; roost --help lists"),
        (["tunnel", "opne"], "there is no 'opne', but there is 'open'; roost tunnel --help"),
        (["tunnel", "open"], "required: BOX\n"),
        (["ssh"], "required: BOX\n"),
        (["status", "--watch", "0"], "argument --watch: 0 is no number of seconds"),
        (["status", "--watch", "soon"], "argument --watch: soon is no number of seconds"),
        (["status", "--watch", "inf"], "argument --watch: inf is no number of seconds"),
    ],
)
def test_wrong_words_are_named(tmp_path: Path, words: list[str], said: str) -> None:
    done = roost(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_without_a_workspace_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = roost("up", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no workspace here" in done.stderr
    assert "fix: start one here: roost init" in done.stderr


def test_empty_inventory_says_how_to_add_a_box(workspace: Workspace) -> None:
    done = roost("up", cwd=workspace.root)
    assert done.returncode == 2
    assert "roost add NAME USER@HOST" in done.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from roost.cli.main import build_parser; build_parser().format_help();"
        "print(*sorted(m for m in sys.modules if m.split('.')[0] in"
        " {'ansible', 'ansible_runner', 'rich', 'yaml', 'websockets', 'argcomplete',"
        " 'dataclasses', 'subprocess', 'json'}))"
    )
    assert process.run([sys.executable, "-c", code]).stdout.strip() == ""


def test_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    done = process.run(
        ["bash", "-c", 'set -o pipefail; "$1" completion bash | head -c 1', "_", ROOST],
        cwd=tmp_path,
        check=False,
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_what_the_shell_takes(shell: str, tmp_path: Path) -> None:
    script = roost("completion", shell, cwd=tmp_path).stdout
    assert "roost" in script
    if shell == "bash":
        process.run(["bash", "-n"], input=script)


def complete(line: str, cwd: Path) -> list[str]:
    """What the shell would offer for ``line`` (argcomplete's protocol: answers on fd 8)."""
    answer = cwd / "answer"
    env = dict(os.environ) | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SHELL": "bash",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    process.run(["bash", "-c", '"$1" 8>"$2"', "_", ROOST, answer], cwd=cwd, env=env, check=False)
    return [word.strip() for word in answer.read_text().splitlines()]


def test_completion_knows_verbs_boxes_and_groups(
    load: Callable[..., Fleet], workspace: Workspace
) -> None:
    load("all: {hosts: {gate: {}, gpu1: {}}, children: {gpus: {hosts: {gpu1: {}}}}}\n")
    assert "up" in complete("roost u", workspace.root)
    assert set(complete("roost up g", workspace.root)) >= {"gate", "gpu1", "gpus"}
    assert complete("roost up gpu1 --ch", workspace.root) == ["--check"]


def test_completion_of_boxes_and_people(load: Callable[..., Fleet], workspace: Workspace) -> None:
    load("all: {hosts: {gpu1: {}}}\n", people="people_list: [{name: ann}, {name: bob}]\n")
    assert set(complete("roost people ", workspace.root)) >= {"gpu1", "sign"}
    assert complete("roost people sign a", workspace.root) == ["ann"]
    assert complete("roost people gpu1 s", workspace.root) == []


def test_completion_of_what_the_near_side_takes(
    load: Callable[..., Fleet], workspace: Workspace
) -> None:
    """Every verb that adds, removes, installs or looks: its names, groups and options."""
    load("all: {hosts: {gate: {}, gpu1: {}}, children: {gpus: {hosts: {gpu1: {}}}}}\n")
    own = workspace.root / "own"
    own.write_text("Host web *.corp !x\n  Port 1\nHost=db\n")
    for line, offered in (
        ("roost add new me@host --group g", ["gpus"]),
        ("roost add new me@host --via g", ["gate", "gpu1"]),
        ("roost remove g", ["gate", "gpu1"]),
        ("roost remove gpu1 --p", ["--purge"]),
        ("roost remove gpu1 --t", ["--take-key"]),
        ("roost doctor g", ["gate", "gpu1", "gpus"]),
        ("roost doctor --j", ["--json"]),
        ("roost doctor --f", ["--fix"]),
        ("roost ssh-config i", ["import", "install"]),
        ("roost ssh-config install --d", ["--dry-run"]),
        (f"roost ssh-config import --config {own} ", ["db", "web"]),
        ("roost lab g", ["gate", "gpu1"]),
        ("roost tunnel close g", ["gate", "gpu1"]),
        ("roost proxy g", ["gate", "gpu1"]),
    ):
        found = [w for w in complete(line, workspace.root) if not (line[-1] == " " and w[0] == "-")]
        assert sorted(found) == offered, line
