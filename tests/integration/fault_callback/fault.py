"""Ansible callback: stop after a task until the test has staged its fault."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: fault
type: notification
short_description: Stop after a task until the test has staged its fault
description: >-
  FAULT_AFTER is the number of the task, of those of FAULT_ROLE that were not skipped, and
  FAULT_FILE the file that says which one it was. After the last task it says how many there were.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "fault"

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self.count = 0
        self.ran = False
        self.mark = Path(os.environ["FAULT_FILE"])

    def v2_runner_on_ok(self, result: Any) -> None:
        self.ran = self.name.startswith(os.environ["FAULT_ROLE"])

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if self.ran:
            self.ran = False
            self.count += 1
            if self.count == int(os.environ["FAULT_AFTER"]):
                self.mark.write_text(f"after {self.name}")
                while self.mark.exists():
                    time.sleep(0.02)
        self.name = task.get_name()

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self.mark.write_text(str(self.count))
