"""How boxes are: what one login can tell of each."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from roost import jobs, onbox, ssh
from roost.errors import RoostError, UnreachableError
from roost.job_stream import Remote

# A box that does not answer holds nobody up longer than ssh's own time-out does.
TIMEOUT = 30.0


@dataclass(frozen=True)
class Disk:
    """A file system of the box, in bytes."""

    mount: str
    total: int
    free: int


@dataclass(frozen=True)
class Gpu:
    """A graphics processor, as ``nvidia-smi`` tells: percent of its time, and bytes."""

    name: str
    busy: int
    total: int
    used: int


@dataclass(frozen=True)
class BoxStatus:
    """One box at this moment.

    Attributes:
        box: its name in the inventory.
        state: ``up``, ``unreachable``, or ``failed`` where it answers and cannot be asked.
        why: what stands in the way where it is not up.
        uptime: seconds since it booted.
        load: runnable processes, on average over the last minute.
        cpus: its processors.
        memory_total: bytes; likewise ``memory_free``, what programs can still have.
        disks: the file systems of ``/``, the home, ``/srv`` and ``/data``.
        gpus: its graphics processors.
        users: who is logged in.
        lab: whether the person's own JupyterLab runs there.
        jobs: how many of the person's jobs run; None where the box has no Python for that yet.
        reboot: a package waits for a reboot.
        updates: packages that could be upgraded, from the lists that the box has.
        security: those of them that come from the security archive.
    """

    box: str
    state: str = "up"
    why: str = ""
    uptime: float = 0.0
    load: float = 0.0
    cpus: int = 0
    memory_total: int = 0
    memory_free: int = 0
    disks: list[Disk] = field(default_factory=list)
    gpus: list[Gpu] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    lab: bool = False
    jobs: int | None = None
    reboot: bool = False
    updates: int = 0
    security: int = 0

    @property
    def fullest(self) -> Disk | None:
        """The file system that has the smallest part of itself free."""
        return min(self.disks, key=lambda disk: disk.free / max(disk.total, 1), default=None)

    def as_json(self) -> dict[str, Any]:
        """Every field by its name."""
        return asdict(self)


def ask(remote: Remote) -> BoxStatus:
    """How one box is; one that does not answer is a state, not an error."""
    name = remote.box.name
    script = onbox.text("health.sh")
    try:
        done = ssh.run(
            remote.config, remote.box, "exec sh -s", fleet=remote.fleet, timeout=TIMEOUT,
            input=script, check=False,
        )  # fmt: skip
    except UnreachableError as error:
        return BoxStatus(name, "unreachable", error.why or error.what)
    except RoostError as error:
        return BoxStatus(name, "failed", error.why or error.what)
    return BoxStatus(name, jobs=_running(remote), **read(done.stdout))


def _running(remote: Remote) -> int | None:
    try:
        return sum(not job.over for job in jobs.listing(remote))
    except RoostError:  # a bare box: it has no Python, and so no jobs
        return None


def read(said: str) -> dict[str, Any]:
    """What ``onbox/health.sh`` printed, as fields of ``BoxStatus``."""
    found: dict[str, Any] = {"disks": [], "gpus": [], "users": []}
    for line in said.splitlines():
        match line.split():
            case ["uptime" | "load" as key, value]:
                found[key] = float(value)
            case ["cpus", value]:
                found["cpus"] = int(value)
            case ["memory", total, free]:
                found |= {"memory_total": int(total), "memory_free": int(free)}
            case ["disk", total, free, *mount]:
                found["disks"].append(Disk(" ".join(mount), int(total), int(free)))
            case ["gpu", busy, total, used, *name] if total.isdigit() and used.isdigit():
                # A processor that cannot tell how busy it is says [N/A]; memory is in MiB.
                percent = int(busy) if busy.isdigit() else 0
                sizes = (int(total) << 20, int(used) << 20)
                found["gpus"].append(Gpu(" ".join(name), percent, *sizes))
            case ["user", name]:
                found["users"].append(name)
            case ["lab", state]:
                found["lab"] = state == "active"
            case ["reboot", _]:
                found["reboot"] = True
            case ["updates", every, security]:
                found |= {"updates": int(every), "security": int(security)}
    return found
