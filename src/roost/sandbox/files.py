"""The workspace of a sandbox: an ordinary one, with the boxes in its inventory."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from roost import process, workspace
from roost.sandbox.boxes import SSH_PORT, SandboxBox
from roost.sandbox.engine import Run
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
    space: Workspace, boxes: Iterable[SandboxBox], keys: Mapping[str, tuple[str, ...]]
) -> None:
    """Write the inventory, the pinned host keys and the ssh config of these boxes.

    Args:
        space: the sandbox's workspace.
        boxes: all boxes of the sandbox that ever answered.
        keys: the host keys of each box, by name.
    """
    listed = list(boxes)
    identity = str(space.root / IDENTITY)
    _replace(space.known_hosts, render_known_hosts(listed, keys))
    _replace(space.inventory / "hosts.yml", render_inventory(listed, identity))
    _replace(space.ssh_config, render_ssh_config(listed, identity, space.known_hosts))


def render_inventory(boxes: Iterable[SandboxBox], identity: str) -> str:
    """The inventory, in YAML; strings are quoted as JSON, which YAML includes."""
    lines = [_HEAD + "all:", "  hosts:"]
    groups: dict[str, list[str]] = {}
    for box in boxes:
        values: dict[str, object] = {
            "ansible_host": box.host,
            "ansible_port": box.port,
            "ansible_user": box.user,
            "roost_identity": identity,
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


def render_known_hosts(boxes: Iterable[SandboxBox], keys: Mapping[str, tuple[str, ...]]) -> str:
    """The host keys in the format of sshd(8), under the name and the address of each box."""
    lines = []
    for box in boxes:
        address = box.host if box.port == SSH_PORT else f"[{box.host}]:{box.port}"
        lines += [f"{box.name},{address} {key}" for key in keys.get(box.name, ())]
    return "".join(line + "\n" for line in lines)


def render_ssh_config(boxes: Iterable[SandboxBox], identity: str, known_hosts: Path) -> str:
    """The ssh_config(5) that reaches the boxes by name and, for Ansible, by address."""
    blocks = []
    for box in boxes:
        # Ansible asks for the address. On the loopback all boxes have the same one, and the
        # port that Ansible passes tells them apart.
        names = f"{box.name} {box.host}" if box.port == SSH_PORT else box.name
        lines = [
            f"Host {names}",
            f"  HostName {box.host}",
            f"  Port {box.port}",
            f"  User {box.user}",
        ]
        if box.via:
            lines.append(f"  ProxyJump {box.via}")
        blocks.append("\n".join(lines) + "\n")
    blocks.append(
        "Host *\n"
        f"  IdentityFile {_quote(identity)}\n"
        "  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {_quote(str(known_hosts))}\n"
        "  StrictHostKeyChecking yes\n"
    )
    return "\n".join(blocks)


def _quote(path: str) -> str:
    return '"' + path.replace("%", "%%") + '"'


def _replace(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees half of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
