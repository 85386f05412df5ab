"""The environment of the notebook keeper's own tests: JupyterLab and Playwright."""

from __future__ import annotations

import os
from pathlib import Path

from roost import process
from roost.sandbox.locks import locked

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "packages" / "jupyter-keeper"
CACHE = ROOT / ".cache"
# Read before a test has a home of its own: what leads pip to its index belongs to the user.
ENVIRONMENT = dict(os.environ)


def python_of(end: str) -> str:
    """The interpreter that has the releases at one end (newest, oldest), made where it is missing.

    Raises:
        ProcessError: it cannot be made.
    """
    with locked(CACHE / f"keeper-venv-{end}.lock"):
        script = PACKAGE / "tools" / "venv.sh"
        made = process.run([script, end, CACHE], timeout=900, env=ENVIRONMENT)
    return made.stdout.strip()
