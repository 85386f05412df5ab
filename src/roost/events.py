"""What happens during a provisioning run, as values; and how long each step took last time."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Kind(enum.StrEnum):
    """What an event tells."""

    TASK = "task"  # a task begins, on every box at once
    START = "start"  # a task begins on one box
    OK = "ok"
    CHANGED = "changed"
    SKIPPED = "skipped"
    FAILED = "failed"
    IGNORED = "ignored"  # failed, and the playbook says that it does not matter
    UNREACHABLE = "unreachable"
    STATS = "stats"
    TEXT = "text"  # what Ansible itself says


# What ends a task on one box.
RESULTS = frozenset(
    {Kind.OK, Kind.CHANGED, Kind.SKIPPED, Kind.IGNORED, Kind.FAILED, Kind.UNREACHABLE}
)


@dataclass(frozen=True)
class Event:
    """One step of a run.

    Attributes:
        kind: what it tells.
        box: the box that it is about; empty where it is about all of them.
        role: the role of the task; empty outside of roles.
        task: the name of the task.
        begun: when it began on this box, in seconds since 1970; 0 where that is not known.
        seconds: how long it took on this box.
        message: what went wrong, or what Ansible says.
        detail: the module's own output, for ``-v`` and for a failure that nobody recognises.
        diff: what changed, as a unified diff, where Ansible was asked for it.
        stats: per box the counts of Ansible's recap (``Kind.STATS`` alone).
    """

    kind: Kind
    box: str = ""
    role: str = ""
    task: str = ""
    begun: float = 0.0
    seconds: float = 0.0
    message: str = ""
    detail: str = ""
    diff: str = ""
    stats: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def step(self) -> str:
        """Role and task as one name."""
        return f"{self.role}: {self.task}" if self.role else self.task


@dataclass(frozen=True)
class History:
    """How long each step took in the last complete run of the same playbook, in seconds."""

    steps: Mapping[str, float] = field(default_factory=dict)

    def fraction(self, done: Mapping[str, float]) -> float | None:
        """How far a run is whose finished steps are ``done``: 0 to 1, None where unknown."""
        total = sum(self.steps.values())
        if total <= 0:
            return None
        return min(sum(self.steps.get(step, 0.0) for step in done) / total, 1.0)


@dataclass
class BoxOutcome:
    """How one box came out of a run."""

    ok: int = 0
    changed: int = 0
    failures: list[Event] = field(default_factory=list)
    unreachable: Event | None = None
    at: str = ""

    @property
    def state(self) -> str:
        """``unreachable``, ``failed``, ``changed`` or ``in order``: the worst that is true."""
        if self.unreachable:
            return "unreachable"
        if self.failures:
            return "failed"
        return "changed" if self.changed else "in order"


@dataclass
class Outcome:
    """How a run ended, per box.

    Attributes:
        boxes: every box that took part.
        seconds: how long the run took.
        interrupted: the user stopped it.
        complaint: what Ansible said where it could not even start.
        changes: every change, in the order in which they were made.
        steps: per step the longest time that a box took for it.
        record: what the tasks left behind, as ``roost.seals.Record`` reads it.
    """

    boxes: dict[str, BoxOutcome] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False
    complaint: str = ""
    changes: list[Event] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)
    record: str = ""

    @property
    def failed(self) -> list[str]:
        """The boxes on which a task failed."""
        return [name for name, box in self.boxes.items() if box.failures]

    @property
    def unreachable(self) -> list[str]:
        """The boxes that did not answer, or let nobody in."""
        return [name for name, box in self.boxes.items() if box.unreachable]

    def add(self, event: Event) -> None:
        """Take one event into account."""
        if event.kind is Kind.STATS:
            self._settle(event)
            return
        if not event.box:
            return
        box = self.boxes.setdefault(event.box, BoxOutcome())
        box.at = event.step
        if event.kind is Kind.START:
            return
        self.steps[event.step] = max(self.steps.get(event.step, 0.0), event.seconds)
        if event.kind is Kind.CHANGED:
            self.changes.append(event)
        elif event.kind is Kind.FAILED:
            box.failures.append(event)
        elif event.kind is Kind.UNREACHABLE:
            box.unreachable = event

    def _settle(self, event: Event) -> None:
        for name, counts in event.stats.items():
            box = self.boxes.setdefault(name, BoxOutcome())
            box.ok, box.changed = counts.get("ok", 0), counts.get("changed", 0)
            if not counts.get("failures"):
                # What failed was rescued by the playbook.
                box.failures.clear()
