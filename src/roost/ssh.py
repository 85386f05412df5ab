"""Reach a box by plain ssh(1), through the config that is rendered from the inventory."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from roost import files, process, ssh_hosts
from roost.errors import ProcessError, ProcessTimeoutError, RoostError
from roost.model import Box, Fleet
from roost.paths import Paths
from roost.process import Completed
from roost.ssh_config import CONTROL_DIR_MAX, Settings, render

TRANSPORT_FAILED = 255
CONNECT_SECONDS = 10

# What every login shell takes literally between single quotes: fish treats a backslash
# there as an escape, csh wants one before a line feed, and replaces an exclamation mark.
_NOT_LITERAL = re.compile(r"[\\!\n\r']")


def ensure_config(
    workspace_root: Path, fleet: Fleet, paths: Paths, *, user_config: bool = True
) -> Path:
    """Write the workspace's own ssh config where it is not up to date, and return its path.

    Where the boxes are installed in the user's own ssh, too, they are brought up to date there.

    Args:
        workspace_root: the folder of the workspace.
        fleet: its boxes.
        paths: the user's folders, for the control sockets.
        user_config: what the boxes' own blocks leave open, the user's ``~/.ssh/config`` fills.

    Raises:
        InventoryError: the inventory says something that an ssh config cannot.
        RoostError: the file cannot be written.
    """
    root = workspace_root.absolute()
    config = root / ".roost" / "ssh_config"
    control_dir = ensure_control_dir(paths)
    text = render(
        fleet,
        Settings(
            known_hosts=root / "known_hosts",
            control_dir=control_dir,
            source=str(root),
            addresses=True,
            user_config=user_config,
        ),
    )
    try:
        config.parent.mkdir(mode=0o700, exist_ok=True)
        files.replace(config, text.encode())
    except OSError as error:
        raise RoostError(
            f"{config} cannot be written: {error.strerror}",
            fix="work in a copy of the workspace that belongs to you",
        ) from error
    installed = ssh_hosts.file_for(paths, root)
    if installed.is_file():
        ssh_hosts.write(installed, names_text(root, fleet, paths))
    return config


def names_text(workspace_root: Path, fleet: Fleet, paths: Paths) -> str:
    """The boxes as the user's own ssh is to see them: by their names alone.

    Raises:
        InventoryError: the inventory says something that an ssh config cannot.
    """
    root = workspace_root.absolute()
    control_dir = ensure_control_dir(paths)
    return render(fleet, Settings(root / "known_hosts", control_dir, source=str(root)))


def control_dir(paths: Paths) -> Path | None:
    """The folder for control sockets, or None where no path is short enough.

    A folder that outlives a reboot comes first: ssh does not make the folder of a ControlPath,
    and ends with an error where it is missing, so the run-time folder would break every plain
    ``ssh NAME`` between a reboot and the next call of roost.
    """
    for folder in (paths.state / "cm", paths.runtime / "cm"):
        if len(os.fsencode(folder)) <= CONTROL_DIR_MAX and "${" not in str(folder):
            return folder
    return None


def ensure_control_dir(paths: Paths) -> Path | None:
    """The folder of ``control_dir``, made for this user alone; None where it cannot be had."""
    folder = control_dir(paths)
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.getuid():
            return None
        if status.st_mode & 0o077:
            folder.chmod(0o700)
    except OSError:
        return None
    return folder


def command(
    config: Path, name: str, *words: str, options: Sequence[str] = (), program: str = "ssh"
) -> list[str]:
    """The argument list that reaches the box ``name``.

    Args:
        config: what ``ensure_config`` returned.
        name: the box, or its ``-tunnel`` alias.
        words: the remote command; as with ssh itself, the box's login shell reads them.
            ``remote_sh`` makes one word that any login shell hands to ``sh``.
        options: ssh's own options, such as ``-t`` or ``-N``.
        program: the ssh to run.
    """
    return [program, "-F", str(config), *options, name, *words]


def remote_sh(script: str | Sequence[str]) -> str:
    """One remote command word that runs under ``sh`` whatever the login shell is.

    Args:
        script: text for ``sh -c``, or an argument list, which is quoted for it.
    """
    text = script if isinstance(script, str) else shlex.join(script)
    if not _NOT_LITERAL.search(text):
        return f"exec sh -c '{text}'"
    import base64

    packed = base64.b64encode(text.encode()).decode()
    return f"""exec sh -c 'eval "$(echo {packed} | base64 -d)"'"""


def run(
    config: Path,
    box: Box,
    script: str | Sequence[str],
    *,
    fleet: Fleet | None = None,
    timeout: float | None = 60.0,
    check: bool = True,
    input: str | Callable[[], str] | None = None,
) -> Completed:
    """Run a command on the box under ``sh``, without a terminal and without any question.

    Args:
        config: what ``ensure_config`` returned.
        box: the box.
        script: text for ``sh -c``, or an argument list.
        fleet: where the gateways are found that an error may be about.
        timeout: seconds for the whole of it.
        check: raise where the remote command fails.
        input: text for its standard input, or what makes it while the login is under way.

    Raises:
        UnreachableError: the box does not answer, or does not let us in.
        SshError: the connection broke.
        ProcessError: the remote command failed, and ``check`` is set.
    """
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"]
    argv = command(config, box.name, remote_sh(script), options=options)
    try:
        done = process.run(argv, timeout=timeout, check=False, input=input)
    except ProcessTimeoutError as error:
        raise ProcessTimeoutError(
            f"{box.name} did not finish within {timeout:g} s", why=shlex.join(argv)
        ) from error
    if done.returncode == TRANSPORT_FAILED:
        from roost.ssh_failure import explain_failure

        raise explain_failure(box, done.stderr, fleet)
    if check and done.returncode != 0:
        detail = (done.stderr or done.stdout).strip()
        raise ProcessError(
            f"a command on {box.name} failed with exit code {done.returncode}",
            returncode=done.returncode,
            stderr=done.stderr,
            why=detail.splitlines()[-1] if detail else None,
        )
    return done


def disconnect(config: Path, name: str) -> None:
    """End the shared connection to a box, if there is one."""
    with contextlib.suppress(ProcessTimeoutError):
        process.run(command(config, name, options=["-O", "exit"]), timeout=5, check=False)
