"""What the notebook keeper of a box says of itself: it keeps outputs, or why it does not."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from roost import content, ssh
from roost.model import Box, Fleet

# The running server is asked: settings of the person may have turned the keeper off, too.
_ASK = """\
import http.client, pwd, os, socket, sys
user = pwd.getpwuid(os.getuid()).pw_name
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(sys.argv[1] + "/" + user + "/jupyter.sock")
try:
    token = open(sys.argv[2] + "/" + user + "/token").read().strip()
    there = Connection("localhost")
    there.request("GET", "/api/keeper", headers={"Authorization": "token " + token})
    answer = there.getresponse()
    print(answer.read().decode() if answer.status == 200 else "{}")
except OSError:
    pass
"""


def status(config: Path, box: Box, *, fleet: Fleet | None = None) -> dict[str, Any] | None:
    """Ask the JupyterLab of the user that logs in.

    Returns:
        ``active`` (bool) and ``reason`` (text, or None), as the keeper says it; empty where
        JupyterLab runs without a keeper; None where it does not run.

    Raises:
        UnreachableError: the box does not answer, or does not let us in.
        ProcessError: the box has no Python.
    """
    names = {**content.role_defaults("jupyter"), **box.vars}
    folders = [str(names["jupyter_run_dir"]), str(names["jupyter_state_dir"])]
    argv = shlex.join(["python3", "-c", _ASK, *folders])
    said = ssh.run(config, box, argv, fleet=fleet).stdout.strip()
    found: dict[str, Any] | None = json.loads(said) if said else None
    return found
