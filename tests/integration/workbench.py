"""A box with tmux, python and jupyter on it, for the people ann, bob and the login user."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from roles import Outcome, apply

from boxes import LiveBox, exec_in
from roost import process
from roost.notebook import NotebookError, NotebookServer
from roost.sandbox.locks import locked

ROLES = ["tmux", "python", "jupyter"]
PEOPLE = ("debian", "ann", "bob")

# Every run names the same people: a shorter list would stop the servers of the others.
VARIABLES: dict[str, Any] = {
    "jupyter_people": list(PEOPLE),
    "jupyter_uv": "/opt/roost/uv/bin/uv",
}

# What the role base does for the others, and accounts that may log in with the sandbox's key.
PREPARE = """
set -eu
apt-get update -q
apt-get install -q -y --no-install-recommends python3 python3-apt python3-venv tmux git
for person in ann bob; do
    useradd --create-home --shell /bin/bash "$person"
    install -d -m 0700 -o "$person" -g "$person" "/home/$person/.ssh"
    install -m 0600 -o "$person" -g "$person" /home/debian/.ssh/authorized_keys \
        "/home/$person/.ssh/authorized_keys"
done
# In a container systemd waits minutes for a user's manager that has ended; no real box does.
mkdir -p /var/lib/systemd/linger
touch /var/lib/systemd/linger/debian /var/lib/systemd/linger/ann /var/lib/systemd/linger/bob
"""


def provision(box: LiveBox) -> None:
    """Make the workbench, and see that a check and a second run find nothing to do."""
    exec_in(box, ["sh", "-c", PREPARE], timeout=300)
    first = apply(box, ROLES, **VARIABLES)
    assert first.returncode == 0, first.text


def play(box: LiveBox, roles: list[str], *more: str, **variables: Any) -> Outcome:
    """Run roles on a box that other tests share: one run at a time."""
    with locked(box.workspace.root / "play.lock"):
        return apply(box, roles, *more, **(VARIABLES | variables))


def root(box: LiveBox, script: str, *, check: bool = True, timeout: float = 60) -> str:
    """What a shell script prints that runs as root on the box."""
    return exec_in(box, ["sh", "-c", script], check=check, timeout=timeout).stdout


def as_person(box: LiveBox, person: str, script: str, *, check: bool = True) -> process.Completed:
    """Run a shell script as somebody on the box, with their own environment."""
    return exec_in(box, ["su", "-", person, "-s", "/bin/sh", "-c", script], check=check)


def ssh_argv(box: LiveBox, person: str, *options: str) -> list[str]:
    """The start of an ssh command line that logs in as ``person``."""
    config = str(box.workspace.ssh_config)
    return ["ssh", "-F", config, "-S", "none", "-o", "BatchMode=yes", "-l", person, *options]


@contextmanager
def small_disk(box: LiveBox, folder: str, size: str) -> Iterator[None]:
    """A file system of ``size`` over a folder, mounted from outside: the box has no right to."""
    words = ["exec", "--privileged", box.now.container]
    box.sandbox.engine(*words, "mkdir", "-p", folder)
    box.sandbox.engine(*words, "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield
    finally:
        box.sandbox.engine(*words, "umount", "--lazy", folder)


def token_of(box: LiveBox, person: str) -> str:
    return root(box, f"cat /var/lib/roost-jupyter/{person}/token").strip()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def tunnel(box: LiveBox, person: str) -> Iterator[NotebookServer]:
    """The person's JupyterLab through a real ssh forward to its socket."""
    port = free_port()
    far = f"/run/roost-jupyter/{person}/jupyter.sock"
    options = ("-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:{far}")
    forward = process.start([*ssh_argv(box, person, *options), box.name], new_session=True)
    try:
        server = NotebookServer(f"http://127.0.0.1:{port}", token_of(box, person), timeout=60)
        try:
            server.wait_until_ready(timeout=60)
        except NotebookError:
            forward.terminate()
            raise AssertionError(f"no way to {far}: {forward.communicate()[1]}") from None
        yield server
    finally:
        forward.terminate()
        forward.communicate()


def listeners(box: LiveBox, pid: int) -> list[str]:
    """The TCP addresses that a process on the box listens on, from /proc alone."""
    script = f"readlink /proc/{pid}/fd/*; cat /proc/{pid}/net/tcp /proc/{pid}/net/tcp6"
    found = root(box, script, check=False)
    inodes = set(re.findall(r"socket:\[(\d+)\]", found))
    rows = [line.split() for line in found.splitlines() if re.match(r"\s*\d+: ", line)]
    return [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]


def main_pid(box: LiveBox, person: str) -> int:
    return int(root(box, f"systemctl show -P MainPID roost-jupyter@{person}"))
