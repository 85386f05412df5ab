"""Answer one request about jobs and tmux sessions; sent to a box's ``python3 -`` on every call.

``REQUEST``, a dictionary, is put in front of this text. The answer on standard output is a mark,
then frames: ``d N`` and N bytes of a log, ``k`` now and then so that a dead connection is
noticed, and ``e`` with the result (``r``: with a refusal) as JSON, which ends it.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

MARK = "\x1eroost 1\n"
KEEPALIVE = 10.0
POLL = 0.1
TABLE = "roost-job"
HOME = os.path.expanduser("~")
JOBS = os.path.join(HOME, ".local", "state", "roost", "jobs")

Job = dict[str, Any]


class RefusalError(Exception):
    """What was found, why that stops it, and what mends it."""

    def __init__(self, what: str, why: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, why, fix)


def emit(text: str) -> None:
    sys.stdout.buffer.write(text.encode("ascii"))
    sys.stdout.buffer.flush()


def read_json(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: str, value: object) -> None:
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)


# --- the boot, and processes of it


def stat_fields(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def boot() -> tuple[str, float]:
    """What tells this boot from every other, and when it was (seconds since 1970).

    A container is restarted without its kernel: the start of process 1 counts, too.
    """
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        kernel = file.read().strip()
    with open("/proc/stat", encoding="ascii") as file:
        booted = next(int(s.split()[1]) for s in file if s.startswith("btime "))
    first = stat_fields(1)
    ticks = int(first[19]) if first else 0
    return f"{kernel}/{ticks}", booted + ticks / os.sysconf("SC_CLK_TCK")


def alive(pid: int | None, started: str | None) -> bool:
    fields = stat_fields(pid) if pid else []
    return bool(fields) and fields[19] == started and fields[0] != "Z"


# --- jobs


def describe(job_id: str, now_boot: tuple[str, float]) -> Job:
    """A job as it stands: what was asked for, and what became of it."""
    folder = os.path.join(JOBS, job_id)
    spec, state = read_json(folder + "/job.json"), read_json(folder + "/state.json")
    job: Job = {k: v for k, v in spec.items() if k != "boot"}
    job["env"] = sorted(spec.get("env") or {})
    job["state"] = state.pop("state", "starting")
    running = alive(state.pop("runner", None), state.pop("runner_started", None))
    leader = state.pop("leader", None)
    for key in ("pid", "pid_started"):
        state.pop(key, None)
    job.update(state)
    try:
        job["log_size"] = os.path.getsize(folder + "/log")
    except OSError:
        job["log_size"] = 0
    over = job["state"] in ("ended", "stopped", "lost")
    if spec.get("boot") != now_boot[0]:
        if not over or job["state"] == "lost":
            job.update(state="lost", reason="box rebooted", rebooted=now_boot[1])
    elif not running and not over and (state or time.time() - spec.get("created", 0) > 30):
        job.update(state="lost", reason="the process that kept its log was killed")
    elif job["state"] == "lost":
        job.setdefault("reason", "its tmux session was ended")
    if job["state"] == "ended":
        job["state"] = "done" if job.get("code") == 0 else "failed"
    job["left"] = len(session_members(leader)) if running and over and leader else 0
    return job


def session_members(leader: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != leader:
            fields = stat_fields(int(name))
            if fields and int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(name))
    return found


def job_ids() -> list[str]:
    try:
        names = os.listdir(JOBS)
    except OSError:
        return []
    return [n for n in names if re.match(r".*\.[0-9]+$", n)]


def run_number(job_id: str) -> int:
    return int(job_id.rpartition(".")[2])


def find(name: str) -> str:
    """The id of the job called ``name``: of its newest run, unless the name ends in a run's number.

    Raises:
        RefusalError: there is none.
    """
    ids = job_ids()
    if name in ids:
        return name
    runs = [i for i in ids if i.rpartition(".")[0] == name]
    if not runs:
        known = sorted({i.rpartition(".")[0] for i in ids})
        raise RefusalError(
            f"no job is called {name}",
            "there are: " + ", ".join(known) if known else "there are no jobs here",
            None,
        )
    return max(runs, key=run_number)


def listing(request: dict[str, Any]) -> list[Job]:
    """Every job, the oldest first; of each name the newest run alone, unless ``all``."""
    ids = job_ids()
    if not request.get("all"):
        newest: dict[str, str] = {}
        for job_id in sorted(ids, key=run_number):
            newest[job_id.rpartition(".")[0]] = job_id
        ids = list(newest.values())
    now_boot = boot()
    jobs = [describe(i, now_boot) for i in ids]
    return sorted((j for j in jobs if "id" in j), key=lambda j: float(j.get("created", 0)))


# --- tmux


def tmux(*args: str, check: bool = True, stdin: str = "") -> str:
    """Run a tmux command on the person's own server.

    Raises:
        RefusalError: tmux is not installed, or (with ``check``) it failed.
    """
    try:
        done = subprocess.run(
            ["tmux", "-u", *args],  # noqa: S607 - the person's own PATH decides
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise RefusalError("tmux is not installed", fix="roost up BOX --tags tmux") from None
    if check and done.returncode:
        raise RefusalError(f"tmux failed: {done.stderr.strip()}")
    return done.stdout


def sessions(request: dict[str, Any]) -> dict[str, Any]:
    """The person's tmux sessions that are not jobs, and those that a reboot has ended."""
    form = "#{session_created} #{session_attached} #{session_windows} #{@roost_job} #{session_name}"
    found = []
    for line in tmux("list-sessions", "-F", form, check=False).splitlines():
        created, attached, windows, job, name = line.split(" ", 4)
        numbers = {"created": int(created), "attached": int(attached), "windows": int(windows)}
        if not job:
            found.append({"name": name, **numbers})
    path = os.path.join(os.path.dirname(JOBS), "sessions.json")
    kept, (this_boot, booted) = read_json(path), boot()
    before = [] if kept.get("boot") in (None, this_boot) else kept["names"]
    names = {str(s["name"]) for s in found} | {n for n in [request.get("keep")] if n}
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    write_json(path, {"boot": this_boot, "names": sorted(names)})
    return {"sessions": found, "lost": before, "rebooted": booted}


def open_session(spec: Job, folder: str) -> None:
    """Start the runner in a session of its own, in which Ctrl-C leaves and does not kill."""
    name = spec["session"]
    runner = [sys.executable, "-I", os.path.join(folder, "run.py"), folder]
    target = f"={name}:"
    tmux(
        *("new-session", "-d", "-s", name, "-n", spec["name"], "-x", "120", "-y", "40"),
        *("--", *runner, ";", "set-option", "-t", target, "@roost_job", spec["id"]),
        # What a person's own configuration may say of sessions must not end or keep a job.
        *(";", "set-option", "-t", target, "destroy-unattached", "off"),
        *(";", "set-option", "-w", "-t", target, "remain-on-exit", "off"),
        *(";", "set-option", "-w", "-t", target, "automatic-rename", "off"),
        *(";", "set-option", "-t", target, "key-table", TABLE),
    )
    keys = tmux("list-keys", "-T", "root", check=False)
    copied = [
        re.sub(r"^(bind-key\s+(?:-r\s+)?-T )root\b", r"\1" + TABLE, k) for k in keys.splitlines()
    ]
    bindings = [*copied, f"bind-key -T {TABLE} C-c detach-client"]
    tmux("source-file", "-", check=False, stdin="\n".join(bindings) + "\n")


# --- requests


def start(request: dict[str, Any]) -> Job:
    """Start a job and answer once its command runs, or could not be started."""
    os.makedirs(JOBS, mode=0o700, exist_ok=True)
    os.chmod(JOBS, 0o700)
    spec = dict(request["job"])
    spec["dir"] = folder_of(spec.get("dir") or "")
    if spec.get("venv"):
        spec["venv"] = venv_of(spec["venv"])
    now_boot = boot()
    taken = {j["name"] for j in listing({}) if j["state"] in ("starting", "running", "queued")}
    name = spec["name"]
    if name in taken:
        if spec.pop("exact"):
            raise RefusalError(
                f"a job called {name} is running already",
                None,
                f"give this one another name (-n), or: roost stop BOX {name}",
            )
        name = next(n for n in (f"{name}-{i}" for i in range(2, 10**6)) if n not in taken)
    spec.pop("exact", None)
    folder = new_folder(name)
    job_id = os.path.basename(folder)
    spec.update(id=job_id, name=name, run=run_number(job_id), boot=now_boot[0])
    spec.update(created=time.time(), session="job-" + name)
    with open(os.path.join(folder, "run.py"), "w", encoding="utf-8") as file:
        file.write(request["runner"])
    write_json(os.path.join(folder, "job.json"), spec)
    try:
        open_session(spec, folder)
    except RefusalError:
        shutil.rmtree(folder)
        raise
    deadline = time.time() + 30
    while time.time() < deadline:
        job = describe(job_id, boot())
        if job["state"] != "starting":
            return job
        time.sleep(0.02)
    return job


def new_folder(name: str) -> str:
    """Make the folder of the next run of ``name``; whoever makes it owns the number."""
    number = 1 + max([run_number(i) for i in job_ids() if i.rpartition(".")[0] == name] or [0])
    while True:
        folder = os.path.join(JOBS, f"{name}.{number}")
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            number += 1
        else:
            return folder


def folder_of(text: str) -> str:
    """The folder to run in: an absolute path, or one below the home."""
    path = os.path.normpath(os.path.join(HOME, os.path.expanduser(text)))
    if not os.path.isdir(path):
        raise RefusalError(f"there is no folder {path}", fix="make it, or give another --dir")
    return path


def venv_of(text: str) -> str:
    """A virtual environment: a path, or the name of one of the person's or of the box's own."""
    places = [os.path.join(HOME, os.path.expanduser(text))]
    if "/" not in text:
        places += [os.path.join(HOME, ".venvs", text), os.path.join("/opt/roost/envs", text)]
    for place in places:
        if os.access(os.path.join(place, "bin", "python"), os.X_OK):
            return place
    raise RefusalError(f"no virtual environment {text}", "looked for " + ", ".join(places), None)


def stop(request: dict[str, Any]) -> Job:
    """Ask a job to end, and kill it where it has not after ``grace`` seconds."""
    job_id = find(request["name"])
    folder = os.path.join(JOBS, job_id)
    state = read_json(folder + "/state.json")
    runner = state.get("runner")
    if runner and alive(runner, state.get("runner_started")):
        write_json(folder + "/stop", {"signal": request["signal"], "grace": request["grace"]})
        os.kill(runner, signal.SIGTERM)
        deadline = time.time() + request["grace"] + 15
        while alive(runner, state.get("runner_started")) and time.time() < deadline:
            time.sleep(0.02)
    return describe(job_id, boot())


def show(request: dict[str, Any]) -> Job:
    """One job as it stands."""
    return describe(find(request["name"]), boot())


def follow(request: dict[str, Any]) -> Job:
    """Send a log from an offset on, and with ``wait`` go on until the job has ended."""
    job_id = find(request["name"])
    path = os.path.join(JOBS, job_id, "log")
    job = describe(job_id, boot())
    if request.get("data") is None:
        offset = job["log_size"]
    else:
        offset = first_byte(request, job_id, job["log_size"])
    emit(f"o {offset} {job_id}\n")
    sent = time.time()
    while True:
        # The state before the bytes: what an ended job wrote is all there.
        job = describe(job_id, boot())
        going = job["state"] in ("starting", "queued", "running") or job["left"]
        if request.get("data") is None:
            going = going and not job.get("end")
        else:
            for chunk in chunks(path, offset, job["log_size"]):
                emit(f"d {len(chunk)}\n")
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
                offset += len(chunk)
                sent = time.time()
        if not going or not request.get("wait"):
            return job
        if time.time() - sent > KEEPALIVE:
            emit("k\n")
            sent = time.time()
        time.sleep(POLL)


def chunks(path: str, offset: int, end: int) -> Iterator[bytes]:
    if offset >= end:
        return
    with open(path, "rb") as file:
        file.seek(offset)
        while offset < end:
            chunk = file.read(min(65536, end - offset))
            if not chunk:
                return
            offset += len(chunk)
            yield chunk


def first_byte(request: dict[str, Any], job_id: str, size: int) -> int:
    """Where to begin: at an offset, at what came since a time, or so many lines before the end."""
    path = os.path.join(JOBS, job_id, "log")
    if request.get("since") is not None:
        since = float(request["since"])
        since += time.time() if since < 0 else 0
        at = size
        with open(os.path.join(JOBS, job_id, "times"), encoding="ascii") as file:
            for line in file:
                seconds, _, offset = line.partition(" ")
                if int(seconds) >= since:
                    at = int(offset)
                    break
        return line_start(path, at)
    if request.get("tail") is not None:
        return tail_start(path, size, request["tail"])
    return int(request["data"])


def line_start(path: str, at: int) -> int:
    """The beginning of the line that the byte ``at`` is in."""
    return tail_start(path, at, 1) if at else 0


def tail_start(path: str, end: int, count: int) -> int:
    """Where the last ``count`` lines before ``end`` begin; one that is not yet ended counts."""
    if end == 0 or count <= 0:
        return end
    with open(path, "rb") as file:
        at, needed = end, count
        file.seek(end - 1)
        if file.read(1) == b"\n":
            needed += 1
        while at > 0:
            begin = max(0, at - 65536)
            file.seek(begin)
            block = file.read(at - begin)
            cut = len(block)
            while needed and cut >= 0:
                cut = block.rfind(b"\n", 0, cut)
                if cut < 0:
                    break
                needed -= 1
                if not needed:
                    return begin + cut + 1
            at = begin
    return 0


OPERATIONS = {
    "start": start,
    "list": listing,
    "show": show,
    "stop": stop,
    "follow": follow,
    "sessions": sessions,
}


def main(request: dict[str, Any]) -> None:
    """Carry out one request and write the answer."""
    emit(MARK)
    try:
        emit("e {}\n".format(json.dumps(OPERATIONS[request["op"]](request))))
    except RefusalError as refusal:
        emit(f"r {json.dumps(refusal.args)}\n")
    except BrokenPipeError:
        # The connection is gone, and with it whoever asked.
        os._exit(0)
    except OSError as error:
        emit("r {}\n".format(json.dumps([f"its disk or its system refuses: {error}", None, None])))


if __name__ == "__main__":
    main(globals()["REQUEST"])
