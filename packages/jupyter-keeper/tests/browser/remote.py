"""A server on another machine: a person's, on a Unix socket there, with ssh between.

``KEEPER_SSH`` is the command line that leads to the person there, such as ``ssh -F FILE box``;
``KEEPER_PYTHON`` is the Python there, by its whole path, that has JupyterLab and the keeper;
``KEEPER_ROOT`` is what comes in front of a command to have root run it there, by default this ssh
and ``sudo -n``.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path, PurePosixPath
from typing import IO, Any

from relay import Link
from support import Server, free_port

SSH = shlex.split(os.environ.get("KEEPER_SSH", ""))

AS_ROOT = shlex.split(os.environ.get("KEEPER_ROOT", "")) or ([*SSH, "sudo", "-n"] if SSH else [])


def there(*argv: str, input: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program there, to its end."""
    return subprocess.run(
        [*SSH, shlex.join(argv)], input=input, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def checked(*argv: str, input: str = "") -> str:
    done = there(*argv, input=input)
    if done.returncode:
        raise OSError(f"{shlex.join(argv)}: {done.stderr}")
    return done.stdout


class FarPath(PurePosixPath):
    """A file there, with what the tests do to files."""

    def read_text(self) -> str:
        return checked("cat", str(self))

    def write_text(self, text: str) -> None:
        checked("sh", "-c", 'cat >"$0"', str(self), input=text)

    def exists(self) -> bool:
        return there("test", "-e", str(self)).returncode == 0

    def touch(self) -> None:
        checked("touch", str(self))

    def mkdir(self, **_: Any) -> None:
        checked("mkdir", "-p", str(self))


class Forward:
    """``ssh -L`` from a port here to a socket there.

    It is cut by killing this ssh. It is stalled by freezing both ends, so that nobody there is told
    when this end goes, too. What is mended is a new ssh at the same port, as a tunnel makes one.
    """

    def __init__(self, target: FarPath) -> None:
        self.port = free_port()
        self._target = target
        self._frozen: list[str] = []
        self.mend()

    def mend(self) -> None:
        way = f"127.0.0.1:{self.port}:{self._target}"
        # A connection of its own: what else goes there is not broken with it.
        options = ["-S", "none", "-o", "ExitOnForwardFailure=yes", "-L", way]
        self._ssh = subprocess.Popen(
            [*SSH, *options, "echo $PPID; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._ssh.stdout
        # Comes when the port is open.
        self._sshd = self._ssh.stdout.readline().strip()
        assert self._sshd, f"no way to {self._target}"

    def stall(self) -> None:
        self._ssh.send_signal(signal.SIGSTOP)
        checked("kill", "-STOP", self._sshd)
        self._frozen.append(self._sshd)

    def cut(self) -> None:
        self._ssh.kill()
        self._ssh.communicate()

    def close(self) -> None:
        self.cut()
        if self._frozen:
            checked("kill", "-KILL", *self._frozen)


class RemoteServer(Server):
    """A server there, with a forward to it that nothing breaks."""

    def __init__(self, folder: Path, *options: str, place: FarPath, **more: Any) -> None:
        super().__init__(folder, *options, place=place, **more)
        self.python = os.environ["KEEPER_PYTHON"]
        self._socket = self.folder / "jupyter.sock"
        self._forward = Forward(self._socket)
        self.port = self._forward.port

    def _launch(
        self, command: list[str], settings: dict[str, str], log: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        settings["PATH"] = f"{PurePosixPath(self.python).parent}:/usr/local/bin:/usr/bin:/bin"
        script = [
            f"cd {self.folder}",
            "echo $$ >pid",
            *(f"export {name}={shlex.quote(value)}" for name, value in settings.items()),
            f"exec {shlex.join([*command, f'--ServerApp.sock={self._socket}'])} </dev/null",
        ]
        # As a script on standard input: an argument, the token too, is everybody's to read.
        process = subprocess.Popen([*SSH, "sh"], stdin=subprocess.PIPE, stdout=log, stderr=log)
        assert process.stdin
        with process.stdin as sh:
            sh.write("\n".join(script).encode())
        return process

    def _signal(self, process: subprocess.Popen[bytes], number: int) -> None:
        if process.poll() is None:
            checked("kill", f"-{number}", (self.folder / "pid").read_text().strip())

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._forward.close()

    def link(self) -> Link:
        return Forward(self._socket)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return there(*argv)
