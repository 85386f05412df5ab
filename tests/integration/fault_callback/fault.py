"""Ansible callback: stop before a task until the test has staged its fault."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: fault
type: notification
short_description: Stop before a task until the test has staged its fault
description: FAULT_AT is the number of the task, FAULT_FILE the file that says so.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "fault"

    def __init__(self) -> None:
        super().__init__()
        self.started = 0

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self.started += 1
        mark = Path(os.environ["FAULT_FILE"])
        if self.started == int(os.environ["FAULT_AT"]):
            mark.write_text(task.get_name())
            while mark.exists():
                time.sleep(0.02)
