"""``roost check`` on a real box: what differs, by name and by exit code, with nothing changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import ROOST, roost, root, set_playbook

from boxes import LiveBox, exec_in
from roost import process

pytestmark = pytest.mark.box

FILE = """
- name: Keep the file
  ansible.builtin.copy: {content: "right\\n", dest: /etc/kept, mode: "0644"}
  become: true
"""


@pytest.fixture
def cron(box: LiveBox) -> Iterator[str]:
    """The command of the documented line; its paths lead to the workspace and to the program."""
    page = Path(__file__).parents[2] / "docs" / "seal.md"
    (command,) = re.findall(r"^0 7 \* \* \* (.+)$", page.read_text("utf-8"), re.MULTILINE)
    home = Path.home()
    links = {home / "machines": root(box), home / ".local/bin/roost": Path(ROOST)}
    (home / ".local" / "bin").mkdir(parents=True, exist_ok=True)
    for link, target in links.items():
        link.symlink_to(target)
    yield command
    for link in links:
        link.unlink()


def mail(command: str) -> str:
    """What cron would send (cron(8): all output), in the environment of crontab(5)."""
    env = {"HOME": os.environ["HOME"], "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    done = process.run(["/bin/sh", "-c", command], env=env, check=False, timeout=120)
    return done.stdout + done.stderr


def seal_in_status(box: LiveBox) -> tuple[str, list[str], str]:
    """What ``roost status`` says of the seal: the state, what differs, and the table's word."""
    (one,) = json.loads(roost(box, "status", "--json").stdout)
    heads, cells = (line.split() for line in roost(box, "status").stdout.splitlines())
    word = cells[heads.index("SEAL") + 1] if "SEAL" in heads else ""  # UP is two words
    return one["seal"], [d["thing"] for d in one["differs"]], word


def test_what_differs_is_named_and_nothing_changes(box: LiveBox, cron: str) -> None:
    exec_in(box, ["apt-get", "update", "--quiet=2"], timeout=120)
    exec_in(box, ["apt-get", "install", "--quiet=2", "--yes", "python3"], timeout=300)
    set_playbook(box, FILE)

    missing = roost(box, "check", "--json")
    assert missing.returncode == 2, missing.stderr
    (found,) = json.loads(missing.stdout)["boxes"]
    assert (found["box"], found["state"], found["in_order"]) == ("box", "differs", 0)
    assert [change["task"] for change in found["differs"]] == ["Keep the file"]
    assert exec_in(box, ["test", "-e", "/etc/kept"], check=False).returncode == 1
    assert seal_in_status(box) == ("none", [], "")

    assert roost(box, "up").returncode == 0
    fine = roost(box, "check")
    assert (fine.returncode, fine.stdout) == (0, "")
    assert "1 box in order, 1 thing verified" in fine.stderr
    assert seal_in_status(box) == ("in order", [], "ok")
    assert mail(cron) == ""

    exec_in(box, ["sh", "-c", "echo wrong > /etc/kept"])
    assert re.search(r"^box +/etc/kept +content", mail(cron), re.MULTILINE)
    assert seal_in_status(box) == ("differs", ["/etc/kept"], "drift")
    drifted = roost(box, "check", "--diff")
    assert drifted.returncode == 2
    assert drifted.stdout.splitlines()[0].split() == ["BOX", "ROLE", "DIFFERS"]
    assert "Keep the file" in drifted.stdout
    assert "-wrong" in drifted.stderr and "+right" in drifted.stderr
    assert "1 differs" in drifted.stderr and "roost up" in drifted.stderr
    assert exec_in(box, ["cat", "/etc/kept"]).stdout == "wrong\n"

    set_playbook(box, FILE + '- name: Stop\n  ansible.builtin.fail: {msg: "cannot be told"}\n')
    assert seal_in_status(box) == ("stale", [], "stale")
    failed = roost(box, "check", "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["boxes"][0]["state"] == "failed"
    assert "cannot be told" in failed.stderr

    box.sandbox.engine("stop", "--time", "1", box.now.container)
    gone = roost(box, "check", "--json")
    assert gone.returncode == 4
    assert json.loads(gone.stdout)["boxes"][0]["state"] == "unreachable"
    assert "Traceback" not in gone.stderr


def test_an_unknown_name_is_a_usage_error(box: LiveBox) -> None:
    done = roost(box, "check", "bxo")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'box'?" in done.stderr
