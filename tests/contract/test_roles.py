"""Every role: what it documents is what it takes, and what stands in its README."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(p.parent.parent for p in ROOT.glob("roles/*/tasks/main.yml"))
ids = [role.name for role in ROLES]


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("role_docs", ROOT / "tools/role_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


role_docs = load_tool()


@pytest.mark.parametrize("role", ROLES, ids=ids)
def test_defaults_and_specifications_agree(role: Path) -> None:
    assert role_docs.disagreements(role) == []


@pytest.mark.parametrize("role", ROLES, ids=ids)
def test_readme_is_generated_from_them(role: Path) -> None:
    assert (role / "README.md").read_text() == role_docs.render_readme(role)


@pytest.mark.parametrize(
    ("markup", "markdown"),
    [
        ("With C(absent) it goes.", "With `absent` it goes."),
        (["V(true)", "or O(python_state)."], "`true` or `python_state`."),
        ("I(all) and B(none)", "*all* and **none**"),
        ("L(uv, https://docs.astral.sh/uv/)", "[uv](https://docs.astral.sh/uv/)"),
        ("U(https://docs.astral.sh/uv/)", "<https://docs.astral.sh/uv/>"),
        ("GPL(3) and f(x)", "GPL(3) and f(x)"),
    ],
)
def test_markup_of_ansible_becomes_markdown(markup: object, markdown: str) -> None:
    assert role_docs.text(markup) == markdown


@pytest.mark.parametrize("role", ROLES, ids=ids)
def test_no_markup_of_ansible_is_left_in_a_readme(role: Path) -> None:
    assert not re.search(r"\b[A-Z]{1,2}\(", (role / "README.md").read_text())


@pytest.mark.parametrize("role", ROLES, ids=ids)
def test_each_variable_has_a_comment(role: Path) -> None:
    lines = (role / "defaults/main.yml").read_text().splitlines()
    names = [n for n, line in enumerate(lines) if line.startswith(f"{role.name}_")]
    bare = [lines[n] for n in names if not commented(lines, n)]
    assert bare == []


def commented(lines: list[str], number: int) -> bool:
    """A comment stands above the variable, or above the group without a gap that it is in."""
    while number > 0 and lines[number - 1] and lines[number - 1] != "---":
        number -= 1
        if lines[number].startswith("#"):
            return True
    return False


@pytest.mark.parametrize("role", ROLES, ids=ids)
def test_each_role_can_be_undone(role: Path) -> None:
    state = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    assert state["main"]["options"][f"{role.name}_state"]["choices"] == ["present", "absent"]
    assert (role / "tasks/undo.yml").is_file()


def test_undo_covers_every_role_in_reverse_order() -> None:
    site, undo = (
        [r["role"] if isinstance(r, dict) else r for play in plays for r in play.get("roles", [])]
        for plays in (
            yaml.safe_load((ROOT / "playbooks" / name).read_text())
            for name in ("site.yml", "undo.yml")
        )
    )
    assert undo == list(reversed(site))


def test_page_of_all_changes_is_generated_from_the_roles() -> None:
    page = (ROOT / "docs/what-it-changes.md").read_text()
    assert page == role_docs.render_changes(role_docs.roles(ROOT))


def test_a_disagreement_is_found(tmp_path: Path) -> None:
    role = tmp_path / "base"
    shutil.copytree(ROOT / "roles/base", role, symlinks=True)
    defaults = role / "defaults/main.yml"
    defaults.write_text(
        defaults.read_text().replace("base_min_free_mb: 300", "base_min_free_mb: 1")
        + "\n# a new one\nbase_new: 1\n"
    )
    assert role_docs.disagreements(role) == [
        "base: base_min_free_mb has different defaults",
        "base: base_new has a default and no specification",
        "base: base_new has no description",
    ]
