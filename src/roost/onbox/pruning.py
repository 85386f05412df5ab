"""Remove old jobs, by age and by size."""

import os
import shutil
import time

from roost.onbox.store import GOING, Job, job_folder, listing


def prune(days: float, size: int) -> list[str]:
    """Remove jobs that have ended, and return their ids.

    Args:
        days: those that ended longer ago than that.
        size: of the rest the oldest, until all logs together have at most so many bytes.
    """
    jobs = listing(every_run=True)
    over = [j for j in jobs if j["state"] not in GOING and not j["left"]]
    total = sum(int(j["log_size"]) for j in jobs)
    limit = time.time() - days * 86400
    gone = []
    for job in sorted(over, key=ended):
        if ended(job) < limit or total > size:
            # Renamed first: what is half removed is not taken for a job.
            doomed = job_folder(".gone-" + job["id"])
            os.rename(job_folder(job["id"]), doomed)
            shutil.rmtree(doomed, ignore_errors=True)
            total -= int(job["log_size"])
            gone.append(str(job["id"]))
    return gone


def ended(job: Job) -> float:
    """When a job ended, or, where nobody saw that, when it was asked for."""
    return float(job.get("end") or job.get("created") or 0)
