"""Background jobs: tmux sessions on a box that keep their own log, state and exit code.

The part that runs on the box is in ``roost.onbox``. It is sent along with each request, so that
there is nothing to install there and nothing to become outdated; what it keeps is in the
person's own ``~/.local/state/roost/jobs``.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from roost import onbox, terminal
from roost.errors import RoostError, SshError, UnreachableError, UsageError
from roost.job_model import Job, Keep, check_name, default_name
from roost.job_stream import At, Remote, Result, ask, bundle, talk

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 30.0


def start(
    remote: Remote,
    argv: Sequence[str],
    *,
    name: str | None = None,
    folder: str = "",
    venv: str = "",
    env: Mapping[str, str] | None = None,
    queue: int | None = None,
    keep: Keep | None = None,
) -> Job:
    """Start a job and return once its command runs (or could not be started: see its state).

    Args:
        remote: the box.
        argv: the command; these very arguments arrive, whatever the login shell is.
        name: its name; None: made from the command.
        folder: the folder to run in, absolute or below the home there; empty: the home.
        venv: a virtual environment: a path there, or a name in ``~/.venvs`` or ``/opt/roost/envs``.
        env: further environment variables. They travel on standard input, not as arguments.
        queue: let it wait for its turn; run so many queued jobs of that box at a time from now
            on, 0: as many as before (1 at first). None: start it at once.
        keep: which old jobs stay.

    Raises:
        UsageError: the name cannot be one, or there is no command.
        RoostError: the box refuses, and says why.
    """
    if not argv or not argv[0]:
        raise UsageError("there is no command to run", fix="roost run BOX -- COMMAND [ARGUMENT…]")
    if any("\0" in word for word in argv):
        raise UsageError("an argument holds a NUL character, which no program can be given")
    spec = {
        "name": check_name(name) if name else default_name(argv),
        "exact": name is not None,
        "argv": list(argv),
        "dir": folder,
        "venv": venv,
        "env": dict(env or {}),
        "queue": queue is not None,
        "at_once": queue,
    }
    answer = ask(
        remote,
        {
            "op": "start",
            "job": spec,
            "runner": bundle(onbox.RUNNER, "runner.main()"),
            "keep": asdict(keep or Keep()),
        },
    )
    return _job(remote, answer)


def listing(remote: Remote, *, every_run: bool = False) -> list[Job]:
    """The jobs on a box, the oldest first; of each name the newest run, or every one."""
    return [_job(remote, one) for one in ask(remote, {"op": "list", "all": every_run})]


def state(remote: Remote, name: str) -> Job:
    """One job as it stands: the newest run called ``name``, or the one with that id.

    Raises:
        RoostError: there is none.
    """
    return _job(remote, ask(remote, {"op": "show", "name": name}))


def stop(remote: Remote, name: str, *, signal: int = 15, grace: float = 10.0) -> Job:
    """End a job and all that it started, and return it as it then stands.

    Args:
        remote: the box.
        name: the job.
        signal: the number of the signal that asks it to end.
        grace: seconds after which what has not ended is killed.
    """
    request = {"op": "stop", "name": name, "signal": signal, "grace": grace}
    return _job(remote, ask(remote, request))


def log(remote: Remote, name: str, *, tail: int | None = None) -> str:
    """What a job has printed, as a terminal would show it.

    Args:
        remote: the box.
        name: the job.
        tail: the last lines alone; None: all.
    """
    parts = follow(remote, name, tail=tail, wait=False)
    return terminal.render(b"".join(p for p in parts if isinstance(p, bytes)))


def wait(remote: Remote, name: str, *, lost: Callable[[RoostError], None] = lambda _: None) -> Job:
    """Wait for a job's end, over as many connections as that takes, and return it."""
    *_, last = follow(remote, name, data=False, lost=lost)
    assert isinstance(last, Job)  # noqa: S101 - a stream ends with the job or with an error
    return last


def follow(
    remote: Remote,
    name: str,
    *,
    tail: int | None = None,
    since: float | None = None,
    wait: bool = True,
    data: bool = True,
    lost: Callable[[RoostError], None] = lambda _: None,
) -> Iterator[bytes | Job]:
    """The bytes of a job's log, each exactly once, and at last the job as it then stands.

    A connection that breaks is made again, as often as it takes, and the log goes on with the
    next byte. The first one has to succeed.

    Args:
        remote: the box.
        name: the job.
        tail: begin with this many lines before the end.
        since: begin with what was printed after this time, in seconds since 1970; negative:
            seconds before now, by the box's clock.
        wait: go on until the job has ended; otherwise until the end of what is there.
        data: give the log; otherwise wait for the end alone.
        lost: told of each connection that was lost.

    Raises:
        RoostError: the box cannot be reached at first, or refuses.
    """
    offset, contact, pause = 0, False, FIRST_PAUSE
    while True:
        request = {"op": "follow", "name": name, "wait": wait, "data": offset if data else None}
        if not contact:
            request.update(tail=tail, since=since)
        try:
            for part in talk(remote, request, alone=contact):
                if isinstance(part, At):
                    offset, name = part.offset, part.job
                    contact, pause = True, FIRST_PAUSE
                elif isinstance(part, Result):
                    yield _job(remote, part.value)
                    return
                else:
                    offset += len(part)
                    yield part
        except (SshError, UnreachableError) as error:
            if not contact:
                raise
            lost(error)
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)


@dataclass(frozen=True)
class Sessions:
    """The person's own tmux sessions on a box.

    Attributes:
        sessions: each with name, created (seconds since 1970), attached clients and windows.
        lost: the names of those that a reboot has ended since they were last asked for.
        rebooted: when the box booted, in seconds since 1970.
    """

    sessions: list[dict[str, Any]]
    lost: list[str]
    rebooted: float


def prune(remote: Remote, keep: Keep) -> list[str]:
    """Remove old jobs that have ended, and return their ids."""
    gone: list[str] = ask(remote, {"op": "prune", "keep": asdict(keep)})
    return gone


def sessions(remote: Remote, *, make: str | None = None) -> Sessions:
    """The tmux sessions there that are not jobs, as they were before.

    Args:
        remote: the box.
        make: a session to make where there is none of that name.
    """
    return Sessions(**ask(remote, {"op": "sessions", "make": make}))


def attach_script(job: Job) -> str:
    """What attaches to a job, as text for ``sh`` on a terminal of the box."""
    hint = "Ctrl-C leaves; the job goes on"
    attach = ["exec", "tmux", "-u", "attach-session", "-t", f"={job.session}:", ";"]
    return shlex.join([*attach, "display-message", "-d", "4000", hint])


def _shown(word: str) -> str:
    """An argument that may be printed: what is no UTF-8 in it is replaced."""
    return word.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _job(remote: Remote, answer: Mapping[str, Any]) -> Job:
    known = {k: v for k, v in answer.items() if k in Job.__dataclass_fields__}
    for key in ("argv", "env"):
        known[key] = tuple(_shown(word) for word in known.get(key) or ())
    return Job(**{**known, "box": remote.box.name})
