"""The workspace of a sandbox: an ordinary one, with the boxes in its inventory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from roost import files, process, ssh, workspace
from roost.errors import ProcessError
from roost.model import Box, Fleet
from roost.paths import Paths
from roost.sandbox.boxes import SandboxBox
from roost.sandbox.engine import Run
from roost.ssh_config import host_key_name
from roost.workspace import Workspace

IDENTITY = "id_ed25519"

_HEAD = """\
---
# Written by "roost sandbox up". Variables of your own belong into host_vars/ and group_vars/
# beside this file: this one is written anew.
"""


def ensure_workspace(root: Path, run: Run = process.run) -> Workspace:
    """Start the workspace in ``root``, with a key pair; may be called any number of times.

    Raises:
        RoostError: the folder cannot be written, or ssh-keygen is missing.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    workspace.init(root)
    key = root / IDENTITY
    if not key.exists():
        comment = f"roost sandbox {root.name}"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", key])
    return Workspace(root)


def public_key(root: Path) -> str:
    """The public half of the sandbox's key pair."""
    return (root / f"{IDENTITY}.pub").read_text("utf-8").strip()


def write_boxes(
    space: Workspace,
    listed: Iterable[SandboxBox],
    keys: Mapping[str, tuple[str, ...]],
    paths: Paths,
) -> None:
    """Write the inventory, the pinned host keys and the ssh config of these boxes.

    Args:
        space: the sandbox's workspace.
        listed: the boxes of the sandbox that run.
        keys: the host keys of each box, by name.
        paths: the folders of the user, for the control sockets of ssh.

    Raises:
        RoostError: a file cannot be written.
    """
    identity = str(space.root / IDENTITY)
    boxes = [
        Box(box.name, box.host, box.port, box.user, box.via, identity, groups=box.groups)
        for box in listed
    ]
    files.replace(space.known_hosts, render_known_hosts(boxes, keys).encode())
    files.replace(space.inventory / "hosts.yml", render_inventory(boxes).encode())
    ssh.ensure_config(space.root, Fleet(tuple(boxes)), paths)


def end_connections(space: Workspace, names: Iterable[str], run: Run = process.run) -> None:
    """End the shared ssh connections to boxes that are about to go; none need be there."""
    if space.ssh_config.exists():
        for name in names:
            try:
                run(["ssh", "-F", space.ssh_config, "-O", "exit", name], check=False, timeout=5)
            except ProcessError:
                continue


def render_inventory(boxes: Iterable[Box]) -> str:
    """The inventory, in YAML; strings are quoted as JSON, which YAML includes."""
    lines = [_HEAD + "all:", "  hosts:"]
    groups: dict[str, list[str]] = {}
    for box in boxes:
        values: dict[str, object] = {
            "ansible_host": box.host,
            "ansible_port": box.port,
            "ansible_user": box.user,
            "roost_identity": box.identity,
        }
        if box.via:
            values["roost_via"] = box.via
        lines.append(f"    {box.name}:")
        lines += [f"      {key}: {json.dumps(value)}" for key, value in values.items()]
        for group in box.groups:
            groups.setdefault(group, []).append(box.name)
    if groups:
        lines.append("  children:")
    for group, names in sorted(groups.items()):
        lines += [f"    {group}:", "      hosts:", *(f"        {name}:" for name in names)]
    return "\n".join(lines) + "\n"


def render_known_hosts(boxes: Iterable[Box], keys: Mapping[str, tuple[str, ...]]) -> str:
    """The host keys in the format of sshd(8), under the name that ssh looks each box up by."""
    lines = [f"{host_key_name(box)} {key}\n" for box in boxes for key in keys.get(box.name, ())]
    return "".join(lines)
