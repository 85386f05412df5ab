"""The one ssh that carries a tunnel: started, found again after a crash, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from roost import process
from roost.errors import ProcessError
from roost.model import Forward, ForwardKind
from roost.supervisor import guard
from roost.supervisor.guard import Guard
from roost.supervisor.probe import CANARY_TARGET
from roost.supervisor.processes import ssh_processes
from roost.supervisor.protocol import Places, Wish

# Ahead of the workspace's own config, because ssh takes the first value it meets. It holds for
# the gateways on the way too: ssh hands the file to the ssh that jumps. A shared connection
# (ControlMaster) would outlive its network in silence, and tie the tunnel to a terminal's life.
_CONFIG = """\
Host *
    BatchMode yes
    ControlMaster no
    ControlPath none
    ControlPersist no
    ServerAliveInterval 10
    ServerAliveCountMax 3
    ConnectTimeout 10
    ConnectionAttempts 1
    ForwardAgent no
    ForwardX11 no
    PermitLocalCommand no
    RequestTTY no
    RemoteCommand none
    Include {config}
"""

_LOG_BYTES = 16_384
_BUSY_BYTES = 1_000


def arguments(wish: Wish, places: Places) -> list[str]:
    """The argument list of the ssh that carries ``wish``."""
    options = [
        *("-N", "-n", "-T", "-F", str(places.config(wish.id))),
        *("-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes"),
        *("-o", "StreamLocalBindMask=0177", "-o", "GatewayPorts=no"),
        *("-L", f"{_literal(str(places.canary(wish.id)))}:{CANARY_TARGET}"),
    ]
    for number, forward in enumerate(wish.parsed):
        if not guard.guarded(forward):
            options += [f"-{forward.kind.value}", _side_by_side(forward)]
            continue
        inner = _literal(str(guard.behind(forward, number, wish, places)))
        # ssh listens for SOCKS at ports alone, so the door does that: each connection is one that
        # it asks ssh for.
        dynamic = forward.kind is ForwardKind.DYNAMIC
        options += ["-M", "-S", inner] if dynamic else ["-L", f"{inner}:{forward.target}"]
    return ["ssh", *options, wish.box]


def _side_by_side(forward: Forward) -> str:
    local_first = forward.kind is not ForwardKind.REMOTE
    listen = _literal(forward.listen) if local_first else forward.listen
    if not forward.target:
        return listen
    return f"{listen}:{forward.target if local_first else _literal(forward.target)}"


def _literal(side: str) -> str:
    """Ssh expands tokens in the local side's socket path."""
    return side.replace("%", "%%") if side.startswith("/") else side


def write_config(wish: Wish, places: Places) -> None:
    """Write the tunnel's ssh config.

    Raises:
        OSError: it cannot be written.
    """
    # By a link: whether a % or $ in an Include is taken literally depends on ssh's version (since
    # OpenSSH 9.9 it is expanded, ssh_config(5)), and there is no way of writing that suits all.
    link = places.included(wish.id)
    link.unlink(missing_ok=True)
    link.symlink_to(wish.config)
    path = places.config(wish.id)
    path.write_text(_CONFIG.format(config=f'"{link}"'), "utf-8")
    path.chmod(0o600)


class Session:
    """A running ssh, ours or one that a supervisor before us started.

    Args:
        pid: its process id; it leads a process group of its own.
        log: the file that it writes its messages to.
        child: the process, if it is a child of ours.
    """

    def __init__(self, pid: int, log: Path, child: subprocess.Popen[str] | None = None) -> None:
        self.pid = pid
        self.log = log
        self._child = child
        self._guard: Guard | None = None

    @classmethod
    def start(cls, wish: Wish, places: Places, env: Mapping[str, str]) -> Session:
        """Start the ssh of ``wish``.

        Raises:
            MissingProgramError: ssh is not installed.
            OSError: its files cannot be written.
        """
        write_config(wish, places)
        # An ssh that was killed leaves them; the next one takes no control socket that is there.
        for left_over in (places.canary(wish.id), places.control(wish.id)):
            left_over.unlink(missing_ok=True)
        path = places.ssh_log(wish.id)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        # A file, not a pipe: ssh goes on writing when the supervisor is gone.
        with os.fdopen(handle, "w") as log:
            child = process.start(
                arguments(wish, places), stdout=log, stderr=log, env=env, new_session=True
            )
        return cls(child.pid, path, child)

    async def open_door(self, wish: Wish, places: Places) -> None:
        """Have this user's connections let in, now that ssh listens.

        Where that fails the session runs no more, and ``complaint`` says why.

        Raises:
            OSError: the log cannot be written.
        """
        if self._child is None:
            self._guard = Guard.find(self._config, self.pid)
        if self._guard is None:
            with self.log.open("a") as log:
                self._guard = Guard.start(wish, places, self.pid, log)
        if self._guard is not None:
            await self._guard.opened()

    @property
    def _config(self) -> Path:
        return self.log.with_suffix(".conf")

    def running(self) -> bool:
        """Whether it still runs, with its door; a child that has ended is reaped."""
        return self._ssh_runs() and not self._door_is_gone()

    def _ssh_runs(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return is_running(self.pid, str(self._config))

    def _door_is_gone(self) -> bool:
        return self._guard is not None and not self._guard.running()

    def complaint(self) -> str:
        """The end of what it wrote."""
        lost = "the process that guards its ports ended\n"
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4_000))
                said = file.read().decode("utf-8", "replace")
        except OSError:
            said = ""
        return lost + said if self._ssh_runs() and self._door_is_gone() else said

    def trim_log(self) -> None:
        """Keep the log small: ssh writes a line whenever the box refuses a connection."""
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > _LOG_BYTES:
                os.truncate(self.log, 0)

    def received(self) -> int:
        """Bytes that it has read so far; -1 where the system does not say."""
        try:
            text = Path(f"/proc/{self.pid}/io").read_text("ascii")
        except OSError:
            return -1
        return int(text.split("rchar:", 1)[1].split(None, 1)[0])

    def busy_since(self, before: int) -> bool:
        """Whether bytes have come in since ``received()`` said ``before``.

        A long upload over a slow line delays every answer by seconds: that is no outage.
        """
        return before >= 0 and self.received() - before > _BUSY_BYTES

    async def end(self) -> None:
        """End it, and the ssh of its gateways with it, and wait until it is gone."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
            for _ in range(100):
                if not self._ssh_runs():
                    break
                await asyncio.sleep(0.01)
            else:
                continue
            break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if door := self._guard or Guard.find(self._config, self.pid):
            await door.end()


def remove_left_over_sockets(wish: Wish, places: Places, env: Mapping[str, str]) -> None:
    """Remove the sockets of remote forwards on the box that an ssh which was cut off has left.

    sshd does so itself only with ``StreamLocalBindUnlink``. A file that is no socket stays.
    """
    from roost.ssh import command, remote_sh

    paths = [f.listen for f in wish.parsed if f.kind is ForwardKind.REMOTE and f.listen[0] == "/"]
    script = "; ".join(f"[ ! -S {q} ] || rm -f {q}" for q in map(shlex.quote, paths))
    argv = command(places.config(wish.id), wish.box, remote_sh(script))
    with contextlib.suppress(ProcessError):
        process.run(argv, env=env, check=False, timeout=60)


def is_running(pid: int, marker: str) -> bool:
    """Whether ``pid`` is an ssh whose arguments hold the config path ``marker``."""
    return any(found == pid and marker in argv for found, argv in ssh_processes([pid]))


def find(places: Places) -> dict[str, list[tuple[int, list[str]]]]:
    """The ssh processes that belong to tunnels of ``places``: for each id, pids and arguments."""
    found: dict[str, list[tuple[int, list[str]]]] = {}
    for pid, argv in ssh_processes():
        marks = [Path(w) for w in argv if w.startswith(f"{places.runtime}/")]
        for mark in marks:
            if mark.suffix == ".conf" and "-N" in argv:
                found.setdefault(mark.stem, []).append((pid, argv))
    return found
