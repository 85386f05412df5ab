"""The inventory through the real ansible-inventory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest

from roost import inventory, plan, process
from roost.errors import InventoryError
from roost.model import Fleet, Forward
from roost.paths import Paths
from roost.workspace import Workspace

Load = Callable[..., Fleet]

HOSTS = """\
all:
  hosts:
    gate: {ansible_host: 192.0.2.1}
    gpu1:
      ansible_host: 10.0.0.7
      ansible_user: ubuntu
      ansible_port: 2222
      roost_via: gate
      roost_identity: ~/.ssh/team
      roost_door: false
      roost_forwards: [6006:localhost:6006, "D:8157"]
      roost_ssh_options: {Compression: true, SetEnv: [A=1, B=2]}
    bare:
  children:
    gpu: {hosts: {gpu1: {}}}
    work: {children: {gpu: {}}, hosts: {bare: {}}}
"""


def test_everything_that_a_box_can_say(load: Load) -> None:
    fleet = load(HOSTS)
    assert [b.name for b in fleet.boxes] == ["gate", "gpu1", "bare"] or {
        b.name for b in fleet.boxes
    } == {"gate", "gpu1", "bare"}
    box = fleet.box("gpu1")
    assert (box.host, box.user, box.port) == ("10.0.0.7", "ubuntu", 2222)
    assert (box.via, box.identity) == ("gate", "~/.ssh/team")
    assert box.forwards == (Forward.parse("6006:localhost:6006"), Forward.parse("D:8157"))
    assert box.ssh_options == (("Compression", "yes"), ("SetEnv", "A=1"), ("SetEnv", "B=2"))
    assert (box.door, fleet.box("bare").door) == (False, True)
    assert set(box.groups) == {"gpu", "work"}
    assert set(fleet.groups["work"]) == {"bare", "gpu1"}
    assert (fleet.box("bare").host, fleet.box("bare").port) == ("bare", 22)


def test_people_are_read(load: Load) -> None:
    people = """\
people_list:
  - {name: ann, full_name: Ann Lee, sudo: true, boxes: [gpu], until: 2027-01-31}
  - {name: bo, state: absent, sudo: password}
  - {name: cy}
"""
    ann, bo, cy = load(HOSTS, people=people).people
    assert (ann.full_name, ann.sudo, ann.boxes, ann.until) == (
        "Ann Lee",
        "yes",
        ("gpu",),
        "2027-01-31",
    )
    assert (bo.absent, bo.sudo) == (True, "password")
    assert (cy.sudo, cy.boxes, cy.absent) == ("no", (), False)


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        ("all:\n  hosts:\n    a:\n      x: [1\n", r"hosts\.yml:\d+:\d+: .*flow sequence"),
        ("all:\n  hosts: [a, b]\n", r"hosts\.yml: invalid \"hosts\" entry.*dictionary"),
        ("all:\n  hosts:\n    a: {}\n  hsts: {}\n", "'hsts' is no part of the group 'all'"),
        ("all: {hosts: {a: {ansible_port: ssh}}}\n", "a: ansible_port is 'ssh', .* 1 to 65535"),
        ("all: {hosts: {a: {roost_forwards: 8888}}}\n", "a: roost_forwards .* a list"),
        ("all: {hosts: {a: {roost_forwards: [nonsense]}}}\n", "'nonsense' is not understood"),
        ("all: {hosts: {a: {roost_door: maybe}}}\n", "a: roost_door is 'maybe', .* true or false"),
        ("all: {hosts: {a: {ansible_host: [b]}}}\n", "a: ansible_host .* one word"),
        ("all: {hosts: {a: {ansible_host: '{{ b }}'}}}\n", "a: ansible_host .* plain value"),
        ("all: {hosts: {a: {roost_via: b}, b: {roost_via: a}}}\n", "circle: a -> b -> a"),
        ("all: {hosts: {a: {roost_via: gone}}}\n", "'gone', which is not in the inventory"),
        (
            "all:\n  hosts:\n    a:\n      roost_vai: gate\n",
            "inventory/hosts.yml:4: there is no variable 'roost_vai'",
        ),
    ],
)
def test_inventory_that_makes_no_sense_says_where_and_what(
    load: Load, hosts: str, message: str
) -> None:
    with pytest.raises((InventoryError, Exception)) as caught:
        load(hosts)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert getattr(caught.value, "exit_code", None) == 2
    assert "\n" not in str(caught.value)


def test_broken_group_vars_name_the_file(load: Load) -> None:
    with pytest.raises(InventoryError, match=r"people\.yml:\d+"):
        load(HOSTS, people="people_list:\n - name: x\n y: 2\n")


def test_misspelt_role_variable_stops_a_run_and_offers_the_right_name(
    load: Load, workspace: Workspace
) -> None:
    fleet = load(HOSTS, tuning="tmux_prefx: C-a\n")
    with pytest.raises(InventoryError) as caught:
        plan.make(workspace, fleet)
    assert "inventory/group_vars/all/tuning.yml:1: there is no variable 'tmux_prefx'" in str(
        caught.value
    )
    assert (caught.value.fix or "").startswith("did you mean tmux_")


def test_answer_is_kept_by_content(
    load: Load, workspace: Workspace, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(HOSTS)

    def no_program(*_: object, **__: object) -> process.Completed:
        raise AssertionError("ansible-inventory was started")

    monkeypatch.setattr(inventory.process, "run", no_program)
    assert inventory.load(workspace, paths=paths, environ=os.environ) == first
    with pytest.raises(AssertionError, match="was started"):
        load(HOSTS, other="x: 1\n")


def test_what_a_vault_hides_is_never_kept(load: Load, paths: Paths, workspace: Workspace) -> None:
    secret = workspace.root / "password"
    secret.write_text("correct horse\n")
    plain = workspace.root / "plain.yml"
    plain.write_text("token: hunter2\n")
    target = workspace.inventory / "group_vars" / "all" / "vault.yml"
    vault = inventory.ansible_program("ansible-vault")
    process.run([vault, "encrypt", "--vault-password-file", secret, "--output", target, plain])
    config = workspace.ansible_cfg.read_text()
    workspace.ansible_cfg.write_text(
        config.replace("[defaults]", f"[defaults]\nvault_password_file = {secret}")
    )
    assert load(HOSTS).box("gate").vars["token"] == "hunter2"
    kept = [p for p in paths.cache.rglob("*") if p.is_file()]
    assert kept == []


def test_kept_answer_is_private(load: Load, paths: Paths) -> None:
    load(HOSTS)
    (kept,) = (paths.cache / "inventory").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
