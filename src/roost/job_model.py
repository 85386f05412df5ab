"""A background job as a value, how long it is kept, and what it may be called."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from roost.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")
OVER = frozenset({"done", "failed", "stopped", "lost"})


@dataclass(frozen=True)
class Keep:
    """Which jobs are kept after their end.

    Attributes:
        days: those that ended no longer ago than that.
        size: of these the newest, as long as all logs together have at most so many bytes.
    """

    days: float = 30.0
    size: int = 2 << 30


@dataclass(frozen=True)
class Job:
    """One run of a command on a box, as the box describes it.

    Attributes:
        box: where it runs.
        id: its name and the number of its run, ``train.1``.
        name: its name.
        argv: the command.
        state: ``queued``, ``starting``, ``running``; ``done`` (exit code 0), ``failed``,
            ``stopped`` (on request) or ``lost`` (nobody was left to see its end).
        dir: the folder that it runs in.
        venv: its virtual environment; empty for none.
        env: the names of the variables that it was given.
        session: its tmux session.
        created: when it was asked for, in seconds since 1970; likewise ``start``, ``end`` and
            ``rebooted``, the time at which the box booted anew after the job was lost.
        code: its exit code; 128 and the number of the signal that killed it.
        signal: the name of that signal.
        reason: more about its end, where there is more to say.
        cpu_user: seconds of processor time; likewise ``cpu_system``, spent in the kernel.
        max_rss_kib: the most memory that one of its processes held, in KiB.
        log_size: bytes of its log.
        left: how many of its processes go on after its end.
        writing: whether its session is there: it has not ended, or what it left uses its terminal.
    """

    box: str
    id: str
    name: str
    argv: tuple[str, ...]
    state: str
    dir: str = ""
    venv: str = ""
    env: tuple[str, ...] = ()
    session: str = ""
    created: float = 0.0
    start: float | None = None
    end: float | None = None
    rebooted: float | None = None
    code: int | None = None
    signal: str | None = None
    reason: str | None = None
    cpu_user: float | None = None
    cpu_system: float | None = None
    max_rss_kib: int | None = None
    log_size: int = 0
    left: int = 0
    writing: bool = False

    @property
    def over(self) -> bool:
        """Whether its command has ended."""
        return self.state in OVER

    def seconds(self, now: float | None = None) -> float | None:
        """How long it ran, or has been running; None where that is not known."""
        if self.start is None or (self.over and self.end is None):
            return None
        return max(0.0, (self.end or now or time.time()) - self.start)

    def as_json(self) -> dict[str, Any]:
        """Its attributes, for ``--json``."""
        return {**asdict(self), "seconds": self.seconds()}


def check_name(name: str) -> str:
    """``name``, where a job (and its tmux session) can be called that.

    Raises:
        UsageError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a job",
            why="a name holds letters, digits, _ and -, and at most 63 of them",
            fix=f"try: -n {_plain(name) or 'job'}",
        )
    return name


def default_name(argv: Sequence[str]) -> str:
    """A name from a command: of its script where it has one, else of the program."""
    program = PurePosixPath(argv[0]).name
    if re.fullmatch(r"(?:python|bash|sh|Rscript|julia|node)[\d.]*", program):
        script = next((w for w in argv[1:] if re.fullmatch(r"[^-].*\.\w+", w)), None)
        program = PurePosixPath(script).stem if script else program
    return _plain(program) or "job"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:40]
