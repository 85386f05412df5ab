"""The notebook keeper's own tests: their environment here, and a box that they reach over ssh."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boxes import LiveBox, ssh
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


FAR_VENV = "/home/debian/keeper-venv"
# The box's own trust store: behind a proxy that inspects TLS only that one knows it.
INSTALL = f"""
set -eu
export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
sudo apt-get update -q
sudo apt-get install -q -y --no-install-recommends python3-venv
python3 -m venv {FAR_VENV}
{FAR_VENV}/bin/pip install -q uv
export VIRTUAL_ENV={FAR_VENV}
{FAR_VENV}/bin/uv pip install -q -r pins.txt
{FAR_VENV}/bin/uv pip install -q --no-deps jupyter_keeper-*.whl
"""


def install(box: LiveBox, end: str) -> None:
    """Give the box's login user the releases at one end, and the keeper from a wheel."""
    with tempfile.TemporaryDirectory() as folder:
        build = ["-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
        process.run([python_of(end), *build], cwd=PACKAGE)
        (wheel,) = Path(folder).iterdir()
        pins = PACKAGE / "tests" / "pins" / f"{end}.txt"
        copy = ["scp", "-q", "-F", box.workspace.ssh_config, "-o", "ControlPath=none"]
        process.run([*copy, wheel, f"{box.name}:"])
        process.run([*copy, pins, f"{box.name}:pins.txt"])
    ssh(box, INSTALL, timeout=900)


@contextmanager
def reached(box: LiveBox) -> Iterator[dict[str, str]]:
    """The environment that has the browser suite run against the box, over one connection."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        options = ["-F", box.workspace.ssh_config, "-S", f"{folder}/ssh", "-o", "BatchMode=yes"]
        argv = ["ssh", *options, box.name]
        process.run([*argv, "true"])
        as_root = box.sandbox.engine.argv("exec", "--privileged", box.now.container)
        try:
            yield {
                "KEEPER_SSH": process.display(argv),
                "KEEPER_PYTHON": f"{FAR_VENV}/bin/python",
                # No right to mount anything is inside.
                "KEEPER_ROOT": process.display(as_root),
            }
        finally:
            process.run([*argv, "-O", "exit"], check=False)
