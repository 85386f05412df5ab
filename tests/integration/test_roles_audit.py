"""Outside auditors look at a provisioned box; what we keep against their advice has a reason."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from cli import roost
from roles import apply, wait_for
from test_roles_base import LEAN, sh

from boxes import RELEASES, LiveBox, exec_in, ssh, start_boxes
from roost import process
from roost.inventory import ansible_program

pytestmark = pytest.mark.box

WAIVERS: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parent / "audit_waivers.yml").read_text("utf-8")
)


class Audited(NamedTuple):
    """A box with everything on it, and what lynis warned of before."""

    box: LiveBox
    before: set[str]


@pytest.fixture(scope="module", params=RELEASES)
def audited(request: pytest.FixtureRequest) -> Iterator[Audited]:
    with start_boxes("box", os=request.param) as boxes:
        box = boxes["box"]
        install = "apt-get -qq update && apt-get -qq install -y --no-install-recommends lynis"
        exec_in(box, ["sh", "-c", f"DEBIAN_FRONTEND=noninteractive; {install}"], timeout=300)
        before = lynis(box)
        done = roost(box, "up", timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Audited(box, before)


def ssh_audit(box: LiveBox) -> dict[str, list[str]]:
    """What ssh-audit warns of or fails, by the name of the algorithm."""
    program = ansible_program("ssh-audit")
    done = process.run([program, "-j", "-p", str(box.now.port), box.now.host], check=False,
                       timeout=300)  # fmt: skip
    said = json.loads(done.stdout)
    notes = {
        found["algorithm"]: found["notes"].get("fail", []) + found["notes"].get("warn", [])
        for kind in ("kex", "key", "enc", "mac")
        for found in said[kind]
    }
    notes["CVE"] = [str(cve) for cve in said["cves"]]
    return {name: texts for name, texts in notes.items() if texts}


@pytest.mark.parametrize("box_os", RELEASES)
def test_ssh_audit_finds_nothing(box: LiveBox) -> None:
    before = ssh_audit(box)
    # sshd of OpenSSH 9.8 and later turns away for a while whoever came so often without logging in.
    wait_for(lambda: ssh(box, "true", check=False).returncode == 0, "the end of the penalty", 120)
    assert apply(box, ["base", "sshd"], **LEAN).returncode == 0
    after = ssh_audit(box)
    assert set(after) == set(WAIVERS["ssh-audit"]), after
    # The auditor does find something where there is something.
    assert set(before) > set(after)


def lynis(box: LiveBox, *only: str) -> set[str]:
    """The warnings of an audit, of all tests or of some, as ``ID: text``."""
    some = ["--tests", " ".join(only)] if only else []
    exec_in(box, ["lynis", "audit", "system", "--quick", "--no-colors", "--quiet", *some],
            check=False, timeout=600)  # fmt: skip
    report = sh(box, "cat /var/log/lynis-report.dat")
    done = re.search(r"^lynis_tests_done=(\d+)", report, re.MULTILINE)
    assert done and int(done[1]) >= (1 if only else 100), report[-2000:]
    found = re.findall(r"^warning\[\]=([^|]+)\|([^|]*)\|", report, re.MULTILINE)
    return {f"{test}: {text}" for test, text in found}


@pytest.mark.long
def test_lynis_warns_of_nothing_new(audited: Audited) -> None:
    new = lynis(audited.box) - audited.before
    assert {warning.split(":")[0] for warning in new} == set(WAIVERS["lynis"]), new
    # The auditor does find something where there is something.
    sh(audited.box, "useradd careless; passwd -q -d careless")
    assert lynis(audited.box, "AUTH-9283") != set()


def exposures(box: LiveBox, unit: str) -> set[str]:
    """The names of what ``systemd-analyze security`` finds open in a unit."""
    said = sh(box, f"systemd-analyze security --no-pager --json=short {unit}")
    return {one["name"] for one in json.loads(said) if one["set"] is False}


@pytest.mark.long
def test_systemd_finds_nothing_open_without_a_reason(audited: Audited) -> None:
    box, user = audited.box, audited.box.now.user
    listed = sh(box, "cd /etc/systemd/system && ls -d roost-*.service").split()
    for file in listed:
        waived = {name for group in WAIVERS["systemd-analyze"][file] for name in group["open"]}
        unit = file.replace("@.", f"@{user}.")
        assert exposures(box, unit) == waived, file
    assert set(listed) == set(WAIVERS["systemd-analyze"])
