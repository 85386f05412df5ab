"""The role gateway on real boxes: people pass through it and get no shell, admins do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from roles import ROLES, Outcome, apply, environment, outcome
from test_roles_base import LEAN
from test_roles_people import gets_in, key, login, public  # noqa: F401 - a fixture among them

from boxes import LiveBox, private_network, start_boxes
from roost import process
from roost.inventory import ansible_program

pytestmark = pytest.mark.box


def gateway(box: LiveBox, people: list[dict[str, Any]], *more: str, **variables: Any) -> Outcome:
    """The roles of a gateway, wired as playbooks/gateway.yml wires them."""
    extra = box.workspace.root / "gateway.json"
    extra.write_text(json.dumps({**LEAN, "people_list": people, **variables}), "utf-8")
    playbook = ROLES.parent / "playbooks/gateway.yml"
    inventory = box.workspace.root / "gateways.ini"
    inventory.write_text(f"[gateways]\n{box.name}\n", "utf-8")
    argv = [ansible_program("ansible-playbook"), "-i", box.workspace.inventory, "-i", inventory,
            playbook, "-e", f"@{extra}", "--limit", box.name, *more]  # fmt: skip
    done = process.run(argv, check=False, timeout=900, env=environment(box), cwd=box.workspace.root)
    return outcome(done.returncode, done.stdout + done.stderr)


def through(
    gate: LiveBox, inner: LiveBox, user: str, identity: Path, command: str
) -> process.Completed:
    """``ssh -J gate inner``, as ``user`` with one key on both."""
    me = ["-F", str(gate.workspace.ssh_config), "-S", "none", "-o", "BatchMode=yes", "-o",
          f"User={user}", "-o", "IdentitiesOnly=yes", "-o", f"IdentityFile={identity}"]  # fmt: skip
    proxy = " ".join(["ssh", *me, "-W", "%h:%p", gate.name])
    return process.run(
        ["ssh", *me, "-o", f"ProxyCommand={proxy}", inner.name, command], check=False
    )


def test_people_pass_and_admins_stay(key: Callable[..., Path]) -> None:  # noqa: F811
    pat, boss = key("pat"), key("boss")
    team = [
        {"name": "pat", "keys": [public(pat)]},
        {"name": "boss", "keys": [public(boss)], "sudo": True},
    ]
    with start_boxes("gate") as boxes:
        gate = boxes["gate"]
        inner = private_network(gate, internet=True)
        done = gateway(gate, team)
        assert done.returncode == 0, done.text
        again = gateway(gate, team)
        assert (again.returncode, again.changed) == (0, []), again.text
        # The box behind it is provisioned through it: there is no other way to it.
        done = apply(inner, ["base", "people", "sshd"], **LEAN, people_list=team)
        assert done.returncode == 0, done.text

        asked = login(gate, "pat", pat, "id")
        assert asked.returncode != 0 and asked.stdout == ""
        assert "This is a gateway" in asked.stderr
        assert gets_in(gate, "boss", boss)
        assert through(gate, inner, "pat", pat, "id -un").stdout == "pat\n"

        elsewhere = gateway(gate, team, gateway_destinations=["10.0.0.1:22"])
        assert elsewhere.returncode == 0, elsewhere.text
        assert through(gate, inner, "pat", pat, "id -un").returncode != 0
        assert through(gate, inner, "boss", boss, "id -un").stdout == "boss\n"

        undone = gateway(gate, team, gateway_state="absent")
        assert undone.returncode == 0, undone.text
        assert gets_in(gate, "pat", pat)


def test_without_its_rules_the_role_refuses(shared_box: Callable[..., LiveBox]) -> None:
    from test_roles_base import provision

    done = apply(shared_box("based", provision), ["gateway"])
    assert done.returncode == 2
    assert "gives a shell to everybody" in done.failed[0]
