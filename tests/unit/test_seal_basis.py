"""What breaks a seal on this side: every change that a run could notice, and no other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from roost import content, seal_basis
from roost.model import Box, Fleet
from roost.seal_basis import Basis, NotSealableError
from roost.workspace import Workspace

TODAY = "2027-01-31"
ANN = {"name": "ann", "until": "2027-01-31", "keys": [{"file": "keys/ann.pub"}]}


def box(
    name: str = "gpu", user: str = "debian", groups: tuple[str, ...] = (), **more: object
) -> Box:
    values = {"people_list": [ANN], "tmux_prefix": "C-a", **more}
    return Box(name=name, host="10.0.0.1", user=user, groups=groups, vars=values)


def of(
    workspace: Workspace, one: Box | None = None, *others: Box, today: str = TODAY, **env: str
) -> str:
    one = one or box()
    return Basis(workspace, Fleet((one, *others), (), {}), env, today).of(one)


@pytest.fixture
def start(workspace: Workspace) -> str:
    (workspace.root / "keys").mkdir()
    (workspace.root / "keys" / "ann.pub").write_text("ssh-ed25519 AAAA ann\n")
    (workspace.root / "roles" / "own" / "templates").mkdir(parents=True)
    (workspace.root / "roles" / "own" / "templates" / "a.j2").write_text("a = {{ b }}\n")
    return of(workspace)


def edit(name: str, text: str = "# another\n") -> Callable[[Workspace], object]:
    def work(workspace: Workspace) -> None:
        path = workspace.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + text)

    return work


@pytest.mark.parametrize(
    "change",
    [
        edit("playbooks/site.yml"),
        edit("roles/own/templates/a.j2"),
        edit("roles/own/files/new"),
        edit("keys/ann.pub"),
        edit("ansible.cfg"),
        edit("vars/vault.yml", "$ANSIBLE_VAULT;1.1;AES256\n00\n"),
    ],
)
def test_a_file_that_counts(
    workspace: Workspace, start: str, change: Callable[[Workspace], object]
) -> None:
    assert of(workspace) == start
    change(workspace)
    assert of(workspace) != start


@pytest.mark.parametrize(
    "change",
    [edit("known_hosts"), edit("inventory/group_vars/all/people.yml"), edit(".roost/ssh_config")],
)
def test_a_file_that_does_not_count(
    workspace: Workspace, start: str, change: Callable[[Workspace], object]
) -> None:
    change(workspace)
    assert of(workspace) == start


@pytest.mark.parametrize(
    "other",
    [
        box(tmux_prefix="C-b"),
        box(new=1),
        box(vault_password="secret"),
        box(groups=("gateways",)),
        box(user="root"),
        box("another"),
    ],
)
def test_a_variable_group_or_login_that_counts(
    workspace: Workspace, start: str, other: Box
) -> None:
    assert of(workspace, other) != start


def test_the_way_to_a_box_and_other_boxes_do_not_count(workspace: Workspace, start: str) -> None:
    moved = box(ansible_host="10.9.9.9", ansible_port=2222, roost_identity="~/.ssh/other")
    assert of(workspace, moved) == start
    assert of(workspace, box(), box("two")) == start


def test_other_boxes_count_where_something_asks_for_them(workspace: Workspace, start: str) -> None:
    (workspace.root / "roles" / "own" / "templates" / "a.j2").write_text("{{ hostvars.two.x }}")
    alone, beside = of(workspace), of(workspace, box(), box("two"))
    assert len({start, alone, beside}) == 3


def test_settings_of_ansible_count(workspace: Workspace, start: str) -> None:
    assert of(workspace, ANSIBLE_ROLES_PATH="/srv/roles") != start
    assert of(workspace, EDITOR="vi") == start


def test_the_day_counts_on_which_somebody_leaves(workspace: Workspace, start: str) -> None:
    assert of(workspace, today="2026-12-31") == start
    assert of(workspace, today="2027-02-01") != start


def test_versions_count(workspace: Workspace, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(seal_basis, "_ansible_release", lambda: "2.99")
        assert of(workspace) != start
    monkeypatch.setattr(seal_basis, "__version__", "99")
    assert of(workspace) != start


def test_a_role_of_roosts_counts(
    workspace: Workspace, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "collection"
    (copy / "roles" / "tmux" / "templates").mkdir(parents=True)
    (copy / "roles" / "tmux" / "templates" / "tmux.conf.j2").write_text("a\n")
    monkeypatch.setattr(content, "collection_root", lambda: copy)
    before = of(workspace)
    (copy / "roles" / "tmux" / "templates" / "tmux.conf.j2").write_text("b\n")
    assert len({start, before, of(workspace)}) == 3


def test_a_file_of_this_side_that_a_variable_names(
    workspace: Workspace, start: str, tmp_path: Path
) -> None:
    certificate = tmp_path / "team.pem"
    certificate.write_text("one")
    named = box(base_ca_certificates=[str(certificate)])
    before = of(workspace, named)
    certificate.write_text("two")
    assert of(workspace, named) != before
    above = box(base_ca_certificates=[os.path.relpath(certificate, workspace.root)])
    before = of(workspace, above)
    certificate.write_text("three")
    assert of(workspace, above) != before


@pytest.mark.parametrize(
    "value",
    [
        "{{ lookup('env', 'USER') }}",
        "{{ query('ansible.builtin.pipe', 'date') }}",
        "{{ now(utc=true) }}",
        "{{ lookup(which, 'x') }}",
        "with_pipe: date",
        "{{ '/etc/x' is exists }}",
        "{{ [1, 2] | random }}",
        "{{ inventory_dir }}/../../elsewhere.pem",
    ],
)
def test_what_may_change_by_itself_cannot_be_sealed(workspace: Workspace, value: str) -> None:
    with pytest.raises(NotSealableError, match="variables of gpu"):
        of(workspace, box(motd=[{"text": value}]))
    edit("roles/own/tasks/main.yml", value)(workspace)
    with pytest.raises(NotSealableError, match="roles/own"):
        of(workspace)
