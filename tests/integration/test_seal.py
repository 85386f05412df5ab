"""The seal of a box: it holds while nothing has changed, and breaks for whatever does."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli import ROOST, roost, root, set_playbook, set_variables
from tampers import SEAL, Tamper, all_of, as_json, drawn, shell
from tampers_by_hand import BY_HAND

from boxes import LiveBox, exec_in
from roost import process

# Not seen steady beside other work often enough yet; test_check.py has the core of it.
pytestmark = [pytest.mark.box, pytest.mark.long]

SEED = int(os.environ.get("ROOST_TAMPER_SEED", "8"))
COUNT = int(os.environ.get("ROOST_TAMPERS", "8"))
PEOPLE = """
people_list:
  - {name: ann, full_name: Ann Lee, keys: ["KEY"], sudo: true, groups: [video]}
  - {name: bob, keys: ["KEY"], until: 2999-01-31}
  - {name: eve, keys: ["KEY"], state: absent}
jupyter_limits_people: {ann: {cpu_quota: 400%}}
python_environments:
  - name: default
    kernel: {name: python3, display_name: Python 3}
  - {name: own, owner: ann, requirements: [six]}
"""


def provision(box: LiveBox) -> None:
    key = box.workspace.root / "key"
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    text = PEOPLE.replace("KEY", key.with_suffix(".pub").read_text("utf-8").strip())
    (box.workspace.inventory / "group_vars" / "all" / "people.yml").write_text(text, "utf-8")
    key.unlink()
    exec_in(box, ["useradd", "eve"])
    done = roost(box, "up", timeout=900)
    assert done.returncode == 0, done.stderr
    assert "not sealed" not in done.stderr, done.stderr


@pytest.fixture
def sealed(shared_box: Callable[..., LiveBox]) -> LiveBox:
    """The box that all tests of the whole site.yml share; each leaves it as it was."""
    return shared_box("sealed", prepare=provision)


def state(box: LiveBox | Path) -> tuple[str, list[str]]:
    """What ``roost check`` says of the only box by its seal alone, and what differs."""
    done = roost(box, "check", "--json")
    (one,) = json.loads(done.stdout)["boxes"]
    assert one["sealed"], done.stderr
    assert done.returncode == {"in order": 0, "differs": 2}[one["state"]]
    return one["state"], [d["thing"] for d in one["differs"]]


def spoil(box: LiveBox, tamper: Tamper) -> tuple[str, list[str]]:
    shell(box, tamper.do)
    try:
        return state(box)
    finally:
        shell(box, tamper.undo)


def test_second_run_is_a_look(sealed: LiveBox) -> None:
    again = roost(sealed, "up")
    assert (again.returncode, again.stdout) == (0, "")
    found = re.search(r"^1 box in order, (\d+) things verified, \d+\.\d s$", again.stderr, re.M)
    assert found and int(found[1]) > 60
    assert "Provisioning" not in again.stderr
    assert state(sealed) == ("in order", [])


def test_whatever_is_spoilt_is_seen(sealed: LiveBox) -> None:
    missed = []
    for tamper in drawn(sealed, COUNT, SEED):
        found, _ = spoil(sealed, tamper)
        missed += [tamper.name] * (found != "differs")
        assert state(sealed) == ("in order", []), f"{tamper.name} was not undone"
    assert missed == []
    assert state(sealed) == ("in order", [])


def test_a_spoilt_thing_is_named(sealed: LiveBox) -> None:
    names = ("mode: /etc/tmux.conf", "hold: tmux", "shell: ann", "override: earlyoom.service")
    chosen = [t for t in all_of(sealed) if t.name in names]
    assert len(chosen) == len(names)
    found = [spoil(sealed, tamper)[1][0] for tamper in sorted(chosen, key=lambda t: t.name)]
    assert found == ["package tmux", "/etc/tmux.conf", "unit earlyoom.service", "user ann"]


def test_the_seal_sees_whatever_ansible_sees(sealed: LiveBox) -> None:
    missed, seen = [], 0
    chosen = random.Random(SEED).sample(BY_HAND, min(COUNT, len(BY_HAND)))
    for tamper in chosen:
        shell(sealed, tamper.do)
        try:
            found, _ = state(sealed)
            seen += found == "differs"
            if found == "in order":
                asked = roost(sealed, "check", "--full", "--json")
                (one,) = json.loads(asked.stdout)["boxes"]
                missed += [tamper.name] * (one["state"] != "in order")
        finally:
            shell(sealed, tamper.undo)
    assert missed == []
    assert seen > len(chosen) / 2, "what was spoilt is hardly any of what roost manages"
    assert state(sealed) == ("in order", [])


# From here on: a box with a playbook of a few tasks, which takes seconds.

KEEP = """
- name: Keep the file
  ansible.builtin.copy: {content: "{{ word | default('right') }}\\n", dest: /etc/kept, mode: "0640"}
  become: true
"""


def with_python(box: LiveBox) -> None:
    exec_in(box, ["apt-get", "update", "--quiet=2"], timeout=120)
    exec_in(box, ["apt-get", "install", "--quiet=2", "--yes", "python3"], timeout=300)


@pytest.fixture
def small(shared_box: Callable[..., LiveBox]) -> Iterator[LiveBox]:
    """A box that is sealed by a playbook of one task."""
    box = shared_box("sealed-small", prepare=with_python)
    set_playbook(box, KEEP)
    set_variables(box, "{}")
    done = roost(box, "up")
    assert (done.returncode, "not sealed" in done.stderr) == (0, False), done.stderr
    yield box
    (box.workspace.inventory / "group_vars" / "all" / "test.yml").unlink(missing_ok=True)


def runs(box: LiveBox, *words: str) -> bool:
    """Whether ``roost up`` lets Ansible run."""
    done = roost(box, "up", *words)
    assert done.returncode == 0, done.stderr
    return "Provisioning" in done.stderr


def has_seal(box: LiveBox) -> bool:
    return exec_in(box, ["test", "-e", SEAL], check=False).returncode == 0


def test_drift_is_mended_and_sealed_anew(small: LiveBox) -> None:
    assert not runs(small)
    shell(small, "chmod 0666 /etc/kept; echo wrong >>/etc/kept")
    table = roost(small, "check")
    assert (table.returncode, "Mend it: roost up" in table.stderr) == (2, True)
    assert re.search(r"^box +/etc/kept +content, mode 0640 -> 0666", table.stdout, re.M)
    mending = roost(small, "up")
    assert "box: /etc/kept: content, mode 0640 -> 0666" in mending.stderr
    assert re.search(r"^box +changed +1", mending.stdout, re.M)
    assert exec_in(small, ["cat", "/etc/kept"]).stdout == "right\n"
    assert not runs(small)


def test_what_the_run_does_not_mend_is_said(small: LiveBox) -> None:
    declared = "  vars: {roost_leaves: [{path: /etc/kept}, {path: /etc/other}]}\n"
    set_playbook(small, KEEP + declared)
    shell(small, "rm -f /etc/other")
    assert runs(small) and not runs(small)
    shell(small, "touch /etc/other; chmod 0600 /etc/kept")
    done = roost(small, "up")
    assert "box: the run left /etc/other as it was: added" in done.stderr
    assert "left /etc/kept" not in done.stderr
    assert not runs(small)


def test_what_a_run_depends_on_breaks_the_seal(small: LiveBox) -> None:
    set_variables(small, "word: other")
    assert roost(small, "check").returncode == 2
    assert runs(small) and not runs(small)
    set_playbook(small, KEEP + KEEP.replace("kept", "kept2"))
    assert runs(small) and not runs(small)
    assert runs(small, "--full")


def test_a_vault_counts(small: LiveBox) -> None:
    password = small.workspace.root / "password"
    password.write_text("secret\n")
    config = small.workspace.ansible_cfg
    before = config.read_text("utf-8")
    config.write_text(before.replace("[defaults]", "[defaults]\nvault_password_file = password"))
    file = small.workspace.inventory / "group_vars" / "all" / "vault.yml"
    try:
        for word in ("first", "second"):
            file.write_text(f"word: {word}\n")
            command = [str(Path(ROOST).parent / "ansible-vault"), "encrypt", str(file)]
            process.run([*command, "--vault-password-file", str(password)])
            assert runs(small)
            assert exec_in(small, ["cat", "/etc/kept"]).stdout == f"{word}\n"
            assert word not in as_json(small)
        assert not runs(small)
    finally:
        file.unlink()
        password.unlink()
        config.write_text(before)


def test_a_task_that_nobody_can_look_at_runs_every_time_and_is_named(small: LiveBox) -> None:
    task = '\n- name: Do something\n  ansible.builtin.command: "true"\n'
    set_playbook(small, KEEP + task)
    done = roost(small, "up")
    assert "box: not sealed: “Do something”: what a command does is unknown" in done.stderr
    assert not has_seal(small) and runs(small)
    set_playbook(small, KEEP + task + "  vars: {roost_leaves: [{path: /etc/kept3}]}\n")
    assert runs(small) and not runs(small)
    shell(small, "touch /etc/kept3")
    assert state(small) == ("differs", ["/etc/kept3"])
    shell(small, "rm /etc/kept3")


def test_what_no_log_hides_is_declared_or_not_sealed(small: LiveBox) -> None:
    set_playbook(small, KEEP + "  no_log: true\n")
    assert "“Keep the file”: no_log hides what it does" in roost(small, "up").stderr
    declared = (
        "  no_log: true\n  register: kept\n  vars: {roost_leaves: [{path: '{{ kept.dest }}'}]}\n"
    )
    set_playbook(small, KEEP + declared)
    assert runs(small) and not runs(small)


def test_only_a_whole_run_seals(small: LiveBox) -> None:
    set_playbook(small, KEEP + "  tags: some\n")
    assert runs(small, "--tags", "some") and not has_seal(small)
    assert runs(small) and has_seal(small)
    assert roost(small, "up", "--check").returncode == 0 and has_seal(small)
    set_playbook(small, KEEP + "- ansible.builtin.fail: {}\n")
    assert roost(small, "up").returncode == 1
    assert not has_seal(small)


def test_an_interrupted_run_leaves_no_seal(small: LiveBox) -> None:
    wait = "- name: Wait\n  ansible.builtin.raw: sleep 321\n  changed_when: false\n"
    for number in (signal.SIGINT, signal.SIGKILL):
        set_playbook(small, KEEP)
        assert runs(small, "--full") and has_seal(small)
        set_playbook(small, KEEP + wait)
        child = process.start([ROOST, "-w", root(small), "up"], env=dict(os.environ))
        until(lambda: exec_in(small, ["pgrep", "-f", "sleep 321"], check=False).returncode == 0)
        child.send_signal(number)
        child.communicate(timeout=60)
        exec_in(small, ["pkill", "-f", "sleep 321"], check=False)
        assert not has_seal(small)
    set_playbook(small, KEEP)
    assert runs(small) and not runs(small)


def test_another_run_that_ends_meanwhile_is_the_one_that_seals(small: LiveBox) -> None:
    shell(small, "rm -f /tmp/go")
    wait = "until test -e /tmp/go; do sleep 0.1; done"
    task = f"- ansible.builtin.shell: {{cmd: '{wait}', creates: /etc/kept4}}\n"
    set_playbook(small, KEEP + task)
    child = process.start([ROOST, "-w", root(small), "up"], env=dict(os.environ))
    until(lambda: exec_in(small, ["pgrep", "-f", "until test"], check=False).returncode == 0)
    set_playbook(small, KEEP)
    assert runs(small) and has_seal(small)
    shell(small, "touch /tmp/go")
    _, said = child.communicate(timeout=120)
    assert "box: not sealed: another run has ended on this box" in said
    assert not runs(small)


def test_two_laptops_share_a_seal(small: LiveBox, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(root(small), other, ignore=shutil.ignore_patterns(".roost"))
    assert state(other) == ("in order", [])
    (other / "playbooks" / "site.yml").write_text("- hosts: all\n", "utf-8")
    done = roost(other, "check", "--json")
    assert not json.loads(done.stdout)["boxes"][0]["sealed"]


def test_who_is_not_root_can_neither_read_nor_forge_it(small: LiveBox) -> None:
    folder = str(Path(SEAL).parent)
    for command in (f"cat {SEAL}", f"ls {folder}", f"touch {folder}/x", f"rm {SEAL}"):
        tried = exec_in(small, ["su", "nobody", "-s", "/bin/sh", "-c", command], check=False)
        assert "Permission denied" in tried.stderr, command
    assert "right" not in as_json(small)
    # One that somebody else could have written is none.
    for spoil_it in (
        f"chmod 0666 {SEAL}",
        f"chown nobody {SEAL}",
        f"cp {SEAL} /tmp/s; ln -sf /tmp/s {SEAL}",
    ):
        shell(small, f"cp -a {SEAL} /root/seal; {spoil_it}")
        done = roost(small, "check", "--json")
        assert not json.loads(done.stdout)["boxes"][0]["sealed"], spoil_it
        shell(small, f"rm {SEAL}; mv /root/seal {SEAL}")
    assert state(small) == ("in order", [])


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.1)
