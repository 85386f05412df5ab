"""Put a request to the supervisor, which is started where none answers."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roost import process
from roost.errors import RoostError
from roost.supervisor.protocol import PASSED_ON, VERSION, Places, encode, ensure_private

_START_SECONDS = 15.0
_ANSWER_SECONDS = 40.0


def ask(there: Places, environ: Mapping[str, str], request: Mapping[str, Any]) -> dict[str, Any]:
    """Put one request, and return the answer.

    Args:
        there: the supervisor's files.
        environ: where ssh finds its agent.
        request: what ``Supervisor`` understands.

    Raises:
        RoostError: the supervisor cannot be started, or it refuses the request.
    """
    ensure_private(there.runtime)
    passed_on = {k: v for k, v in environ.items() if k in PASSED_ON}
    message = encode({"version": VERSION, "environ": passed_on, **request})
    deadline = time.monotonic() + _START_SECONDS
    child = None
    while time.monotonic() < deadline:
        answer = _exchange(there, message)
        if answer is None and (child is None or child.poll() is not None):
            child = _start(there, environ)
        if answer is None or answer.get("leaving"):
            time.sleep(0.02)
            continue
        if error := answer.get("error"):
            raise RoostError(error["what"], why=error.get("why"), fix=error.get("fix"))
        return answer
    said = _tail(there.log)
    raise RoostError(
        "the supervisor of the tunnels does not start",
        why=said or "it says nothing",
        fix=f"see {there.log}",
    )


def _tail(log: Path) -> str:
    try:
        lines = log.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def _exchange(there: Places, message: bytes) -> dict[str, Any] | None:
    """One request and its answer; None where nobody answers."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_ANSWER_SECONDS)
        try:
            line.connect(str(there.socket))
            line.sendall(message)
            with line.makefile("rb") as file:
                answer = file.readline()
        except OSError:
            return None
    return dict(json.loads(answer)) if answer.endswith(b"\n") else None


def _start(there: Places, environ: Mapping[str, str]) -> Any:
    arguments = [sys.executable, "-m", "roost.supervisor"]
    folders = [str(there.runtime.parent), str(there.state.parent)]
    handle = os.open(there.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(handle).st_size > 1 << 20:
        os.truncate(handle, 0)
    with os.fdopen(handle, "w") as log:
        return process.start(
            [*arguments, *folders],
            stdout=log,
            stderr=log,
            env=environ,
            cwd=Path("/"),
            new_session=True,
        )
