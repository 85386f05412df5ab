"""What is wrong with a box, judged from what it said; each finding with what mends it.

The facts are those of ``roost.onbox.checkup``. Judging them is apart from asking, so that every
judgement can be tried on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from roost.events import Event, Kind
from roost.explain import explain
from roost.finding import Finding, Level

# Seconds: apt refuses an archive from the future, TLS a certificate that is not valid yet.
SKEW_NOTED, SKEW_HURTS = 5.0, 60.0
# Of a file system or its inodes: what is left.
LITTLE, NOTHING = 0.10, 0.02
PLENTY = 20 << 30
LITTLE_MEMORY = 0.05
NO_PROGRAM = 127

# What a check yields: level, text, and then fix and whether that is safe.
Verdict = tuple[Any, ...]


@dataclass(frozen=True)
class Seen:
    """What one box said.

    Attributes:
        box: its name.
        facts: the answers of ``roost.onbox.checkup``, by part.
        sent: when it was asked, in seconds since 1970 by the clock here; likewise ``received``.
        received: when the answer was here.
    """

    box: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    sent: float = 0.0
    received: float = 0.0

    def on_box(self, command: str) -> str:
        """A command that runs on the box, as it is typed here."""
        return f"roost ssh {self.box} -- {command}"


def judge(seen: Seen) -> list[Finding]:
    """Every finding, in the order of ``CHECKS``; a part that stumbled is a note."""
    found = []
    for name, part, check in CHECKS:
        subject, facts = f"{seen.box} {name}", seen.facts[part]
        if isinstance(facts, dict) and "trouble" in facts:
            text = f"this could not be looked at: {facts['trouble']}"
            found.append(Finding(subject, "note", text))
            continue
        found += [Finding(subject, *verdict) for verdict in check(seen, facts)]
    return found


def check_clock(seen: Seen, facts: Any) -> Iterator[Verdict]:
    """How far the box's clock is off, at least, and whether something keeps it right."""
    off = skew(seen.sent, seen.received, seen.facts["begun"], seen.facts["ended"])
    fix = seen.on_box("sudo timedatectl set-ntp true")
    if abs(off) >= SKEW_NOTED:
        level: Level = "error" if abs(off) >= SKEW_HURTS else "warning"
        how = "ahead of" if off > 0 else "behind"
        text = f"it is {abs(off):.0f} s {how} ours: archives and certificates may be refused"
        yield level, text, fix
    elif facts["synchronized"] == "no" and not facts["container"]:
        yield "note", "it is right, and nothing keeps it so", fix
    else:
        yield "ok", "it agrees with ours"


def skew(sent: float, received: float, begun: float, ended: float) -> float:
    """How far another clock is ahead of ours, at least; 0 where it may agree.

    Args:
        sent: by our clock, when the other was asked; likewise ``received``.
        received: when its answer was here.
        begun: by its clock, when it began; likewise ``ended``. Both lie between the former two.
        ended: when it was done.
    """
    if begun < sent:
        return begun - sent
    return max(0.0, ended - received)


def check_system(seen: Seen, facts: Any) -> Iterator[Verdict]:
    name = f"{facts['id']} {facts['release']}".strip()
    if facts["id"] not in {"debian", "ubuntu"}:
        yield "error", f"{name or 'this system'} is not supported", "use Ubuntu or Debian"
    else:
        yield "ok", name
    if facts["reboot"]:
        text = "an upgrade waits for a reboot, which ends all that runs there"
        yield "note", text, seen.on_box("sudo systemctl reboot")
    total, free = facts["memory"]
    if total and free < LITTLE_MEMORY * total:
        fix = seen.on_box("ps axu --sort=-rss")
        yield "warning", f"only {free >> 20} MiB of its memory are free", fix


def check_python(seen: Seen, facts: Any) -> Iterator[Verdict]:
    shown = "Python " + ".".join(map(str, facts["version"]))
    if facts["missing"]:
        text = f"{shown} is not complete: {', '.join(facts['missing'])} missing"
        yield "warning", text, f"roost up {seen.box}"
    else:
        yield "ok", shown


def check_sudo(seen: Seen, facts: Any) -> Iterator[Verdict]:
    said = facts["said"]
    if facts["code"] == 0:
        yield "ok", "we become root without a password"
    elif facts["code"] == NO_PROGRAM:
        yield "error", "it has no sudo", f"as root on {seen.box}: apt-get install sudo"
    elif "password" in said or "a terminal is required" in said:
        fix = f"roost up {seen.box} --ask-become-pass"
        yield "warning", "sudo asks for a password", fix
    else:
        fix = f"log in as a user with sudo: ansible_user of {seen.box}"
        yield "error", f"we may not become root: {said.splitlines()[-1] if said else '?'}", fix


def check_disks(seen: Seen, facts: Any) -> Iterator[Verdict]:
    for disk in facts:
        mount, total, free = disk["mount"], disk["total"], disk["free"]
        if disk["read_only"]:
            yield "error", f"{mount} is read-only", seen.on_box("sudo dmesg --level=err,warn")
        every, left = disk["inodes"]
        part = min(free / total if total else 1, left / every if every else 1)
        if part >= LITTLE or (free >= PLENTY and left >= NOTHING * every):
            continue
        by_bytes = free / max(total, 1) <= left / max(every, 1)
        what = f"{free >> 20} MiB" if by_bytes else f"{left} inodes"
        level: Level = "error" if part < NOTHING else "warning"
        fix = seen.on_box(f"sudo du -xh --max-depth=2 {mount} | sort -h | tail")
        yield level, f"{mount} is almost full: {what} left", fix
    worst = min(facts, key=lambda disk: disk["free"] / max(disk["total"], 1), default=None)
    if worst:
        yield "ok", f"{worst['mount']}: {worst['free'] >> 30} GiB of {worst['total'] >> 30} free"


def check_apt(seen: Seen, facts: Any) -> Iterator[Verdict]:
    for pid, name, path in facts["holders"]:
        text = f"{name} (process {pid}) holds {path}: nothing can be installed meanwhile"
        yield "warning", text, f"wait for its end: {seen.on_box(f'ps -o etime,args -p {pid}')}"
    # Not while somebody installs: what looks cut off is under way.
    if facts["interrupted"] or facts["half"]:
        which = ": " + ", ".join(facts["half"]) if facts["half"] else ""
        text = f"an installation was cut off in the middle{which}"
        fix = seen.on_box("sudo dpkg --force-confdef --force-confold --configure -a")
        yield "error", text, fix, not facts["holders"]
    elif not facts["holders"]:
        yield "ok", "no lock is held, and no installation is half done"


def check_archive(seen: Seen, facts: Any) -> Iterator[Verdict]:
    for one in facts:
        if not one["said"]:
            yield "ok", f"reaches {one['uri']}"
            continue
        known = explain(Event(Kind.FAILED, box=seen.box, message=one["said"]))
        fix = known.fix if known else "base_apt_mirror or base_apt_proxy, where it has no way out"
        yield "error", f"does not reach {one['uri'] or 'an archive'}: {_last(one['said'])}", fix


def check_index(seen: Seen, facts: Any) -> Iterator[Verdict]:
    if not facts["said"]:
        yield "ok", f"reaches {facts['uri']}"
        return
    known = explain(Event(Kind.FAILED, box=seen.box, message=facts["said"]))
    certificate = known is not None and "base_ca_certificates" in known.fix
    fix = known.fix if known and certificate else "a mirror that it reaches: base_pypi_index"
    yield "error", f"does not reach {facts['uri']}: {_last(facts['said'])}", fix


def check_jupyter(seen: Seen, facts: Any) -> Iterator[Verdict]:
    state, unit = facts.get("ActiveState"), facts["unit"]
    restart = seen.on_box(f"sudo systemctl restart {unit}")
    if facts.get("LoadState") != "loaded":
        yield "note", "there is no JupyterLab of yours", f"roost up {seen.box} --tags jupyter"
    elif state != "active":
        # Nothing runs in it that a start could end.
        level: Level = "error" if state == "failed" else "warning"
        yield level, f"{unit} is {state} ({facts.get('Result')})", restart, True
    elif facts["said"] or facts.get("status") != 200:
        said = facts["said"] or f"HTTP {facts.get('status')}"
        yield "error", f"{unit} runs and does not answer: {said}", f"{restart} (ends its kernels)"
    else:
        yield "ok", f"{unit} answers"


def check_keeper(seen: Seen, facts: Any) -> Iterator[Verdict]:
    keeper = facts.get("keeper")
    if keeper is None:  # there is no JupyterLab that could be asked
        return
    if keeper.get("active"):
        yield "ok", "what cells print with nobody there is kept"
        return
    why = keeper.get("reason") or "there is no jupyter-keeper in this JupyterLab"
    fix = f"roost up {seen.box} --tags jupyter, with jupyter_keeper: true; or your own settings"
    yield "warning", f"what cells print with nobody there is lost: {why}", fix


def check_kernels(seen: Seen, facts: Any) -> Iterator[Verdict]:
    for name, trouble in facts.items():
        if not trouble:
            yield "ok", f"a cell computes in {name}"
            continue
        gone = "No such file" in trouble
        fix = f"roost kernel remove {seen.box} {name}" if gone else f"roost kernel list {seen.box}"
        yield "error", f"no cell computes in {name}: {_last(trouble)}", fix


def check_tmux(seen: Seen, facts: Any) -> Iterator[Verdict]:
    if facts["code"]:
        fix = f"roost up {seen.box} --tags tmux"
        yield "error", f"tmux starts no session: {_last(facts['said'])}", fix
    elif facts["server"]:
        text = f"your tmux server there does not understand this tmux: {_last(facts['server'])}"
        yield "warning", text, f"end what runs in it, then: {seen.on_box('tmux kill-server')}"
    else:
        yield "ok", "tmux starts sessions"


def check_units(seen: Seen, facts: Any) -> Iterator[Verdict]:
    for unit in facts["ownerless"]:
        text = f"{unit} is left over: there is no such account any more"
        yield "warning", text, seen.on_box(f"sudo systemctl disable --now {unit}"), True
    own = seen.facts["jupyter"].get("unit")
    for unit in facts["failed"]:
        if unit != own and unit not in facts["ownerless"]:
            yield "warning", f"{unit} has failed", seen.on_box(f"systemctl status {unit}")
    if not facts["ownerless"] and not facts["failed"]:
        yield "ok", "no unit of roost has failed or is left over"


def check_gpu(seen: Seen, facts: Any) -> Iterator[Verdict]:
    if facts and facts["code"]:
        text = f"nvidia-smi fails: {_last(facts['said'])}"
        fix = f"after an upgrade of its driver: {seen.on_box('sudo systemctl reboot')}"
        yield "error", text, fix
    elif facts:
        yield "ok", facts["said"].splitlines()[0]


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


Check = Callable[[Seen, Any], Iterator[Verdict]]
# The subject, the part of the facts, and what judges it.
CHECKS: tuple[tuple[str, str, Check], ...] = (
    ("clock", "system", check_clock),
    ("system", "system", check_system),
    ("Python", "python", check_python),
    ("sudo", "sudo", check_sudo),
    ("disk", "disks", check_disks),
    ("apt", "apt", check_apt),
    ("archive", "archive", check_archive),
    ("PyPI", "index", check_index),
    ("Jupyter", "jupyter", check_jupyter),
    ("notebooks", "jupyter", check_keeper),
    ("kernel", "kernels", check_kernels),
    ("tmux", "tmux", check_tmux),
    ("units", "units", check_units),
    ("GPU", "gpu", check_gpu),
)
