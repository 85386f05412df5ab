"""The way of ``rmate`` on a box to the editor on this side: a socket of the person's own."""

from __future__ import annotations

from pathlib import Path

from roost import content, ssh
from roost.errors import UsageError
from roost.model import Box, Fleet, Forward, ForwardKind
from roost.ports import LOOPBACK

# Where editors listen that speak the protocol: TextMate, and what VS Code and Sublime Text add.
EDITOR_PORT = 52698
LABEL = "rmate"


def forward(
    config: Path, box: Box, *, fleet: Fleet | None = None, port: int = EDITOR_PORT
) -> Forward:
    """The remote forward from the socket where ``rmate`` looks first to the editor's port here.

    The socket lies in the home of whoever logs in: on a box that several people use, nobody can
    connect to another's, and no two of them want the same port.

    Args:
        config: the ssh config that knows the box.
        box: where ``rmate`` runs.
        fleet: where the gateways are found that an error may be about.
        port: where the editor listens on this side.

    Raises:
        UnreachableError: the box does not answer, or does not let us in.
        UsageError: ``rmate_socket`` in the inventory is no path.
    """
    named = str({**content.role_defaults("rmate"), **box.vars}["rmate_socket"])
    home = ssh.run(config, box, 'printf %s "$HOME"', fleet=fleet).stdout
    path = f"{home}/{named[2:]}" if named.startswith("~/") else named
    if not path.startswith("/") or ":" in path:
        raise UsageError(
            f"rmate_socket of {box.name} is {named!r}, which is no path of a socket",
            fix="write it as an absolute path, or from the home on: ~/.rmate.sock",
        )
    return Forward(ForwardKind.REMOTE, path, f"{LOOPBACK}:{port}")
