"""Ask a box how it is: one program, sent over one connection; ``roost.verdicts`` judges it."""

from __future__ import annotations

import json
import time
from typing import Any

from roost import content, onbox, ssh
from roost.errors import ProcessError, RoostError
from roost.finding import Finding
from roost.job_stream import PYTHON, Remote, bundle, lacks_python
from roost.model import Box
from roost.verdicts import Seen, judge

# Seconds for all of it: kernels with large libraries take their time.
LONGEST = 420.0
MARK = "\x1eroost checkup\n"


def examine(remote: Remote) -> list[Finding]:
    """Everything that one login can tell; a box that does not answer is a finding, too."""
    name = remote.box.name
    try:
        seen = look(remote)
    except NoPythonError as error:
        answers = Finding(name, "ok", "it answers, and lets us in")
        return [answers, Finding(f"{name} Python", "error", error.what, error.fix or "")]
    except RoostError as error:
        return [Finding(name, "error", error.what, error.fix or "")]
    found = [Finding(name, "ok", f"it answers, and lets us in as {seen.facts['user']}")]
    return found + judge(seen)


class NoPythonError(RoostError):
    """The box has no Python, or not all of it."""


def look(remote: Remote) -> Seen:
    """Ask the box, over one connection.

    Raises:
        NoPythonError: nothing but a shell runs there.
        UnreachableError: it does not answer, or does not let us in.
        RoostError: it answers, and the questions fail.
    """
    request = json.dumps(_request(remote.box))
    program = bundle(("checkup",), f"import json; checkup.main(json.loads({request}))")
    sent = time.time()
    done = ssh.run(
        remote.config, remote.box, PYTHON, fleet=remote.fleet, timeout=LONGEST, check=False,
        input=program,
    )  # fmt: skip
    received = time.time()
    name = remote.box.name
    if lacks_python(done.returncode, done.stderr):
        raise NoPythonError("it has no complete Python", fix=f"roost up {name}")
    _, mark, answer = done.stdout.partition(MARK)
    if not mark:
        said = done.stderr.strip().splitlines()
        raise ProcessError(
            f"{name} answers, and Python fails there",
            returncode=done.returncode, stderr=done.stderr, why=said[-1] if said else None,
        )  # fmt: skip
    return Seen(name, json.loads(answer), sent, received)


def _request(box: Box) -> str:
    names: dict[str, Any] = {}
    for role in ("jupyter", "python", "base"):
        names |= content.role_defaults(role)
    names |= box.vars
    index = names.get("jupyter_index_url") or names.get("base_pypi_index") or ""
    return json.dumps(
        {
            "index": str(index),
            "uv": str(names["python_uv_path"]),
            "unit": str(names["jupyter_unit"]),
            "run_dir": str(names["jupyter_run_dir"]),
            "state_dir": str(names["jupyter_state_dir"]),
            "jupyter_dir": str(names["jupyter_dir"]),
            "compute": onbox.text("compute.py"),
        }
    )
