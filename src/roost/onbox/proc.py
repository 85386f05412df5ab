"""Processes and the boot that they belong to, as proc(5) shows them."""

import os


def stat_fields(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the state on; empty where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def started(pid: int) -> str:
    """When a process started, in the kernel's ticks: it tells a process id's users apart."""
    fields = stat_fields(pid)
    return fields[19] if fields else ""


def alive(pid: int | None, when_started: str | None) -> bool:
    """Whether that very process is still there."""
    fields = stat_fields(pid) if pid else []
    return bool(fields) and fields[19] == when_started and fields[0] != "Z"


def boot() -> tuple[str, float]:
    """What tells this boot from every other, and when it was (seconds since 1970).

    A container is restarted without its kernel: the start of process 1 counts, too.
    """
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        kernel = file.read().strip()
    with open("/proc/stat", encoding="ascii") as file:
        booted = next(int(s.split()[1]) for s in file if s.startswith("btime "))
    ticks = int(started(1) or 0)
    return f"{kernel}/{ticks}", booted + ticks / os.sysconf("SC_CLK_TCK")


def marks(name: str) -> dict[str, list[int]]:
    """The processes that have the variable ``name`` in their environment, by its value.

    That is inherited: what a job has started is found by it, wherever it went. A login shell's
    profile, sudo or a program that clears its environment end the trail.
    """
    found: dict[str, list[int]] = {}
    wanted = b"\0" + name.encode() + b"="
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environ = b"\0" + file.read()
        except OSError:
            continue
        _, there, rest = environ.partition(wanted)
        if there:
            value = rest.partition(b"\0")[0].decode("utf-8", "replace")
            found.setdefault(value, []).append(int(pid))
    return found


def family(leader: int) -> list[int]:
    """The processes of a session and their descendants, without the session's leader."""
    parent, session = {}, {}
    for name in os.listdir("/proc"):
        fields = stat_fields(int(name)) if name.isdigit() else []
        if fields and fields[0] != "Z":
            parent[int(name)], session[int(name)] = int(fields[1]), int(fields[3])
    members = {pid for pid in session if session[pid] == leader} | {leader}
    while more := {pid for pid in parent if parent[pid] in members} - members:
        members |= more
    return sorted(members - {leader})
