"""Run roles on a box with plain ansible-playbook, and ask what came of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boxes import LiveBox
from roost import process
from roost.inventory import ansible_program

ROLES = Path(__file__).resolve().parents[2] / "roles"


@dataclass(frozen=True)
class Outcome:
    """What one run said.

    Attributes:
        returncode: of ansible-playbook: 0 fine, 2 a task failed, 4 unreachable.
        changed: the names of the tasks that changed something.
        failed: what the tasks that failed said.
        text: all that was on the screen.
    """

    returncode: int
    changed: list[str]
    failed: list[str]
    text: str = field(repr=False)


def command(box: LiveBox, roles: list[str], variables: dict[str, Any], *more: str) -> list[str]:
    """The command line that runs ``roles`` on ``box``."""
    root = box.workspace.root
    play = {"hosts": box.name, "gather_facts": False, "become": True, "roles": roles}
    playbook = root / f"play-{'-'.join(roles)}.yml"
    playbook.write_text(json.dumps([play]), "utf-8")
    # Not by a file: tests of two workers that share a box would write over each other's.
    extra = json.dumps(variables, default=str)
    program = str(ansible_program("ansible-playbook"))
    return [program, "-i", str(box.workspace.inventory), str(playbook), "-e", extra, *more]


def environment(box: LiveBox) -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_ROLES_PATH": str(ROLES),
        "ANSIBLE_CONFIG": str(box.workspace.root / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "default",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
        # The runs of one test share a connection, however slow the machine is.
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=600s",
    }


def apply(
    box: LiveBox, roles: list[str], *more: str, timeout: float = 900, **variables: Any
) -> Outcome:
    """Run ``roles`` on ``box``; further words go to ansible-playbook (``--check``)."""
    done = process.run(
        command(box, roles, variables, *more),
        check=False,
        timeout=timeout,
        env=environment(box),
        cwd=box.workspace.root,
    )
    return outcome(done.returncode, done.stdout + done.stderr)


def outcome(returncode: int, text: str) -> Outcome:
    """Read the screen output of ansible-playbook: the tasks that changed, and what failed."""
    changed, task = [], ""
    for line in text.splitlines():
        if line.startswith("TASK ["):
            task = line[len("TASK [") : line.rindex("]")].split(" : ")[-1]
        elif line.startswith("changed: "):
            changed.append(task)
    # With -vvv the result goes over many lines.
    results = re.finditer(r"^fatal: .*?=> (?={)", text, re.MULTILINE)
    failed = [json.JSONDecoder().raw_decode(text, found.end())[0] for found in results]
    return Outcome(returncode, changed, [str(f.get("msg", f)) for f in failed], text)


def start(box: LiveBox, roles: list[str], log: Path, **variables: Any) -> subprocess.Popen[str]:
    """Start a run and return it while it runs; its output goes to ``log``."""
    with log.open("w") as stream:
        return process.start(
            command(box, roles, variables),
            stdout=stream,
            stderr=stream,
            env=environment(box),
            cwd=box.workspace.root,
            new_session=True,
        )


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Poll ``condition`` until it is true; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.1)
