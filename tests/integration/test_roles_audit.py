"""Outside auditors look at a provisioned box; what we keep against their advice has a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from roles import apply
from test_roles_base import LEAN

from boxes import LiveBox
from roost import process
from roost.inventory import ansible_program

pytestmark = [pytest.mark.box, pytest.mark.long, pytest.mark.long]

WAIVERS: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parent / "audit_waivers.yml").read_text("utf-8")
)


def findings(box: LiveBox) -> dict[str, list[str]]:
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


@pytest.mark.parametrize("box_os", ["debian:12", "debian:13"])
def test_ssh_audit_finds_nothing(box: LiveBox) -> None:
    before = findings(box)
    assert apply(box, ["base", "sshd"], **LEAN).returncode == 0
    after = findings(box)
    assert set(after) == set(WAIVERS["ssh-audit"]), after
    # The auditor does find something where there is something.
    assert set(before) > set(after)
