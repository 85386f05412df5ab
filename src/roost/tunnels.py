"""Open, close and list tunnels: the client of the supervisor.

Every call finds the supervisor, or starts it, and ends as soon as the answer is there; what was
asked for goes on without it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from roost import ports
from roost.errors import RoostError, UsageError
from roost.forwards import NOTHING_SPECIAL, Allow, check_free, checked, who_holds
from roost.model import Box, Fleet, Forward, ForwardKind
from roost.paths import Paths
from roost.ssh_failure import explain_failure
from roost.supervisor.client import ask
from roost.supervisor.protocol import Status, Wish, places

_OPEN_SECONDS = 90.0
_RETURN_SECONDS = 15.0
# What a local port is remembered for.
USES = ("lab", "socks", "pac")


@dataclass(frozen=True)
class Purpose:
    """What a tunnel is for.

    Attributes:
        label: for people: ``lab``, ``proxy`` or nothing.
        speaks: for a forward's text what is spoken through it: ``http PATH`` or ``ssh``.
        pac: for a proxy, the local port and the text of the script that browsers ask.
    """

    label: str = ""
    speaks: Mapping[str, str] = field(default_factory=dict)
    pac: tuple[int, str] | None = None


JUST_FORWARDS = Purpose()


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
        purpose: Purpose = JUST_FORWARDS,
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
            purpose: what they are for. For forwards that are open already it may change.
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
            check_free(forward, box, known, verb=purpose.label)
        wishes = [
            _wish(box, config, [f.spec for f in s.forwards], purpose)
            for s in mine
            if {f.spec for f in s.forwards} & set(map(str, wanted))
        ]
        opened = [self._open_one(wish, box, fleet, fresh=False) for wish in wishes]
        new: list[Status] = []
        try:
            for remote in (False, True):
                part = [str(f) for f in fresh if (f.kind is ForwardKind.REMOTE) is remote]
                if part:
                    new.append(self._open_one(_wish(box, config, part, purpose), box, fleet))
        except BaseException:
            self.close(s.id for s in new)
            raise
        return opened + new

    def _open_one(self, wish: Wish, box: Box, fleet: Fleet | None, *, fresh: bool = True) -> Status:
        """Ask for the tunnel, and wait until it is up.

        Where that fails, a fresh one is closed again: a command that fails, or is stopped,
        leaves nothing behind that tries on in secret. One that was there before tries on.
        """
        tries = 0 if fresh else self._find(wish.id, box)[0].tries
        ask(self.places, self.environ, {"do": "open", "wish": dataclasses.asdict(wish)})
        try:
            deadline = time.monotonic() + (_OPEN_SECONDS if fresh else _RETURN_SECONDS)
            while True:
                status, said = self._find(wish.id, box)
                if status.state == "up":
                    return status
                late = time.monotonic() > deadline
                if late or (status.state == "down" and status.tries > tries):
                    raise _explain(wish, box, status.why, said, fleet)
                time.sleep(0.03)
        except BaseException:
            if fresh:
                self.close([wish.id])
            raise

    def _find(self, wish_id: str, box: Box) -> tuple[Status, str]:
        """The tunnel of this id, and what its ssh said."""
        for raw in ask(self.places, self.environ, {"do": "list"})["tunnels"]:
            if raw["id"] == wish_id:
                return Status.from_json(raw), str(raw.get("said", ""))
        raise RoostError(f"the tunnel to {box.name} was closed meanwhile")

    @property
    def port_memory(self) -> ports.PortMemory:
        """The local ports of earlier calls."""
        return ports.PortMemory(self.places.state / "ports.json")

    def forget(self, config: Path, box: str) -> list[Status]:
        """Close every tunnel to a box that is gone, and keep no local port for it.

        Args:
            config: the ssh config that knew the box.
            box: its name.

        Returns:
            The tunnels that were open.

        Raises:
            RoostError: the supervisor cannot be reached, or the ports cannot be written.
        """
        mine = [s for s in self.list() if (s.box, s.config) == (box, str(config))]
        self.close(s.id for s in mine)
        try:
            self.port_memory.forget(*(_port_key(use, config, box) for use in USES))
        except OSError as error:
            raise RoostError(
                f"{self.port_memory.path} cannot be written: {error.strerror}"
            ) from error
        return mine

    def same_port_as_ever(
        self, use: str, config: Path, box: str, first: int, known: Sequence[Status]
    ) -> tuple[int, str]:
        """A free local port for one use of one box: that of the last time, if it can be had.

        Args:
            use: what the port is for, one of ``USES``.
            config: the ssh config that knows the box.
            box: its name.
            first: where to begin the first time.
            known: the tunnels that are open, one of which may hold the port.

        Returns:
            The port, and what the user should know about it, if anything.
        """
        port, wanted = self.port_memory.choose(_port_key(use, config, box), first)
        if port == wanted:
            return port, ""
        return port, f"port {wanted} is taken by {who_holds(wanted, known)}; this is {port} now"

    def close(self, ids: Iterable[str]) -> None:
        """Close the tunnels with these ids; nothing of them is left when this returns.

        Raises:
            RoostError: the supervisor cannot be reached or started.
        """
        wanted = [*ids]
        if wanted:
            ask(self.places, self.environ, {"do": "close", "ids": wanted})

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
        answer = ask(self.places, self.environ, {"do": "list", "ask": probe})
        return [Status.from_json(raw) for raw in answer["tunnels"]]


def _port_key(use: str, config: Path, box: str) -> str:
    return f"{use} {config} {box}"


def _wish(box: Box, config: Path, specs: Sequence[str], purpose: Purpose) -> Wish:
    speaks = {spec: words for spec, words in purpose.speaks.items() if spec in specs}
    label, pac = purpose.label, purpose.pac
    return Wish(box.name, str(config), tuple(specs), label, speaks, pac, box.door)


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
