"""Provisioning is cut off before a task: a login works, and the next run ends in the same state.

Which tasks is a sample with a seed; ``ROOST_FAULTS=all`` (``make faults``) takes each in turn.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from roles import command, environment, wait_for
from test_roles_base import LEAN, sh

from boxes import LiveBox, exec_in, reboot, ssh, start_boxes
from roost import process

pytestmark = [pytest.mark.box, pytest.mark.timeout(24 * 3600)]

ROLES = ["base", "people", "sshd"]
SEED = 20270131
SAMPLE = 1
# Read once: no test sees variables of ours.
EVERY_TASK = os.environ.get("ROOST_FAULTS") == "all"
GUARD_SECONDS = 5
CALLBACK = Path(__file__).parent / "fault_callback"


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    key = tmp_path_factory.mktemp("key") / "ann"
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    person = {"name": "ann", "keys": [Path(f"{key}.pub").read_text("utf-8")], "sudo": True}
    return {**LEAN, "people_list": [person]}


def run(box: LiveBox, log: Path, variables: dict[str, Any], **fault: str) -> subprocess.Popen[str]:
    env = {**environment(box), "ANSIBLE_CALLBACKS_ENABLED": "fault",
           "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACK), "FAULT_AT": "0", "FAULT_FILE": "/none",
           **fault}  # fmt: skip
    with log.open("w") as stream:
        return process.start(
            command(box, ROLES, variables), stdout=stream, stderr=stream, env=env,
            cwd=box.workspace.root, new_session=True,
        )  # fmt: skip


def state(box: LiveBox) -> str:
    """All that a run decides: configuration, accounts, packages, what systemd starts."""
    # Left out: what every box, or every day, has of its own.
    own = "-name 'ssh_host_*' -o -name '*-' -o -name shadow -o -name machine-id -o -name '*.roost'"
    own += " -o -path '/etc/ssl/certs/*' -o -path '/etc/host*' -o -name resolv.conf"
    etc = f"find /etc /usr/local -xdev ! \\( {own} \\)"
    return sh(
        box,
        f"{etc} -type f -exec sha256sum {{}} + | sort -k 2; {etc} -printf '%p %m %u %l\\n'"
        " | sort;"
        "dpkg-query -W; sshd -T; systemctl list-unit-files --no-legend --state=enabled",
    )


@pytest.fixture(scope="module")
def reference(
    variables: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, int]:
    """The state after an undisturbed run, and how many tasks it had."""
    log = tmp_path_factory.mktemp("reference") / "log"
    with start_boxes("box") as boxes:
        done = run(boxes["box"], log, variables)
        assert done.wait(600) == 0, log.read_text()
        tasks = len(re.findall(r"^TASK \[", log.read_text(), re.MULTILINE))
        return state(boxes["box"]), tasks


def kill_controller(_box: LiveBox, controller: subprocess.Popen[str]) -> None:
    os.killpg(controller.pid, signal.SIGKILL)


def cut_connections(box: LiveBox, _controller: subprocess.Popen[str]) -> None:
    exec_in(box, ["pkill", "-KILL", "-f", "^sshd(-session)?: "], check=False)


def reboot_box(box: LiveBox, _controller: subprocess.Popen[str]) -> None:
    reboot(box)


def tasks_to_try(fault: Callable[..., None], count: int) -> list[int]:
    if EVERY_TASK:
        return list(range(2, count + 1))
    return sorted(random.Random(f"{SEED} {fault.__name__}").sample(range(2, count + 1), SAMPLE))


@pytest.mark.parametrize("fault", [kill_controller, cut_connections, reboot_box])
def test_the_next_run_ends_in_the_same_state(
    fault: Callable[[LiveBox, subprocess.Popen[str]], None],
    reference: tuple[str, int],
    variables: dict[str, Any],
    tmp_path: Path,
) -> None:
    expected, count = reference
    for number in tasks_to_try(fault, count):
        mark, log = tmp_path / f"mark{number}", tmp_path / f"log{number}"
        with start_boxes("box") as boxes:
            box = boxes["box"]
            hasty = {**variables, "sshd_guard_seconds": GUARD_SECONDS}
            cut = run(box, log, hasty, FAULT_AT=str(number), FAULT_FILE=str(mark))
            wait_for(lambda m=mark, c=cut: m.exists() or c.poll() is not None, "the task", 600)
            task = mark.read_text() if mark.exists() else "none: fewer tasks"
            fault(box, cut)
            mark.unlink(missing_ok=True)
            cut.wait(600)
            where = f"{fault.__name__} before task {number}, {task}"
            limit = GUARD_SECONDS + 30
            wait_for(lambda b=box: ssh(b, "sudo -n true", check=False).returncode == 0,
                     f"a login ({where})", limit)  # fmt: skip
            again = tmp_path / "again"
            assert run(box, again, variables).wait(600) == 0, f"{where}\n{again.read_text()}"
            assert state(box) == expected, where
