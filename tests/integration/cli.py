"""Run the real command line on a box's workspace, as a user does."""

from __future__ import annotations

import os
from pathlib import Path

from boxes import LiveBox
from roost import process
from roost.inventory import ansible_program
from roost.workspace import Workspace

ROOST = ansible_program("roost")


def roost(
    where: LiveBox | Workspace | Path, *words: str, timeout: float = 300, input: str | None = None
) -> process.Completed:
    """``roost -w WORKSPACE …``, to its end, whatever its exit code."""
    return process.run(
        [ROOST, "-w", root(where), *words],
        check=False,
        timeout=timeout,
        input=input,
        env=dict(os.environ),
    )


def root(where: LiveBox | Workspace | Path) -> Path:
    if isinstance(where, LiveBox):
        return where.workspace.root
    return where.root if isinstance(where, Workspace) else where


def set_playbook(box: LiveBox, tasks: str) -> None:
    """Give the box's workspace a playbook of its own: the tasks of one play, as YAML."""
    indented = "\n".join(f"    {line}" for line in tasks.strip("\n").splitlines())
    text = f"- hosts: all\n  gather_facts: false\n  tasks:\n{indented}\n"
    playbook = box.workspace.root / "playbooks" / "site.yml"
    playbook.parent.mkdir(exist_ok=True)
    playbook.write_text(text, "utf-8")


def set_variables(box: LiveBox, text: str) -> None:
    """Give every box of the workspace the variables in ``text`` (YAML)."""
    (box.workspace.inventory / "group_vars" / "all" / "test.yml").write_text(text, "utf-8")


def provision_with(box: LiveBox, *roles: str) -> None:
    """Apply some roles alone, with what every role needs of a box."""
    python = "apt-get update -qq && apt-get install -qq --yes --no-install-recommends python3"
    playbook = box.workspace.root / "playbooks" / "site.yml"
    playbook.write_text(
        "- hosts: all\n  gather_facts: false\n  become: true\n"
        f"  pre_tasks: [{{raw: {python}}}]\n"
        f"  roles: [{', '.join(f'roost.box.{role}' for role in roles)}]\n",
        "utf-8",
    )
    done = roost(box, "up", timeout=600)
    assert done.returncode == 0, done.stderr
