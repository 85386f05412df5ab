"""Ansible callback: writes down what every task of a run leaves behind, for the seal.

It is loaded from the folder that ``roost.playbook`` names to Ansible, and does nothing without
the file that it names there.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: roost_record
type: aggregate
short_description: Records what tasks leave behind
description:
  - One JSON object per line goes to the file that E(ROOST_RECORD) names. It holds the names of
    files, packages, accounts and units, and hashes; no content.
author: The roost authors
"""

import json  # noqa: E402 - Ansible wants the documentation first
import os  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.plugins.callback import CallbackBase  # noqa: E402
from ansible.template import Templar  # noqa: E402

from roost.seal_leaves import DECLARED, Task, UncoveredError, leaves  # noqa: E402

EVERY_BOX = "*"


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """One record of one run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "roost_record"

    def __init__(self) -> None:
        super().__init__()
        self._play: Any = None
        self._pending: list[tuple[Any, Any]] = []
        name = os.environ.get("ROOST_RECORD")
        self._stream = Path(name).open("a", encoding="utf-8") if name else None  # noqa: SIM115
        self._roots = os.environ.get("ROOST_RECORD_ROOTS", "").split(os.pathsep)
        if not self._stream:
            self.disabled = True

    def _write(self, box: str, **what: Any) -> None:
        if self._stream:
            self._stream.write(json.dumps({"box": box, **what}) + "\n")

    def _ours(self, path: str) -> bool:
        """Whether a file is part of what the fingerprint covers."""
        real = os.path.realpath(path)
        return any(real.startswith(root + os.sep) for root in self._roots)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Note the play, and what it reads beside the inventory."""
        self._settle()
        self._play = play
        for name in play.get_vars_files():
            if not isinstance(name, str) or "{{" in name or name.startswith(("/", "~")):
                self._write(EVERY_BOX, uncovered=f"{play.get_name()}: it reads variables anywhere")

    def v2_runner_on_ok(self, result: Any) -> None:
        """Write down what a task left behind, when its answer is known to the play."""
        self._pending.append((self._play, result))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """What tasks before it were registered as is known now."""
        self._settle()

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """Likewise."""
        self._settle()

    def _settle(self) -> None:
        for play, result in self._pending:
            self._take(play, result)
        self._pending = []

    def _take(self, play: Any, result: Any) -> None:
        box = result.host.get_name()
        try:
            if not self._ours(result.task.get_path() or ""):
                raise UncoveredError("it stands outside of the workspace and of roost's own roles")
            for name in result.result.get("ansible_included_var_files") or []:
                if not self._ours(name):
                    raise UncoveredError(f"it reads {name}, outside of the workspace")
            if result.task.run_once and result.task.register:
                box = EVERY_BOX
                raise UncoveredError("one box answers for all")
            for leaf in leaves(self._task(play, result), result.result):
                self._write(box, leaf=leaf)
        except UncoveredError as why:
            self._uncovered(box, result, str(why))
        except Exception as error:  # whatever it is, the box is not sealed
            self._uncovered(box, result, f"{type(error).__name__}: {error}")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A failure that the playbook forgives leaves nobody knows what."""
        self._uncovered(result.host.get_name(), result, "it failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Likewise."""
        self._uncovered(result.host.get_name(), result, "the box could not be reached")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Say that the record is whole."""
        self._settle()
        self._write(EVERY_BOX, end=True)
        if self._stream:
            self._stream.close()

    def _uncovered(self, box: str, result: Any, why: str) -> None:
        self._write(box, uncovered=f"“{result.task.get_name().strip()}”: {why}")

    def _task(self, play: Any, result: Any) -> Task:
        task = result.task
        return Task(
            action=task.action,
            changes_nothing=task.changed_when in ([False], False),
            answers=bool(task.register),
            elsewhere=bool(task.delegate_to),
            in_background=bool(task.async_val and not task.poll),
            declared=self._declared(play, result),
        )

    def _declared(self, play: Any, result: Any) -> list[dict[str, Any]] | None:
        own = result.task.vars.get(DECLARED)
        if own is None:
            return None
        known = play.get_variable_manager().get_vars(play=play, host=result.host, task=result.task)
        known["ansible_search_path"] = result.task.get_search_path()
        found = Templar(loader=play.get_loader(), variables=known).template(own)
        if isinstance(found, str):
            raise UncoveredError(found)
        if not (isinstance(found, list) and all(isinstance(leaf, dict) for leaf in found)):
            raise UncoveredError(f"its {DECLARED} is not a list")
        plain: list[dict[str, Any]] = json.loads(json.dumps(found))  # without Ansible's marks
        return plain
