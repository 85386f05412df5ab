"""Provisioning is cut off after a task: a login works, and the next run ends in the same state.

``make test`` takes a sample with a seed, each fault on a bare box of its own. The sweep (``make
faults``) goes over all of site.yml on one box for each fault: it runs a role, cuts it off after its
first task, runs it again, cuts it off after its second one, and so on to its end, then the next
role. What no later run mends is there at the end.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from roles import environment, wait_for
from test_roles_base import LEAN, sh

from boxes import LiveBox, exec_in, reboot, ssh, start_boxes
from roost import content, process
from roost.inventory import ansible_program

pytestmark = [pytest.mark.box, pytest.mark.timeout(3 * 3600)]

SITE = content.collection_root() / "playbooks" / "site.yml"
ROLES = ["base", "people", "sshd", "gateway", "tmux", "python", "jupyter", "rmate"]
SAMPLED = ["base", "people", "sshd"]
SEED = 20270131
GUARD_SECONDS = 5
CALLBACK = Path(__file__).parent / "fault_callback"
# Beside the defaults, so that fewer tasks are skipped.
MORE = {
    "base_timezone": "Europe/Zurich",
    "python_environments": [{"name": "tools", "requirements": ["six"], "kernel": {}}],
}


@dataclass(frozen=True)
class Site:
    """A box that site.yml runs on, and what it runs with.

    Attributes:
        box: it belongs to the group of the gateways.
        folder: the log, the key and what controls the fault are in it.
        variables: for every run.
    """

    box: LiveBox
    folder: Path
    variables: dict[str, Any]

    @property
    def mark(self) -> Path:
        """It is there while a run waits for its fault; the task is in it."""
        return self.folder / "mark"

    @property
    def no_network(self) -> Path:
        """While it is there no connection can be made."""
        return self.folder / "no-network"

    def start(self, roles: list[str], after: int = 0, role: str = "") -> subprocess.Popen[str]:
        """Start a run of some roles that waits after a task (0: after none)."""
        groups, extra, program = (self.folder / n for n in ("groups.yml", "extra.yml", "ssh"))
        groups.write_text(f"gateways: {{hosts: {{{self.box.name}: }}}}\n")
        hasty = {"sshd_guard_seconds": GUARD_SECONDS} if after else {}
        extra.write_text(json.dumps({**self.variables, **hasty}))
        gone = 'echo "No route to host" >&2; exit 255'
        program.write_text(
            f'#!/bin/sh\n[ ! -e {self.no_network} ] || {{ {gone}; }}\nexec ssh "$@"\n'
        )
        program.chmod(0o755)
        env = {
            **environment(self.box),
            "ANSIBLE_CALLBACKS_ENABLED": "fault",
            "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACK),
            "ANSIBLE_SSH_EXECUTABLE": str(program),
            "FAULT_AFTER": str(after),
            "FAULT_ROLE": role and f"{role} : ",
            "FAULT_FILE": str(self.mark),
        }
        argv = [ansible_program("ansible-playbook"), "-i", self.box.workspace.inventory,
                "-i", groups, "-e", f"@{extra}", "--tags", ",".join(roles), SITE]  # fmt: skip
        with (self.folder / "log").open("w") as log:
            return process.start(argv, stdout=log, stderr=log, env=env, new_session=True)

    def said(self) -> str:
        """What the run says: the task that it waits after, or how many there were."""
        return self.mark.read_text() if self.mark.exists() else ""

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def run(self, roles: list[str]) -> int:
        """Run some roles undisturbed, and return how many tasks were not skipped."""
        assert self.start(roles).wait(1200) == 0, self.log()
        return int(self.said())


def kill_controller(_site: Site, controller: subprocess.Popen[str]) -> None:
    os.killpg(controller.pid, signal.SIGKILL)


def cut_connections(site: Site, _controller: subprocess.Popen[str]) -> None:
    site.no_network.touch()
    # A session's title has a name in it, the listener's a path.
    exec_in(site.box, ["pkill", "-KILL", "-f", "^sshd(-session)?: [a-z]"], check=False)


def reboot_box(site: Site, controller: subprocess.Popen[str]) -> None:
    # No later task reaches the box before it is up again.
    os.killpg(controller.pid, signal.SIGKILL)
    reboot(site.box)


Fault = Callable[[Site, subprocess.Popen[str]], None]
FAULTS = [kill_controller, cut_connections, reboot_box]


def cut_off(site: Site, fault: Fault, roles: list[str], after: int, role: str = "") -> str:
    """Stage a fault after a task of a run, and see that a login works.

    Returns:
        The name of the task; nothing where the run was at its end before.
    """
    site.mark.unlink(missing_ok=True)
    controller = site.start(roles, after, role)
    wait_for(lambda: site.said() or controller.poll() is not None, "the task", 900)
    task = site.said()
    if not task.startswith("after "):
        assert controller.wait(60) == 0, site.log()
        return ""
    fault(site, controller)
    site.mark.unlink()
    # It fails where a task is left that needs the box.
    controller.wait(300)
    site.no_network.unlink(missing_ok=True)
    wait_for(lambda: ssh(site.box, "sudo -n true", check=False).returncode == 0,
             f"a login ({fault.__name__} {task})", GUARD_SECONDS + 30)  # fmt: skip
    return task


def state(site: Site) -> set[str]:
    """All that a run decides, in lines: configuration, accounts, packages, what runs with what."""
    # Left out: what every box, or every day, has of its own.
    own = "-name 'ssh_host_*' -o -name '*-' -o -name shadow -o -name machine-id -o -name '*.roost'"
    own += " -o -path '/etc/ssl/certs/*' -o -path '/etc/host*' -o -name resolv.conf"
    etc = f"find /etc /usr/local -xdev ! \\( {own} \\)"
    ours = "find /opt/roost /var/lib/roost* /var/backups/roost -name __pycache__ -prune -o"
    manager = "org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager"
    on_the_box = sh(
        site.box,
        f"{etc} -type f -exec sha256sum {{}} +; {etc} -printf '%p %m %u %l\\n';"
        f"{ours} -printf '%p %m %u %l\\n' 2>/dev/null; dpkg-query -W; sshd -T;"
        "systemctl list-unit-files --no-legend --state=enabled;"
        "systemctl list-units --all --plain --no-legend 'roost-*' 'ssh*' 'earlyoom*';"
        "systemctl show -p NeedDaemonReload '*';"
        "for name in RemoveIPC KillUserProcesses; do"
        f'  echo "logind: $name $(busctl get-property {manager} $name)"; done',
    )
    # What sshd offers tells what it has read.
    offered = ssh(site.box, "true", options=("-vv",)).stderr.partition("peer server KEXINIT")[2]
    lists = re.findall(r"^debug2: (?:KEX|host key|ciphers|MACs) .*", offered, re.MULTILINE)
    assert lists
    return {*on_the_box.splitlines(), *lists}


@contextmanager
def fresh_site(tmp_path_factory: pytest.TempPathFactory, **variables: Any) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    # The same people on every box, whose keys are in the state.
    key = tmp_path_factory.getbasetemp() / "ann"
    if not key.exists():
        process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    public = Path(f"{key}.pub").read_text("utf-8")
    people = [{"name": "ann", "keys": [public], "sudo": True}, {"name": "bob", "keys": [public]}]
    with start_boxes("box") as boxes:
        yield Site(boxes["box"], folder, {"people_list": people, **variables})


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], int]:
    """The state after an undisturbed run of the sampled roles, and how many tasks it had."""
    with fresh_site(tmp_path_factory, **LEAN) as site:
        count = site.run(SAMPLED)
        return state(site), count


@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_run_ends_in_the_same_state(
    fault: Fault, reference: tuple[set[str], int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected, count = reference
    number = random.Random(f"{SEED} {fault.__name__}").randint(1, count)
    with fresh_site(tmp_path_factory, **LEAN) as site:
        task = cut_off(site, fault, SAMPLED, number)
        assert task
        site.run(SAMPLED)
        assert state(site) ^ expected == set(), f"{fault.__name__} {task}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The state after an undisturbed run of all roles."""
    with fresh_site(tmp_path_factory, **MORE) as site:
        site.run(ROLES)
        return state(site)


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_sweep_over_all_tasks(
    fault: Fault, whole: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    log, started, tasks = logging.getLogger(fault.__name__), time.monotonic(), list[str]()
    with fresh_site(tmp_path_factory, **MORE) as site:
        for role in ROLES:
            for number in itertools.count(1):
                task = cut_off(site, fault, [role], number, role)
                if not task:
                    break
                tasks.append(task)
                log.info("%.0f s: %s", time.monotonic() - started, task)
        assert {task.split()[1] for task in tasks} == {*ROLES}
        site.run(ROLES)
        log.info("%d faults", len(tasks))
        assert state(site) ^ whole == set()
