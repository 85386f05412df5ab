"""Checkout, wheel and collection are one set of files, and each works by itself."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from roost import content, process
from roost.inventory import ansible_program

REPOSITORY = content.collection_root()
IN_WHEEL = "roost/_content/ansible_collections/roost/box"


def shipped() -> set[str]:
    """What every face has to carry, as git knows it: symlinks are another name for a file."""
    listed = process.run(["git", "ls-files", "roles", "playbooks", "plugins"], cwd=REPOSITORY)
    files = set(listed.stdout.splitlines())
    return {f for f in files if not (REPOSITORY / f).is_symlink()}


def clean_environment(home: Path) -> dict[str, str]:
    keep = ("PATH", "LANG", "TMPDIR", "SSL_CERT_FILE", "XDG_RUNTIME_DIR")
    return {k: v for k, v in os.environ.items() if k in keep} | {"HOME": str(home)}


def test_wheel_carries_the_roles_and_nothing_of_the_workshop(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{IN_WHEEL}/{f}" for f in shipped()} <= names
    assert f"{IN_WHEEL}/galaxy.yml" in names
    assert "roost/_content/inventory/hosts.yml" in names
    strange = [n for n in names if "test" in n or "__pycache__" in n or "/.venv" in n]
    assert strange == []


def test_collection_carries_the_same_files(collection: Path) -> None:
    root = collection / content.NAMESPACE
    missing = [f for f in shipped() if not (root / f).is_file()]
    assert missing == []
    top = {p.name for p in root.iterdir()}
    assert top <= {
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "FILES.json",
        "LICENSE",
        "MANIFEST.json",
        "README.md",
        "meta",
        "playbooks",
        "plugins",
        "roles",
    }


def test_wheel_alone_starts_a_workspace_whose_playbook_knows_every_role(
    installed: Path, tmp_path: Path, home: Path
) -> None:
    env = clean_environment(home)
    root = tmp_path / "elsewhere"
    process.run([installed / "roost", "init", root], env=env, cwd=tmp_path)
    done = process.run(
        [installed / "ansible-playbook", "playbooks/site.yml", "--list-tasks", "-i", "box,"],
        cwd=root,
        env=env,
    )
    assert str(REPOSITORY) not in done.stdout + done.stderr
    for role in content.role_names():
        assert f"roost.box.{role} :" in done.stdout or f" {role} :" in done.stdout, role


def test_collection_alone_runs_by_its_name(collection: Path, tmp_path: Path, home: Path) -> None:
    env = clean_environment(home) | {"ANSIBLE_COLLECTIONS_PATH": str(collection)}
    done = process.run(
        [ansible_program("ansible-playbook"), "roost.box.site", "--list-tasks", "-i", "box,"],
        cwd=tmp_path,
        env=env,
    )
    for role in content.role_names():
        assert f"{role} :" in done.stdout, role


def test_layers_hold() -> None:
    done = process.run([ansible_program("lint-imports"), "--no-cache"], cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stdout
