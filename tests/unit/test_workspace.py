from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from roost import content, process
from roost import workspace as ws
from roost.errors import RoostError, UsageError
from roost.inventory import ansible_program
from roost.model import Fleet
from roost.paths import Paths
from roost.workspace import Workspace


def find(paths: Paths, start: Path, *, flag: str | None = None, env: str = "") -> Path:
    environ = {"ROOST_WORKSPACE": env} if env else {}
    return ws.find(flag=flag, environ=environ, start=start, paths=paths).root


def test_order_is_flag_environment_parents_config(tmp_path: Path, paths: Paths) -> None:
    roots = {name: tmp_path / name for name in ("flag", "env", "parent")}
    for root in (*roots.values(), paths.config):
        ws.init(root)
    deep = roots["parent"] / "a" / "b"
    deep.mkdir(parents=True)
    assert find(paths, deep, flag=str(roots["flag"]), env=str(roots["env"])) == roots["flag"]
    assert find(paths, deep, env=str(roots["env"])) == roots["env"]
    assert find(paths, deep) == roots["parent"]
    assert find(paths, tmp_path) == paths.config


def test_no_workspace_is_a_usage_error_that_says_what_to_do(tmp_path: Path, paths: Paths) -> None:
    with pytest.raises(UsageError) as caught:
        find(paths, tmp_path)
    assert caught.value.exit_code == 2
    assert "roost init" in (caught.value.fix or "")
    with pytest.raises(UsageError, match=r"not a workspace \(from ROOST_WORKSPACE\)"):
        find(paths, tmp_path, env=str(tmp_path))


def test_init_twice_changes_nothing_and_keeps_what_is_there(tmp_path: Path) -> None:
    root = tmp_path / "w"
    (root / "inventory").mkdir(parents=True)
    (root / "inventory" / "hosts.yml").write_text("all: {hosts: {mine: {}}}\n")
    assert root / "inventory" / "hosts.yml" not in ws.init(root)
    assert "mine" in (root / "inventory" / "hosts.yml").read_text()
    assert ws.init(root) == []


def test_init_that_cannot_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RoostError, match="cannot be written"):
        ws.init(tmp_path / "file" / "w")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "inventory").write_text("in the way")
    with pytest.raises(RoostError):
        ws.init(tmp_path / "w")
    assert [p.name for p in (tmp_path / "w").iterdir()] == ["inventory"]


def test_plain_ansible_finds_the_roles_of_a_new_workspace(workspace: ws.Workspace) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")}
    done = process.run(
        [ansible_program("ansible-playbook"), "--list-tasks", "playbooks/site.yml"],
        cwd=workspace.root,
        env=env,
    )
    for role in content.role_names():
        assert f"{role} :" in done.stdout or f"{role}" in done.stdout


def test_link_to_the_roles_is_mended(workspace: ws.Workspace) -> None:
    link = workspace.generated / "collections" / content.NAMESPACE
    link.unlink()
    link.symlink_to("/nowhere")
    workspace.ensure_generated()
    assert (link / "galaxy.yml").is_file()
    assert [p.name for p in link.parent.iterdir()] == ["box"]


@pytest.mark.parametrize(("below", "shown"), [(".", "~"), ("a/b", "~/a/b"), ("..", None)])
def test_the_home_is_shown_as_a_person_writes_it(
    paths: Paths, below: str, shown: str | None
) -> None:
    path = Path(os.path.normpath(paths.home / below))
    assert paths.display(path) == (shown or str(path))


def test_a_clone_of_a_workspace_is_one(load: Callable[..., Fleet], workspace: Workspace) -> None:
    load("all: {hosts: {gpu1: {ansible_host: 192.0.2.1}}}\n")
    assert (workspace.root / ".roost").is_dir()
    workspace.known_hosts.write_text("192.0.2.1 ssh-ed25519 AAAA\n", "utf-8")
    clone = workspace.root.with_name("clone")
    author = ("-c", "user.name=me", "-c", "user.email=me@example.com")
    for words in (
        ("init", "--quiet"),
        ("add", "."),
        (*author, "commit", "--quiet", "-m", "Our machines"),
        ("clone", "--quiet", ".", str(clone)),
    ):
        process.run(["git", *words], cwd=workspace.root)
    assert not (clone / ".roost").exists()
    assert (clone / "known_hosts").read_bytes() == workspace.known_hosts.read_bytes()
    asked = [ansible_program("ansible-inventory"), "--host", "gpu1"]
    roost = [ansible_program("roost"), "-w", clone]
    shown = process.run([*roost, "ssh-config", "show"]).stdout
    assert "Host gpu1" in shown and f"{clone}/known_hosts" in shown
    # Plain Ansible, too, once a command of roost has made what is not in git.
    assert "192.0.2.1" in process.run(asked, cwd=clone).stdout
