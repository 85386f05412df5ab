"""Bring uv, the virtual environments and their kernels in order, and say what was done.

Fed to the box's Python with the wanted state; see tasks/environments.yml.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import kernel_tool
from box import Owner, Runner, StepError, as_owner
from environments import ASIDE, Builder, Environment
from projects import folder_of
from uv_tool import Uv, index_settings

LINKS = Path("/usr/local/bin")


def link_program(link: Path, target: Path, *, check: bool) -> bool:
    """A link on the PATH, where nobody else has put something of that name."""
    if os.path.lexists(link):
        return False
    if not check:
        link.symlink_to(target)
    return True


def dangling_kernels(config: Mapping[str, Any], owners: Mapping[str, Owner]) -> list[str]:
    """Kernels whose interpreter is gone, in everybody's folder and in those of the people."""
    notes = []
    folders = {Path(config["kernels_dir"]): Owner.named("root")}
    folders |= {kernel_tool.user_kernels(o.home): o for o in owners.values()}
    for folder, owner in folders.items():
        found = as_owner(owner, partial(kernel_tool.kernels_in, folder))
        notes += [
            f"the kernel {k['path']} is dangling: {k['interpreter']} is gone"
            for k in found
            if k["dangling"]
        ]
    return notes


def main(config: Mapping[str, Any]) -> dict[str, Any]:
    """Do it all, in order; an environment that fails does not keep the others from being done."""
    check = config["check"]
    os.umask(0o022)
    result: dict[str, Any] = {"changed": False, "errors": [], "notes": [], "leaves": []}
    uv_settings = config["uv"]
    runner = Runner(config["timeout"], index_settings(config))
    uv = Uv(Path(uv_settings["home"]), uv_settings["version"], uv_settings["wheel"], runner)
    try:
        result["changed"] = uv.ensure(check=check)
    except StepError as error:
        result["errors"].append(describe("uv", error))
        return result
    for program in (Path(config["kernel_tool"]), uv.path):
        result["changed"] |= link_program(LINKS / program.name, program, check=check)
        result["leaves"].append({"path": str(LINKS / program.name)})
    result["leaves"] += [{"venv": str(uv.home)}, {"command": [str(uv.path), "--version"]}]
    owners: dict[str, Owner] = {}
    for want in here(config["environments"], config["people"]):
        try:
            result["changed"] |= one(want, config, owners, result["notes"])
            result["leaves"] += leaves(Environment.of(want, config)) if not check else []
        except (StepError, kernel_tool.KernelError, OSError) as error:
            result["errors"].append(describe(want["name"], error))
            result["changed"] |= not check
    result["notes"] += dangling_kernels(config, owners)
    return result


def leaves(env: Environment) -> list[dict[str, Any]]:
    """What an environment is on the box, for the seal (docs/seal.md of roost).

    What people add to an environment of their own is theirs, unless it holds the list exactly.
    """
    want, path = env.want, str(env.path)
    aside = {"path": path + ASIDE, "only": ["type"]}
    if want.get("state") == "absent":
        return [{"path": path, "only": ["type"]}, aside]
    more = bool(want.get("owner")) and not want.get("exact")
    found = [{"user": env.owner.name}, {"venv": path, "more": more}, aside]
    if not want.get("owner"):
        found.append({"glob": str(env.kernels / "*" / "kernel.json")})
    if env.kernel:
        found.append({"path": str(env.kernels / env.kernel["name"] / "kernel.json")})
    if want.get("project"):
        folder = folder_of(want["project"], env.owner)
        found += [{"path": str(folder / name)} for name in ("pyproject.toml", "uv.lock")]
    return found


def describe(name: str, error: Exception) -> str:
    """An error as one text: which environment, what was found, and what mends it."""
    fix = getattr(error, "fix", "")
    return f"{name}: {error}" + (f" -- {fix}" if fix else "")


def here(
    environments: Sequence[Mapping[str, Any]], people: Sequence[str]
) -> list[Mapping[str, Any]]:
    """The environments of this box: those of its people, and the shared ones."""
    return [e for e in environments if not (people and e.get("owner")) or e["owner"] in people]


def one(
    want: Mapping[str, Any], config: Mapping[str, Any], owners: dict[str, Owner], notes: list[str]
) -> bool:
    """Bring one environment in order; True where that changes something.

    Raises:
        StepError: it cannot be done.
    """
    check = config["check"]
    if check and not Owner.exists(want.get("owner") or "root"):
        return True  # the run itself makes the account before it comes here
    env = Environment.of(want, config)
    owners[env.owner.name] = env.owner
    builder = Builder(config, env)
    if want.get("state") == "absent":
        return builder.remove(check=check)
    if check and not builder.uv.path.exists():
        return True
    changed = builder.bring_in_order(check=check)
    notes += [f"{want['name']}: {note}" for note in builder.notes]
    return changed
