"""A box with the programs that jobs and transfers need, and ways to look at what they do."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cli import ROOST, root

from boxes import LiveBox, exec_in
from roost import inventory, process, ssh
from roost.job_stream import Remote
from roost.paths import Paths

T = TypeVar("T")
_numbers = itertools.count()
_places: dict[tuple[Path, str], tuple[str, str]] = {}
PROGRAMS = ("python3", "tmux", "rsync", "fish", "zsh", "task-spooler")


def equip(box: LiveBox) -> None:
    """Install what a provisioned box has, and the login shells that people use."""
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    exec_in(box, [*apt, "update"], timeout=300)
    exec_in(box, [*apt, "install", "--no-install-recommends", *PROGRAMS], timeout=300)


def way(box: LiveBox) -> Remote:
    """The box as the library reaches it."""
    paths = Paths.from_environment(os.environ)
    fleet = inventory.load(box.workspace, paths=paths, environ=os.environ)
    config = ssh.ensure_config(box.workspace.root, fleet, paths)
    return Remote(config, fleet.box(box.name), fleet)


def until(look: Callable[[], T], what: str, *, seconds: float = 60) -> T:
    """What ``look`` returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}"
        time.sleep(0.05)
    return found


def _place(box: LiveBox) -> tuple[str, str]:
    """The container and its user: they stay, and the engine is slow to ask."""
    key = (box.sandbox.root, box.name)
    if key not in _places:
        _places[key] = box.now.container, box.now.user
    return _places[key]


def as_root(box: LiveBox, *argv: str, check: bool = True) -> process.Completed:
    """Run a program as root, without any login."""
    return box.sandbox.engine("exec", _place(box)[0], *argv, check=check, timeout=180)


def home(box: LiveBox) -> str:
    """The login user's home there."""
    return f"/home/{_place(box)[1]}"


def login_shell(box: LiveBox, shell: str) -> None:
    """Give the login user another shell."""
    as_root(box, "usermod", "-s", shell, _place(box)[1])


def as_user(box: LiveBox, script: str, *, check: bool = True) -> process.Completed:
    """Run a script as the login user, without any login."""
    argv = ["runuser", "-u", _place(box)[1], "--", "env", f"HOME={home(box)}"]
    return as_root(box, *argv, "sh", "-c", f"cd && {script}", check=check)


def runner_of(box: LiveBox, job: str) -> str:
    """The process id of what keeps a job's log."""
    state = as_user(box, f"cat .local/state/roost/jobs/{job}/state.json").stdout
    return str(json.loads(state)["process"]["runner"])


def with_all_rights(box: LiveBox, *words: str) -> None:
    """Run a program in the box with the rights that it has not itself, to mount something."""
    inside = ["nsenter", "--target", str(box.now.pid), "--mount", "--pid"]
    process.run([*inside, *words])


def output_of(box: LiveBox, *words: str) -> bytes:
    """The bytes that a roost command writes to its standard output."""
    argv = [str(ROOST), "-w", str(root(box)), *words]
    return subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=300).stdout


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Terminal:
    """A real terminal with a program on it: a tmux server of the test's own."""

    tmux: list[str]

    def screen(self) -> str:
        return process.run([*self.tmux, "capture-pane", "-p"], check=False).stdout

    def asked(self, format: str) -> str:
        """What the tmux that draws it says of the terminal."""
        return process.run([*self.tmux, "display-message", "-p", format]).stdout.rstrip("\n")

    def type(self, *keys: str) -> None:
        process.run([*self.tmux, "send-keys", *keys])

    def shows(self, text: str, *, seconds: float = 60) -> str:
        """Wait until ``text`` is on the screen; an assertion shows what is there instead."""
        deadline = time.monotonic() + seconds
        while text not in (screen := self.screen()):
            assert time.monotonic() < deadline, f"no {text!r} on the screen:\n{screen}"
            time.sleep(0.05)
        return screen


@contextmanager
def terminal(folder: Path, *words: str | Path) -> Iterator[Terminal]:
    """Run a roost command on a terminal; its exit code is shown at its end as ``exit N``."""
    tmux = ["tmux", "-u", "-S", str(folder / f"terminal{next(_numbers)}"), "-f", "/dev/null"]
    # Ctrl-C is for the command, not for this shell.
    script = 'trap : INT; "$@"; echo "exit $?"; read wait'
    size = ["-x", "100", "-y", "30"]
    argv = ["sh", "-c", script, "sh", ROOST, *words]
    process.run([*tmux, "new-session", "-d", *size, "--", *argv])
    try:
        yield Terminal(tmux)
    finally:
        process.run([*tmux, "kill-server"], check=False)
