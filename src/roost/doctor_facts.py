"""What this machine looks like to ``roost doctor``; nothing is judged or changed here."""

from __future__ import annotations

import locale
import os
import platform
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from roost import process, ssh
from roost.errors import ProcessError
from roost.paths import Paths
from roost.supervisor.session import doors_work


@dataclass(frozen=True)
class Key:
    """A private key file."""

    path: Path
    mode: int
    has_public: bool
    kind: str


@dataclass(frozen=True)
class Facts:
    """What ``gather`` saw; the defaults are a healthy Linux machine.

    Attributes:
        platform: as ``sys.platform``.
        kernel: the kernel's release, which names WSL.
        ssh: what ``ssh -V`` says; empty where there is none. ``rsync`` likewise.
        rsync: the first line of ``rsync --version``.
        key_types: what ``ssh -Q key`` lists.
        ansible: the version of ansible-core.
        python: the version of this Python.
        encoding: the locale's encoding.
        home: ``$HOME``, and the home in the password database.
        folder: the mode of ``~/.ssh``, None where it is missing; likewise ``config``.
        config: the mode of ``~/.ssh/config``.
        keys: the private keys there.
        agent: how many keys the agent holds; None: there is none, -1: it does not answer.
        control_dir: the folder for control sockets, None where none is short enough.
        workspace: the workspace, and the mode of its folder.
        doors: whether tunnels can keep other users from their ports.
    """

    platform: str = "linux"
    kernel: str = "6.1.0"
    ssh: str = "OpenSSH_9.6p1"
    rsync: str = "rsync  version 3.2.7  protocol version 31"
    key_types: tuple[str, ...] = ("ssh-ed25519", "sk-ssh-ed25519@openssh.com")
    ansible: str = "2.19.0"
    python: tuple[int, ...] = (3, 12, 0)
    encoding: str = "utf-8"
    home: tuple[Path, Path] = (Path("/home/me"), Path("/home/me"))
    folder: int | None = 0o700
    config: int | None = 0o600
    keys: tuple[Key, ...] = ()
    agent: int | None = 1
    control_dir: Path | None = Path("/home/me/.local/state/roost/cm")
    workspace: tuple[Path, int] | None = None
    doors: bool = True
    environ: Mapping[str, str] = field(default_factory=dict)


def gather(paths: Paths, environ: Mapping[str, str], home: Path, root: Path | None) -> Facts:
    """Look at this machine; nothing is changed.

    Args:
        paths: roost's folders.
        environ: the environment.
        home: the home in the password database, which ssh goes by.
        root: the workspace, if there is one.
    """
    folder = home / ".ssh"
    return Facts(
        platform=sys.platform,
        kernel=platform.release(),
        ssh=_said(["ssh", "-V"]),
        rsync=_said(["rsync", "--version"]).partition("\n")[0],
        key_types=tuple(_said(["ssh", "-Q", "key"]).split()),
        ansible=_version("ansible-core"),
        python=tuple(sys.version_info[:3]),
        encoding=locale.getpreferredencoding(False).lower(),
        home=(paths.home, home),
        folder=_mode(folder),
        config=_mode(folder / "config"),
        keys=tuple(_keys(folder)),
        agent=_agent(environ),
        control_dir=ssh.control_dir(paths),
        workspace=(root, _mode(root) or 0) if root else None,
        doors=doors_work(),
        environ=environ,
    )


def _said(argv: list[str]) -> str:
    try:
        done = process.run(argv, check=False, timeout=10)
    except ProcessError:
        return ""
    return done.stdout + done.stderr


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def _keys(folder: Path) -> Iterator[Key]:
    for path in sorted(folder.glob("*")) if os.access(folder, os.R_OK) else ():
        try:
            with path.open("rb") as file:
                private = b"PRIVATE KEY-----" in file.read(64)
        except OSError:
            continue
        if private:
            public = path.with_name(path.name + ".pub")
            kind = _said(["ssh-keygen", "-l", "-f", str(public)]) if public.is_file() else ""
            yield Key(path, _mode(path) or 0, public.is_file(), kind.strip())


def _agent(environ: Mapping[str, str]) -> int | None:
    if not environ.get("SSH_AUTH_SOCK"):
        return None
    try:
        done = process.run(["ssh-add", "-l"], check=False, timeout=10, env=environ)
    except ProcessError:
        return -1
    # 1: it holds no key; 2: it cannot be reached (ssh-add(1)).
    return {0: len(done.stdout.splitlines()), 1: 0}.get(done.returncode, -1)
