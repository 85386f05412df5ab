"""The folders of the jobs: which there are, and what became of each.

A job's folder is ``~/.local/state/roost/jobs/NAME.N``, where N counts the runs of that name.
"""

import os
import re
import time
from typing import Any

from roost.onbox.files import read_json
from roost.onbox.proc import alive, boot, marks

HOME = os.path.expanduser("~")
STATE = os.path.join(HOME, ".local", "state", "roost")
JOBS = os.path.join(STATE, "jobs")
OVER = ("ended", "stopped", "lost")
GOING = ("queued", "starting", "running")
# What the processes of a job have in their environment, and those of no other job.
MARK = "ROOST_JOB_MARK"

Job = dict[str, Any]


class RefusalError(Exception):
    """What was found, why that stops it, and what mends it."""

    def __init__(self, what: str, why: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, why, fix)


def job_folder(job_id: str) -> str:
    """Where a job is kept."""
    return os.path.join(JOBS, job_id)


def name_of(job_id: str) -> str:
    """The name of a job, without the number of its run."""
    return job_id.rpartition(".")[0]


def run_number(job_id: str) -> int:
    """Which run of its name a job is."""
    return int(job_id.rpartition(".")[2])


def job_ids() -> list[str]:
    """Every job, in no order."""
    try:
        names = os.listdir(JOBS)
    except OSError:
        return []
    return [n for n in names if re.fullmatch(r"[\w-]+\.[0-9]+", n)]


def describe(
    job_id: str,
    now_boot: tuple[str, float] | None = None,
    at_work: dict[str, list[int]] | None = None,
) -> Job:
    """A job as it stands: what was asked for, and what became of it.

    Args:
        job_id: the job.
        now_boot: this boot, where it is known already.
        at_work: the processes of all jobs, where they are known already: a look at each process
            of the box.
    """
    this_boot, booted = now_boot or boot()
    folder = job_folder(job_id)
    spec, kept = read_json(folder + "/job.json"), read_json(folder + "/state.json")
    process = kept.pop("process", {})
    job: Job = {k: v for k, v in spec.items() if k != "boot"}
    job.update({"env": sorted(spec.get("env") or {}), "state": "starting", **kept})
    job["log_size"] = size(folder + "/log")
    running = alive(process.get("runner"), process.get("runner_started"))
    over = job["state"] in OVER
    if spec.get("boot") != this_boot:
        if not over or job["state"] == "lost":
            job.update(state="lost", reason="box rebooted", rebooted=booted)
    elif not over and not running and (process or time.time() - spec.get("created", 0) > 30):
        job.update(state="lost", reason="the process that kept its log was killed")
    elif job["state"] == "lost":
        job.setdefault("reason", "its tmux session was ended")
    if job["state"] == "ended":
        job["state"] = "done" if job.get("code") == 0 else "failed"
    still = job["state"] not in GOING and spec.get("boot") == this_boot
    if still and at_work is None:
        at_work = marks(MARK)
    job["left"] = len((at_work or {}).get(mark_of(spec), ())) if still else 0
    job["writing"] = running
    return job


def mark_of(spec: Job) -> str:
    """The value of ``MARK`` for a job."""
    return f"{spec.get('id')}/{spec.get('created')}"


def processes_of(spec: Job) -> list[int]:
    """The processes of a job."""
    return marks(MARK).get(mark_of(spec), [])


def size(path: str) -> int:
    """A file's size in bytes; 0 where it is missing."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def find(name: str) -> str:
    """The id of the job called ``name``: its newest run, unless the name ends in a run's number.

    Raises:
        RefusalError: there is none.
    """
    ids = job_ids()
    if name in ids:
        return name
    runs = [i for i in ids if name_of(i) == name]
    if not runs:
        known = sorted({name_of(i) for i in ids})
        raise RefusalError(
            f"no job is called {name}",
            "there are: " + ", ".join(known) if known else "there are no jobs here",
        )
    return max(runs, key=run_number)


def listing(*, every_run: bool = False) -> list[Job]:
    """Every job, the oldest first; of each name the newest run alone, unless told otherwise."""
    ids = sorted(job_ids(), key=run_number)
    if not every_run:
        ids = list({name_of(i): i for i in ids}.values())
    now_boot, at_work = boot(), marks(MARK)
    jobs = [describe(i, now_boot, at_work) for i in ids]
    return sorted((j for j in jobs if "id" in j), key=lambda j: float(j["created"]))


def new_folder(name: str) -> str:
    """Make the folder of the next run of ``name``; whoever makes it owns the number."""
    os.makedirs(JOBS, mode=0o700, exist_ok=True)
    os.chmod(JOBS, 0o700)
    number = 1 + max((run_number(i) for i in job_ids() if name_of(i) == name), default=0)
    while True:
        folder = job_folder(f"{name}.{number}")
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            number += 1
        else:
            return folder
