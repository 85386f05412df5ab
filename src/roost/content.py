"""Where the roles, playbooks and the workspace template that travel with roost lie.

A wheel carries them as the collection ``roost.box`` inside the package; in a checkout and in an
editable install they are the repository's own folders.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from roost.errors import RoostError

COLLECTION = "roost.box"
NAMESPACE = Path("ansible_collections", *COLLECTION.split("."))


@cache
def collection_root() -> Path:
    """The folder of the collection: it holds ``galaxy.yml``, ``roles`` and ``playbooks``.

    Raises:
        RoostError: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "_content" / NAMESPACE, package.parents[1]):
        if (candidate / "galaxy.yml").is_file():
            return candidate
    raise RoostError(
        "the roles that belong to roost are missing from this installation",
        fix="install it anew: uv tool upgrade --reinstall roost",
    )


@cache
def inventory_template() -> Path:
    """The commented inventory that ``roost init`` starts from."""
    packaged = Path(__file__).resolve().parent / "_content" / "inventory"
    return packaged if packaged.is_dir() else collection_root() / "inventory"


def role_names() -> tuple[str, ...]:
    """The roles that travel with roost, by name."""
    roles = collection_root() / "roles"
    return tuple(sorted(p.parent.parent.name for p in roles.glob("*/meta/argument_specs.yml")))


@cache
def role_variables() -> dict[str, tuple[str, ...]]:
    """Each role's public variables, from its ``meta/argument_specs.yml``."""
    import yaml

    found: dict[str, tuple[str, ...]] = {}
    for role in role_names():
        path = collection_root() / "roles" / role / "meta" / "argument_specs.yml"
        specs = yaml.safe_load(path.read_text("utf-8"))["argument_specs"]
        options = (entry.get("options") or {} for entry in specs.values())
        found[role] = tuple(sorted({name for names in options for name in names}))
    return found


@cache
def role_defaults(role: str) -> dict[str, object]:
    """The defaults of ``role``, not templated: where a name that both sides need is defined."""
    import yaml

    path = collection_root() / "roles" / role / "defaults" / "main.yml"
    return dict(yaml.safe_load(path.read_text("utf-8")) or {})


def specs_digest() -> str:
    """A short hash of every role's argument specs: it changes when a role is added or altered."""
    digest = hashlib.sha256()
    for path in sorted((collection_root() / "roles").glob("*/meta/argument_specs.yml")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
