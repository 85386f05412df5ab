"""``roost up`` on real boxes: what it says, how it ends, what it leaves."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from cli import ROOST, roost, root, set_playbook

from boxes import LiveBox, exec_in, ssh, start_boxes
from roost import process
from roost.paths import Paths

pytestmark = pytest.mark.box

# Works on a bare box: no module of Ansible's needs to run there.
TOUCH = """
- name: Make the mark
  ansible.builtin.raw: test -e mark || { touch mark; echo made; }
  changed_when: "'made' in mark.stdout"
  register: mark
"""
FAIL = """
- name: Fail on purpose
  ansible.builtin.raw: echo "No space left on device" >&2; exit 1
"""


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> Iterator[dict[str, LiveBox]]:
    """Two boxes that the tests of this module share; each sets its own playbook."""
    with start_boxes("one", "two") as boxes:
        yield boxes


@pytest.fixture
def one(pair: dict[str, LiveBox]) -> LiveBox:
    ssh(pair["one"], "rm -f mark")
    ssh(pair["two"], "rm -f mark")
    return pair["one"]


def marked(box: LiveBox) -> bool:
    return ssh(box, "test -e mark", check=False).returncode == 0


def test_first_run_changes_the_second_is_in_order(pair: dict[str, LiveBox], one: LiveBox) -> None:
    set_playbook(one, TOUCH)
    first = roost(one, "up")
    assert first.returncode == 0, first.stderr
    assert marked(one) and marked(pair["two"])
    assert re.search(r"^one +changed +1 +0", first.stdout, re.M)
    assert "one: changed  Make the mark" in first.stderr
    assert "2 boxes provisioned in" in first.stderr
    second = roost(one, "up")
    assert second.returncode == 0
    assert re.search(r"^two +in order +0 +1", second.stdout, re.M)
    assert "2 boxes in order, nothing to change" in second.stderr
    assert "\x1b" not in first.stdout + first.stderr + second.stderr


def test_only_the_boxes_that_are_named(pair: dict[str, LiveBox], one: LiveBox) -> None:
    set_playbook(one, TOUCH)
    done = roost(one, "up", "two")
    assert done.returncode == 0, done.stderr
    assert not marked(one) and marked(pair["two"])
    assert not re.search(r"^one ", done.stdout, re.M)


def test_unknown_box_is_a_usage_error_with_the_nearest_name(one: LiveBox) -> None:
    done = roost(one, "up", "onne")
    assert (done.returncode, done.stdout) == (2, "")
    assert "fix: did you mean 'one'?" in done.stderr


def test_check_and_diff_say_what_would_change_and_change_nothing(one: LiveBox) -> None:
    local = one.workspace.root / "made-by-the-run"
    set_playbook(
        one,
        f"""
- name: Write a file on this side
  ansible.builtin.copy: {{content: "new line\\n", dest: "{local}", mode: "0600"}}
  delegate_to: localhost
  connection: local
  run_once: true
  vars: {{ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"}}
""",
    )
    done = roost(one, "up", "one", "--check", "--diff")
    assert done.returncode == 0, done.stderr
    assert not local.exists()
    assert "+new line" in done.stderr
    assert re.search(r"^one +would change +1 +0", done.stdout, re.M)
    assert "Apply it: roost up" in done.stderr


def test_failed_task_is_named_explained_and_exits_1(one: LiveBox) -> None:
    set_playbook(one, TOUCH + FAIL + TOUCH.replace("mark", "never"))
    done = roost(one, "up", "one")
    assert done.returncode == 1
    assert re.search(r"^one +failed +1 +0 +Fail on purpose", done.stdout, re.M)
    assert "one: Fail on purpose: its disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert ssh(one, "test -e never", check=False).returncode == 1


def test_page_about_a_run(pair: dict[str, LiveBox], one: LiveBox, tmp_path: Path) -> None:
    set_playbook(one, TOUCH)
    page = tmp_path / "run.html"
    done = roost(one, "up", "--report", str(page))
    assert done.returncode == 0, done.stderr
    assert f"report: {page}" in done.stderr
    assert page.stat().st_mode & 0o777 == 0o600
    text = page.read_text("utf-8")
    assert "Provisioned one, two" in text
    assert text.count("Make the mark</p>") == 2  # changed on both
    assert len(re.findall(r'<span style="left: [0-9.]+%; width: [1-9][0-9.]*%', text)) == 2
    # A run that fails has its page too; a place that nothing can be written to is said first.
    set_playbook(one, FAIL)
    assert roost(one, "up", "one", "--report", str(page)).returncode == 1
    assert "its disk is full" in page.read_text("utf-8")
    nowhere = roost(one, "up", "one", "--report", str(tmp_path / "no" / "run.html"))
    assert nowhere.returncode == 2 and "no file can be written there" in nowhere.stderr


def test_failure_that_nobody_knows_shows_what_the_program_said(one: LiveBox) -> None:
    set_playbook(one, FAIL.replace("No space left on device", "the frobnicator is stuck"))
    done = roost(one, "up", "one")
    assert done.returncode == 1
    assert "the frobnicator is stuck" in done.stderr


def test_broken_playbook_is_one_message(one: LiveBox) -> None:
    set_playbook(one, "- name: x\n  no.such.module: {}")
    done = roost(one, "up", "one")
    assert done.returncode == 1
    assert "Ansible stopped: " in done.stderr
    assert "no.such.module" in done.stderr
    assert "Traceback" not in done.stderr


def test_verbose_shows_every_step(one: LiveBox) -> None:
    set_playbook(one, TOUCH)
    roost(one, "up", "one")
    quiet, verbose = roost(one, "up", "one"), roost(one, "-v", "up", "one")
    assert "one: ok  Make the mark" in verbose.stderr
    assert "ok  Make the mark" not in quiet.stderr


def test_interrupt_stops_says_where_and_the_next_run_finishes(one: LiveBox) -> None:
    wait = "\n- name: Wait for the signal\n  ansible.builtin.raw: sleep 300\n"
    set_playbook(one, TOUCH + wait)
    child = process.start([ROOST, "-w", root(one), "up", "one"], env=dict(os.environ))
    _until(lambda: ssh(one, "pgrep -f 'sleep 300'", check=False).returncode == 0)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 130, err
    assert "interrupted: one at “Wait for the signal”" in err
    assert "fix: roost up finishes the job" in err
    assert "Traceback" not in out + err
    assert _processes_about(root(one)) == []
    ssh(one, "pkill -f 'sleep 300'", check=False)
    set_playbook(one, TOUCH)
    assert roost(one, "up", "one").returncode == 0


def test_artifacts_are_private_and_rotated(one: LiveBox, paths: Paths) -> None:
    set_playbook(one, TOUCH)
    assert roost(one, "up", "one").returncode == 0
    (folder,) = (paths.state / "runs").iterdir()
    artifacts = folder / "artifacts"
    for number in range(15):
        old = artifacts / f"20200101T0000{number:02}-1"
        old.mkdir()
        os.utime(old, (number, number))
    assert roost(one, "up", "one").returncode == 0
    assert len(list(artifacts.iterdir())) <= 11
    assert folder.stat().st_mode & 0o777 == 0o700
    # It would hold the whole environment of the call.
    assert list(folder.rglob("command")) == []


def test_sudo_password_is_asked_for_and_lands_nowhere(box: LiveBox, paths: Paths) -> None:
    exec_in(box, ["sh", "-c", "rm -f /etc/sudoers.d/*; usermod -aG sudo debian"])
    exec_in(box, ["chpasswd"], input="debian:correct-horse\n")
    set_playbook(box, "- name: Who\n  ansible.builtin.raw: id -un\n  become: true\n")
    without = roost(box, "up")
    assert without.returncode == 1
    assert "sudo asks for a password" in without.stderr
    assert "--ask-become-pass" in without.stderr
    child = pexpect.spawn(ROOST, ["-w", str(root(box)), "up", "-K"], encoding="utf-8", timeout=60)
    child.expect("sudo password on the boxes: ")
    child.sendline("correct-horse")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before
    kept = [p for p in paths.state.rglob("*") if p.is_file()]
    assert kept
    assert [p for p in kept if b"correct-horse" in p.read_bytes()] == []


def test_live_display_fits_80_columns(one: LiveBox) -> None:
    set_playbook(one, TOUCH.replace("Make the mark", "Make the mark " + "very " * 30 + "long"))
    child = pexpect.spawn(
        ROOST,
        ["-w", str(root(one)), "up", "one"],
        encoding="utf-8",
        timeout=60,
        dimensions=(24, 80),
    )
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", str(child.before))
    assert "one: changed" in text
    assert max(len(line.rstrip()) for line in re.split(r"[\r\n]+", text)) <= 80


def _until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.1)


def _processes_about(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "ansible-playbook" in words and str(folder) in words:
                found.append(words)
    return found
