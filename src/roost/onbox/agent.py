"""Answer one request about jobs and tmux sessions.

The answer on standard output is a mark, then frames: ``o OFFSET JOB``, where a log begins;
``d N`` and N bytes of it; ``k`` now and then, so that a dead connection is noticed; and last
``e`` with the result (``r``: with a refusal) as JSON.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from roost.onbox.files import read_json, write_json
from roost.onbox.proc import alive, boot
from roost.onbox.pruning import prune
from roost.onbox.reading import KEEPALIVE, emit, follow
from roost.onbox.store import (
    GOING,
    HOME,
    JOBS,
    Job,
    RefusalError,
    describe,
    find,
    job_folder,
    listing,
    new_folder,
    processes_of,
    run_number,
)
from roost.onbox.tmux import open_job, sessions

MARK = "\x1eroost 1\n"
STARTED = 30.0

Request = dict[str, Any]


def start(request: Request) -> Job:
    """Start a job and answer once its command runs, waits for its turn, or has failed.

    Raises:
        RefusalError: the job cannot be as it is asked for.
    """
    prune(**request["keep"])
    spec = dict(request["job"])
    spec["dir"] = folder_of(spec.get("dir") or "")
    if spec.get("venv"):
        spec["venv"] = venv_of(spec["venv"])
    if spec.get("queue") and not shutil.which("tsp"):
        fix = "roost ssh BOX -- sudo apt-get install task-spooler"
        raise RefusalError("task-spooler, which keeps the queue, is not installed", fix=fix)
    with one_at_a_time():
        job_id = found(spec, request["runner"])
    deadline = time.time() + STARTED
    while (job := describe(job_id))["state"] == "starting" and time.time() < deadline:
        time.sleep(0.02)
    return job


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let no other request take the name that this one has found free."""
    os.makedirs(JOBS, mode=0o700, exist_ok=True)
    with open(os.path.join(JOBS, ".lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def found(spec: dict[str, Any], runner: str) -> str:
    """Make a job's folder and its tmux session, and return its id.

    Raises:
        RefusalError: its name is taken, or tmux refuses.
    """
    name = free_name(spec["name"], exact=spec.pop("exact"))
    folder = new_folder(name)
    job_id = os.path.basename(folder)
    spec.update(id=job_id, name=name, run=run_number(job_id), boot=boot()[0])
    spec.update(created=time.time(), session="job-" + name)
    try:
        with open(os.path.join(folder, "run.py"), "w", encoding="utf-8") as file:
            file.write(runner)
        write_json(os.path.join(folder, "job.json"), spec)
        open_job(spec, folder)
    except (RefusalError, OSError):
        shutil.rmtree(folder)
        raise
    return job_id


def free_name(name: str, *, exact: bool) -> str:
    """``name``, or where it need not be exact and a job has it: the next one with a number.

    Raises:
        RefusalError: it has to be exact, and a job that has not ended has it.
    """
    taken = {j["name"] for j in listing() if j["state"] in GOING or j["writing"]}
    if name not in taken:
        return name
    if exact:
        raise RefusalError(
            f"a job called {name} has not ended yet",
            fix=f"give this one another name (-n), or: roost stop BOX {name}",
        )
    return next(n for n in (f"{name}-{i}" for i in range(2, 10**6)) if n not in taken)


def folder_of(text: str) -> str:
    """The folder to run in: an absolute path, or one below the home.

    Raises:
        RefusalError: there is none.
    """
    path = os.path.normpath(os.path.join(HOME, os.path.expanduser(text)))
    if not os.path.isdir(path):
        raise RefusalError(f"there is no folder {path}", fix="make it, or give another --dir")
    return path


def venv_of(text: str) -> str:
    """A virtual environment: a path, or the name of one of the person's or of the box's own.

    Raises:
        RefusalError: there is none.
    """
    places = [os.path.join(HOME, os.path.expanduser(text))]
    if "/" not in text:
        places += [os.path.join(HOME, ".venvs", text), os.path.join("/opt/roost/envs", text)]
    for place in places:
        if os.access(os.path.join(place, "bin", "python"), os.X_OK):
            return place
    raise RefusalError(f"no virtual environment {text}", "looked for " + ", ".join(places))


def stop(request: Request) -> Job:
    """Ask a job to end, and have it killed where it has not after ``grace`` seconds."""
    job_id = find(request["name"])
    folder = job_folder(job_id)
    process = read_json(folder + "/state.json").get("process", {})
    runner, begun = process.get("runner"), process.get("runner_started")
    if alive(runner, begun):
        write_json(folder + "/stop", {"signal": request["signal"], "grace": request["grace"]})
        os.kill(runner, signal.SIGTERM)
        patiently(lambda: not alive(runner, begun), request["grace"] + 15)
    spec = read_json(folder + "/job.json")
    for number, seconds in ((request["signal"], request["grace"]), (signal.SIGKILL, 5)):
        # Its terminal is closed, and these have left it before.
        for pid in processes_of(spec):
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        patiently(lambda: not processes_of(spec), seconds)
    return describe(job_id)


def patiently(done: Callable[[], bool], seconds: float) -> None:
    """Wait until something is done, but no longer than that."""
    deadline, said = time.time() + seconds, time.time()
    while not done() and time.time() < deadline:
        if time.time() - said > KEEPALIVE:
            emit("k\n")
            said = time.time()
        time.sleep(0.02)


OPERATIONS: dict[str, Callable[[Request], Any]] = {
    "start": start,
    "list": lambda request: listing(every_run=request["all"]),
    "show": lambda request: describe(find(request["name"])),
    "stop": stop,
    "follow": follow,
    "prune": lambda request: prune(**request["keep"]),
    "sessions": lambda request: sessions(request.get("make")),
}


def main(request: Request) -> None:
    """Carry out one request and write the answer."""
    try:
        emit(MARK)
        emit(f"e {json.dumps(OPERATIONS[request['op']](request))}\n")
    except RefusalError as refusal:
        emit(f"r {json.dumps(refusal.args)}\n")
    except BrokenPipeError:
        # The connection is gone, and with it whoever asked.
        os._exit(0)
    except OSError as error:
        emit(f"r {json.dumps([f'its system refuses: {error}', None, None])}\n")
