"""Open, close and list tunnels: the client of the supervisor.

Every call finds the supervisor, or starts it, and ends as soon as the answer is there; what was
asked for goes on without it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import stat
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roost import ports, process
from roost.errors import RoostError, UsageError
from roost.model import Box, Fleet, Forward, ForwardKind
from roost.paths import Paths
from roost.ssh_failure import explain_failure
from roost.supervisor.protocol import (
    PASSED_ON,
    VERSION,
    Places,
    Status,
    Wish,
    encode,
    ensure_private,
    places,
)

_START_SECONDS = 15.0
_ANSWER_SECONDS = 40.0
_OPEN_SECONDS = 90.0
_FIRST_UNPRIVILEGED = 1024
_LOOPBACK_NAMES = {"", "localhost", "127.0.0.1"}


@dataclass(frozen=True)
class Allow:
    """What a forward may do only if the user says so.

    Attributes:
        public: listen where other machines reach it.
        privileged: listen on a port below 1024.
    """

    public: bool = False
    privileged: bool = False


NOTHING_SPECIAL = Allow()


class Tunnels:
    """The tunnels of one user.

    Args:
        paths: the user's folders.
        environ: where ssh finds its agent.
    """

    def __init__(self, paths: Paths, environ: Mapping[str, str]) -> None:
        self.places = places(paths.runtime, paths.state)
        self.environ = environ

    def open(
        self,
        box: Box,
        config: Path,
        forwards: Sequence[Forward],
        *,
        fleet: Fleet | None = None,
        label: str = "",
        speaks: Mapping[str, str] | None = None,
        allow: Allow = NOTHING_SPECIAL,
    ) -> list[Status]:
        """Open forwards to a box and return when they answer; asking again changes nothing.

        Remote forwards get an ssh of their own: a port that is taken on the box would otherwise
        take the local ones down with it.

        Args:
            box: where they lead to.
            config: the ssh config that knows the box.
            forwards: local, remote and dynamic ones. A local port 0 is replaced by a free one.
            fleet: where the gateways are found that an error may be about.
            label: what the tunnel is for, for people.
            speaks: for a forward's text what is spoken through it: ``http PATH`` or ``ssh``.
            allow: what is refused otherwise.

        Returns:
            The tunnels that carry them: of the local and dynamic ones, and of the remote ones.

        Raises:
            UsageError: a forward is refused, or a port or path is taken.
            UnreachableError: the box does not answer, or does not let us in.
            RoostError: the supervisor cannot be started, or a forward is refused on the box.
        """
        wanted = [checked(forward, allow) for forward in dict.fromkeys(forwards)]
        if not wanted:
            raise UsageError(
                f"there is nothing to open for {box.name}",
                why="neither the command line nor roost_forwards in the inventory has a forward",
                fix=f"roost tunnel open {box.name} 6006:localhost:6006",
            )
        known = self.list()
        mine = [s for s in known if (s.box, s.config) == (box.name, str(config))]
        there = {f.spec for s in mine for f in s.forwards}
        fresh = [f for f in wanted if str(f) not in there]
        for forward in fresh:
            _check_free(forward, box, known)
        opened = [s for s in mine if {f.spec for f in s.forwards} & set(map(str, wanted))]
        for remote in (False, True):
            part = [str(f) for f in fresh if (f.kind is ForwardKind.REMOTE) is remote]
            if part:
                wish = Wish(box.name, str(config), tuple(part), label, dict(speaks or {}))
                opened.append(self._open_one(wish, box, fleet))
        return opened

    def _open_one(self, wish: Wish, box: Box, fleet: Fleet | None) -> Status:
        self._ask({"do": "open", "wish": dataclasses.asdict(wish)})
        try:
            deadline = time.monotonic() + _OPEN_SECONDS
            while time.monotonic() < deadline:
                raw = next(t for t in self._ask({"do": "list"})["tunnels"] if t["id"] == wish.id)
                status = Status.from_json(raw)
                if status.state == "up":
                    return status
                if status.state == "down":
                    raise _explain(wish, box, status.why, str(raw.get("said", "")), fleet)
                time.sleep(0.03)
            raise RoostError(f"the tunnel to {box.name} does not come up")
        except StopIteration:
            raise RoostError(f"the tunnel to {box.name} was closed meanwhile") from None
        except BaseException:
            # A command that fails, or is stopped, leaves nothing behind that tries on in secret.
            self.close([wish.id])
            raise

    def close(self, ids: Iterable[str]) -> None:
        """Close the tunnels with these ids; nothing of them is left when this returns.

        Raises:
            RoostError: the supervisor cannot be reached or started.
        """
        wanted = [*ids]
        if wanted:
            self._ask({"do": "close", "ids": wanted})

    def list(self, *, probe: float = 0.0) -> list[Status]:
        """Every tunnel of this user, as it is now.

        Tunnels that are wanted while no supervisor runs (a reboot, a crash) are taken up again.

        Args:
            probe: ask through every forward first, at most so many seconds; 0: do not.

        Raises:
            RoostError: the supervisor cannot be started.
        """
        if not self.places.wishes.exists() and not self.places.socket.exists():
            return []
        answer = self._ask({"do": "list", "ask": probe})
        return [Status.from_json(raw) for raw in answer["tunnels"]]

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Put one request to the supervisor, which is started where none answers.

        Raises:
            RoostError: it cannot be started, or it refuses the request.
        """
        ensure_private(self.places.runtime)
        passed_on = {k: v for k, v in self.environ.items() if k in PASSED_ON}
        message = encode({"version": VERSION, "environ": passed_on, **request})
        deadline = time.monotonic() + _START_SECONDS
        child = None
        while time.monotonic() < deadline:
            answer = _exchange(self.places, message)
            if answer is None and (child is None or child.poll() is not None):
                child = _start(self.places, self.environ)
            if answer is None or answer.get("leaving"):
                time.sleep(0.02)
                continue
            if error := answer.get("error"):
                raise RoostError(error["what"], why=error.get("why"), fix=error.get("fix"))
            return answer
        said = _tail(self.places.log)
        raise RoostError(
            "the supervisor of the tunnels does not start",
            why=said or "it says nothing",
            fix=f"see {self.places.log}",
        )


def _tail(log: Path) -> str:
    try:
        lines = log.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def _explain(wish: Wish, box: Box, why: str, said: str, fleet: Fleet | None) -> RoostError:
    if "remote port forwarding failed" in why:
        return RoostError(
            f"{box.name} does not open the remote forward {', '.join(wish.forwards)}",
            why="the port or path is taken there (an ssh that has not noticed its end, as a "
            "rule), or its sshd forbids it",
            fix=f"roost ssh {box.name} -- ss -ltnp",
        )
    if "in use" in why or "cannot listen" in why:
        return RoostError(f"a local port was taken in the meantime: {why}", fix="try it again")
    return explain_failure(box, said or why, fleet)


def local_port(status: Status) -> int:
    """The port on this side of the tunnel's first local or dynamic forward; 0 for none."""
    for found in status.forwards:
        forward = Forward.parse(found.spec)
        if forward.kind is not ForwardKind.REMOTE and not forward.listen.startswith("/"):
            return int(forward.listen.rpartition(":")[2])
    return 0


def checked(forward: Forward, allow: Allow = NOTHING_SPECIAL) -> Forward:
    """``forward`` with its listening address written out.

    Raises:
        UsageError: it listens where other machines reach it, or below port 1024, and that is
            not allowed.
    """
    if forward.listen.startswith("/"):
        return forward
    host, _, port = forward.listen.rpartition(":")
    side = "on the box" if forward.kind is ForwardKind.REMOTE else "on this side"
    loopback = host in _LOOPBACK_NAMES or host.startswith("127.") or host == "[::1]"
    if not loopback and not allow.public:
        raise UsageError(
            f"the forward {forward} listens at {host}, {side}",
            why="every machine that reaches it there could use it",
            fix="leave the address out for loopback alone, or say --public",
        )
    if 0 < int(port) < _FIRST_UNPRIVILEGED and not allow.privileged:
        raise UsageError(
            f"the forward {forward} listens at port {port}, {side}",
            why="ports below 1024 are the system's own",
            fix=f"take another one, such as {int(port) + 8000}, or say --privileged",
        )
    if forward.kind is ForwardKind.REMOTE:
        return forward
    number = int(port) or ports.next_free(20_000)
    # One address: for "localhost" ssh is content with ::1 alone where a stranger has 127.0.0.1.
    address = host if loopback and host not in _LOOPBACK_NAMES else ""
    chosen = address or (ports.LOOPBACK if loopback else host)
    return dataclasses.replace(forward, listen=f"{chosen}:{number}")


def named(spec: str) -> Forward:
    """The forward that ``spec`` was opened as.

    Raises:
        UsageError: the text is no forward.
    """
    return checked(Forward.parse(spec), Allow(public=True, privileged=True))


def _check_free(forward: Forward, box: Box, known: Sequence[Status]) -> None:
    if forward.kind is ForwardKind.REMOTE:
        return
    if forward.listen.startswith("/"):
        _check_socket(Path(forward.listen))
        return
    host, _, port = forward.listen.rpartition(":")
    number = int(port)
    if ports.is_free(number, host.strip("[]")) if host != "*" else ports.is_free(number, ""):
        return
    free = ports.next_free(number + 1)
    rest = f":{forward.target}" if forward.target else ""
    prefix = "D:" if forward.kind is ForwardKind.DYNAMIC else ""
    raise UsageError(
        f"port {number} on this side is taken",
        why=f"by {who_holds(number, known)}",
        fix=f"roost tunnel open {box.name} {prefix}{free}{rest}",
    )


def who_holds(port: int, known: Sequence[Status]) -> str:
    """Who listens on the local ``port``: one of our tunnels, or a program."""
    for status in known:
        for found in status.forwards:
            forward = Forward.parse(found.spec)
            if forward.kind is not ForwardKind.REMOTE and forward.listen.endswith(f":{port}"):
                return f"the tunnel to {status.box} ({found.spec})"
    return str(ports.holder(port) or "a program that this user may not see")


def _check_socket(path: Path) -> None:
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} does not exist", fix=f"mkdir -p {path.parent}")
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        # ssh would remove it without a word.
        raise UsageError(f"{path} exists, and is not a socket", fix="name another path")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise UsageError(f"somebody listens on {path} already", fix="name another path")


def _exchange(there: Places, message: bytes) -> dict[str, Any] | None:
    """One request and its answer; None where nobody answers."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_ANSWER_SECONDS)
        try:
            line.connect(str(there.socket))
            line.sendall(message)
            with line.makefile("rb") as file:
                answer = file.readline()
        except OSError:
            return None
    return dict(json.loads(answer)) if answer.endswith(b"\n") else None


def _start(there: Places, environ: Mapping[str, str]) -> Any:
    arguments = [sys.executable, "-m", "roost.supervisor"]
    folders = [str(there.runtime.parent), str(there.state.parent)]
    handle = os.open(there.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(handle).st_size > 1 << 20:
        os.truncate(handle, 0)
    with os.fdopen(handle, "w") as log:
        return process.start(
            [*arguments, *folders],
            stdout=log,
            stderr=log,
            env=environ,
            cwd=Path("/"),
            new_session=True,
        )
