"""The one ssh that carries a tunnel: started, found again after a crash, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from roost import process
from roost.errors import ProcessError
from roost.model import Forward, ForwardKind
from roost.supervisor.probe import CANARY_TARGET
from roost.supervisor.processes import processes, ssh_processes
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

# -P: nothing is imported from the folder that somebody happens to be in.
_DOOR = (sys.executable, "-P", "-m", "roost.supervisor.door")

_LOG_BYTES = 16_384
_BUSY_BYTES = 1_000


def has_door(wish: Wish) -> bool:
    """Whether a door asks whose the connections to its ports are; not to those for everybody."""
    return (
        wish.door
        and _tells_whose()
        and any(
            forward.kind is not ForwardKind.REMOTE and forward.listen.startswith(("127.", "[::1]:"))
            for forward in wish.parsed
        )
    )


def doors_work() -> bool:
    """Whether the ports of tunnels can be kept from other users of this machine: it is tried."""
    try:
        return _tells_whose() and process.run(_DOOR, check=False, timeout=20).returncode == 0
    except ProcessError:
        return False


def _tells_whose() -> bool:
    """Whether the system tells whose a connection is.

    Not in Linux inside of Windows (WSL): the browser's connections come from outside of it.
    """
    return sys.platform == "linux" and "microsoft" not in platform.release().lower()


def arguments(wish: Wish, places: Places) -> list[str]:
    """The argument list of the ssh that carries ``wish``."""
    options = [
        *("-N", "-n", "-T", "-F", str(places.config(wish.id))),
        *("-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes"),
        *("-o", "StreamLocalBindMask=0177", "-o", "GatewayPorts=no"),
        *("-L", f"{_literal(str(places.canary(wish.id)))}:{CANARY_TARGET}"),
    ]
    for forward in wish.parsed:
        options += [f"-{forward.kind.value}", _side_by_side(forward)]
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
        log: the file that it writes its messages to.
        child: what we have started: ssh, or the door that runs it.
        pid: where another supervisor did, the process id of ssh.
    """

    def __init__(
        self, log: Path, child: subprocess.Popen[str] | None = None, *, pid: int = 0
    ) -> None:
        self.pid = pid
        self.log = log
        self._child = child
        self._leader = child.pid if child is not None else _leader_of(pid)

    @classmethod
    def start(cls, wish: Wish, places: Places, env: Mapping[str, str]) -> Session:
        """Start the ssh of ``wish``; its process id is known when it is ``begun``.

        Raises:
            MissingProgramError: ssh is not installed.
            OSError: its files cannot be written.
        """
        write_config(wish, places)
        places.canary(wish.id).unlink(missing_ok=True)
        path = places.ssh_log(wish.id)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        # Without ssh there is nothing to run behind a door, and what follows says so.
        door = _DOOR if has_door(wish) and process.which("ssh", env) else ()
        # A file, not a pipe: ssh goes on writing when the supervisor is gone.
        with os.fdopen(handle, "w") as log:
            child = process.start(
                [*door, *arguments(wish, places)],
                stdout=subprocess.PIPE if door else log,
                stderr=log,
                env=env,
                new_session=True,
            )
        return cls(path, child)

    async def begun(self) -> None:
        """Return when its process id is known."""
        if self._child is None:
            return
        line = ""
        if self._child.stdout is not None:
            line = await asyncio.to_thread(self._child.stdout.readline)
            self._child.stdout.close()
        self.pid = int(line or self._child.pid)

    @property
    def guarded(self) -> bool:
        """Whether it has a door, without which it does not run on."""
        return self.pid != self._leader

    def running(self) -> bool:
        """Whether it still runs; a child that has ended is reaped."""
        if self._child is not None:
            return self._child.poll() is None
        return is_running(self.pid, str(self.log.with_suffix(".conf")))

    def complaint(self) -> str:
        """The end of what it wrote."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4_000))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def trim_log(self) -> None:
        """Keep the log small: ssh writes a line whenever the box refuses a connection."""
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > _LOG_BYTES:
                os.truncate(self.log, 0)

    def received(self) -> int:
        """Bytes that it has read so far; -1 where the system does not say."""
        return self._counted("rchar")

    def sent(self) -> int:
        """Bytes that it has written so far; -1 where the system does not say."""
        return self._counted("wchar")

    def _counted(self, name: str) -> int:
        """One of the counters of proc(5), /proc/PID/io."""
        try:
            text = Path(f"/proc/{self.pid}/io").read_text("ascii")
        except OSError:
            return -1
        return int(text.split(f"{name}:", 1)[1].split(None, 1)[0])

    def busy_since(self, before: int) -> bool:
        """Whether bytes have come in since ``received()`` said ``before``.

        A long upload over a slow line delays every answer by seconds: that is no outage.
        """
        return before >= 0 and self.received() - before > _BUSY_BYTES

    async def end(self) -> None:
        """End it, the ssh of its gateways and its door with it, and wait until it is gone."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(number)
            for _ in range(100):
                if not self.running():
                    break
                await asyncio.sleep(0.01)
            else:
                continue
            break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._leader, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # Where its door is gone, ssh leads no group.
        for send, target in ((os.killpg, self._leader), (os.kill, self.pid)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if target:
                    send(target, number)


def _leader_of(pid: int) -> int:
    """Who leads the process group of the ssh ``pid``: its door, or itself."""
    with contextlib.suppress(ProcessLookupError):
        group = os.getpgid(pid)
        if any(_DOOR[-1] in argv for _, argv in processes([group])):
            return group
    return pid


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
