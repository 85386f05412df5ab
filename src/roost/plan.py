"""What a run would do, as a value: made from the inventory alone, compared by tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from roost import content, inventory
from roost.errors import InventoryError
from roost.model import Fleet
from roost.workspace import Workspace

MOST_FORKS = 20


@dataclass(frozen=True)
class RunPlan:
    """One provisioning run.

    Attributes:
        playbook: the playbook that is run, by its path or its full name.
        boxes: the names of the boxes, in the inventory's order.
        limited: whether these are only some of the inventory's boxes.
        check: report what would change, and change nothing.
        diff: show what changes inside files.
        tags: only the tasks with one of these tags; empty for all.
        forks: how many boxes are worked on at the same time.
    """

    playbook: str
    boxes: tuple[str, ...]
    limited: bool = False
    check: bool = False
    diff: bool = False
    tags: tuple[str, ...] = ()
    forks: int = 1


def make(
    workspace: Workspace,
    fleet: Fleet,
    names: Iterable[str] = (),
    *,
    playbook: str = "site",
    check: bool = False,
    diff: bool = False,
    tags: Iterable[str] = (),
) -> RunPlan:
    """Plan a run over the boxes and groups called ``names`` (none: every box).

    Raises:
        InventoryError: a name is unknown, there is no box at all, or a variable that belongs to
            a role is misspelt.
    """
    boxes = fleet.select(names)
    if not boxes:
        raise InventoryError("the inventory has no boxes", fix="roost add NAME USER@HOST")
    inventory.reject_unknown(inventory.unknown_names(fleet, content.role_variables()), workspace)
    return RunPlan(
        playbook=workspace.playbook(playbook),
        boxes=tuple(box.name for box in boxes),
        limited=len(boxes) < len(fleet.boxes),
        check=check,
        diff=diff,
        tags=tuple(tags),
        forks=min(len(boxes), MOST_FORKS),
    )
