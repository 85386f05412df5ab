#!/usr/bin/python3
"""roost-kernel: make a Python environment a Jupyter kernel, list kernels, take one away.

Runs with the box's own Python and needs nothing beside it. Source of the format: kernel specs
of jupyter_client 8 (https://jupyter-client.readthedocs.io/en/stable/kernels.html).
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SYSTEM_KERNELS = Path("/usr/local/share/jupyter/kernels")
UV = Path("/opt/roost/uv/bin/uv")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# The names that jupyter_client accepts.
NAME = re.compile(r"[A-Za-z0-9._-]+")
# Goes to the folder and becomes the kernel, so that signals reach the kernel itself.
CHANGE_FOLDER = 'cd -- "$0"; exec "$@"'


class KernelError(Exception):
    """A kernel cannot be registered, or there is no such kernel.

    Args:
        what: what was found.
        fix: the one step that mends it.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.fix = fix


def user_kernels(home: Path) -> Path:
    """Where Jupyter looks for one person's kernels."""
    return home / ".local" / "share" / "jupyter" / "kernels"


def find_python(path: Path) -> Path:
    """The interpreter of an environment: a venv, a conda environment, or an interpreter itself.

    Raises:
        KernelError: there is none.
    """
    for candidate in (path / "bin" / "python", path):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    if not path.exists():
        raise KernelError(f"there is no {path}", "name an environment that is on this machine")
    what = f"{path} is neither an environment with bin/python nor an interpreter"
    raise KernelError(what, f"make one of it: uv venv {shlex.quote(str(path))}")


def render_spec(
    python: Path, display_name: str, *, cwd: str = "", env: dict[str, str] | None = None
) -> dict[str, object]:
    """The kernel spec of an environment, as jupyter_client reads it.

    Args:
        python: the environment's interpreter.
        display_name: the name on the launcher.
        cwd: the folder that the kernel works in; empty for the notebook's own.
        env: environment variables of the kernel.
    """
    prefix = python.parent.parent
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    if cwd:
        argv = ["/bin/sh", "-c", CHANGE_FOLDER, cwd, *argv]
    kind = "CONDA_PREFIX" if (prefix / "conda-meta").is_dir() else "VIRTUAL_ENV"
    # The PATH makes `!pip` and `!python` of a cell those of the environment.
    own = {"PATH": f"{python.parent}:${{PATH}}", kind: str(prefix)}
    return {
        "argv": argv,
        "display_name": display_name,
        "language": "python",
        "interrupt_mode": "signal",
        "env": own | (env or {}),
        # Without "debugger" JupyterLab offers none: debugpy listens on a TCP port of the box,
        # where any other user of the box could make it run code.
        "metadata": {"roost": {"prefix": str(prefix)}},
    }


def read_spec(folder: Path) -> dict[str, object] | None:
    """The kernel spec in ``folder``; None where there is none, or it is not readable as one."""
    try:
        spec = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return spec if isinstance(spec, dict) else None


def is_ours(spec: dict[str, object] | None) -> bool:
    """Whether roost wrote this kernel spec."""
    metadata = (spec or {}).get("metadata")
    return isinstance(metadata, dict) and "roost" in metadata


def interpreter_of(spec: dict[str, object]) -> str:
    """The program that a kernel spec starts, behind the change of folder."""
    argv = [str(word) for word in spec.get("argv") or []]  # type: ignore[attr-defined]
    if argv[:3] == ["/bin/sh", "-c", CHANGE_FOLDER]:
        argv = argv[4:]
    return argv[0] if argv else ""


def is_dangling(spec: dict[str, object]) -> bool:
    """Whether the program that a kernel spec starts is gone."""
    program = interpreter_of(spec)
    return not (os.access(program, os.X_OK) if "/" in program else shutil.which(program))


def write_spec(folder: Path, spec: dict[str, object], *, check: bool = False) -> bool:
    """Put a kernel spec in place, whole or not at all; True where that changes something.

    Raises:
        KernelError: there is a kernel of that name which is not ours.
    """
    now = read_spec(folder)
    if now == spec:
        return False
    if folder.exists() and not is_ours(now):
        raise KernelError(f"{folder} is a kernel that somebody else put there")
    if not check:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as new:
            json.dump(spec, new, indent=1)
            new.write("\n")
        Path(new.name).chmod(0o644)
        Path(new.name).replace(folder / "kernel.json")
    return True


def remove_spec(folder: Path, *, check: bool = False) -> bool:
    """Take a kernel of ours away; True where there was one."""
    if not is_ours(read_spec(folder)):
        return False
    if not check:
        shutil.rmtree(folder)
    return True


def kernels_in(folder: Path) -> list[dict[str, object]]:
    """All kernels of a folder: name, display name, interpreter, ours, dangling."""
    found = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        spec = read_spec(entry)
        if spec is not None:
            found.append(
                {
                    "name": entry.name,
                    "display_name": spec.get("display_name", ""),
                    "path": str(entry),
                    "interpreter": interpreter_of(spec),
                    "roost": is_ours(spec),
                    "dangling": is_dangling(spec),
                }
            )
    return found


def ensure_ipykernel(python: Path, *, install: bool) -> bool:
    """Make sure that the environment can be a kernel; True where ipykernel had to be installed.

    Raises:
        KernelError: it has no ipykernel and none could be installed.
    """
    probe = [str(python), "-I", "-c", "import ipykernel"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return False
    command = [str(UV), "pip", "install", "--python", str(python), "ipykernel"]
    if not UV.exists():
        command = [str(python), "-m", "pip", "install", "ipykernel"]
    if not install:
        raise KernelError(f"{python} has no ipykernel", f"install it: {shlex.join(command)}")
    env = os.environ | ({"SSL_CERT_FILE": str(CERTIFICATES)} if CERTIFICATES.exists() else {})
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        raise KernelError(
            f"{python} has no ipykernel, and it could not be installed:\n{done.stderr.strip()}",
            f"install it there, then try again: {shlex.join(command)}",
        )
    return True


def conda_environments(home: Path) -> list[str]:
    """Where somebody's conda and mamba environments are, as far as they are still there.

    Source of the format: conda, mamba and micromamba note the folder of every environment that
    they make in a line of ``~/.conda/environments.txt``.
    """
    try:
        noted = (home / ".conda" / "environments.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line for line in noted if os.access(Path(line) / "bin" / "python", os.X_OK)]


def add(args: argparse.Namespace) -> str:
    """Register an environment as a kernel, or all conda environments."""
    if bool(args.path) == args.conda:
        raise KernelError("nothing to register", "name an environment, or say --conda")
    if not args.conda:
        return add_one(args, args.path)
    if not (found := conda_environments(Path.home())):
        raise KernelError(
            "no conda environment is known here", "register one by its path: roost-kernel add PATH"
        )
    lines, refused = [], []
    for path in found:
        try:
            lines.append(add_one(args, path))
        except KernelError as error:
            refused.append(f"{error}{error.fix and f' (fix: {error.fix})'}")
    if refused:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        count = f"{len(refused)} of {len(found)} conda environments"
        raise KernelError("\n".join([f"{count} could not be registered:", *refused]))
    return "\n".join(lines)


def add_one(args: argparse.Namespace, path: str) -> str:
    """Register one environment, and say what was done."""
    # The link's own place, not its target: a venv's python is a link to the system's.
    python = find_python(Path.cwd() / Path(path).expanduser())
    name = args.name or python.parent.parent.name.lstrip(".")
    if not NAME.fullmatch(name):
        raise KernelError(f"{name!r} is no kernel name: letters, digits, '.', '_' and '-' (--name)")
    if wrong := [pair for pair in args.env if not pair.partition("=")[1]]:
        raise KernelError(f"--env {wrong[0]}: there is no value", "write --env NAME=VALUE")
    env = dict(pair.split("=", 1) for pair in args.env)
    folder = folder_for(args) / name
    now = read_spec(folder) or {}
    if is_ours(now) and not is_dangling(now) and (other := interpreter_of(now)) != str(python):
        fix = f"roost-kernel add {shlex.quote(path)} --name ANOTHER"
        raise KernelError(f"the kernel {name} is {other}, not {python}", fix)
    installed = ensure_ipykernel(python, install=not args.no_install)
    spec = render_spec(python, args.display_name or name, cwd=args.cwd, env=env)
    write_spec(folder, spec)
    note = " (ipykernel was missing there and is installed now)" if installed else ""
    return f"kernel {name}: {python}{note}"


def remove(args: argparse.Namespace) -> str:
    """Take a kernel of ours away."""
    folder = folder_for(args) / args.name
    if not remove_spec(folder):
        raise KernelError(f"{folder} is not a kernel that roost-kernel registered")
    return f"kernel {args.name} is gone; its environment stays"


def show(args: argparse.Namespace) -> str:
    """List this person's kernels and everybody's."""
    found = kernels_in(user_kernels(Path.home())) + kernels_in(SYSTEM_KERNELS)
    if args.json:
        return json.dumps(found, indent=1)
    lines = [
        f"{k['name']:20} {'DANGLING ' if k['dangling'] else ''}{k['interpreter']}" for k in found
    ]
    return "\n".join(lines) or "no kernels"


def folder_for(args: argparse.Namespace) -> Path:
    """Where the kernels live that a command is about."""
    if args.everybody:
        return SYSTEM_KERNELS
    return user_kernels(Path(pwd.getpwuid(os.getuid()).pw_dir))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="roost-kernel", description=(__doc__ or "").split("\n\n")[0])
    verbs = top.add_subparsers(required=True, metavar="add|remove|list")
    one = verbs.add_parser("add", help="make an environment a kernel")
    one.add_argument("path", nargs="?", help="a venv, a conda environment, or an interpreter")
    one.add_argument("--conda", action="store_true", help="all of your conda environments")
    one.add_argument("--name", help="the kernel's name; default: the environment's folder")
    one.add_argument("--display-name", help="the name on the launcher")
    one.add_argument("--cwd", default="", help="the folder that its notebooks work in")
    one.add_argument("--env", action="append", default=[], metavar="KEY=VALUE")
    one.add_argument("--no-install", action="store_true", help="do not install ipykernel there")
    one.set_defaults(verb=add)
    gone = verbs.add_parser("remove", help="take a kernel away; its environment stays")
    gone.add_argument("name")
    gone.set_defaults(verb=remove)
    for verb in (one, gone):
        verb.add_argument("--everybody", action="store_true", help="for all people (needs root)")
    listing = verbs.add_parser("list", help="this person's kernels, and everybody's")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(verb=show)
    return top


def cli(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code is 1 where a kernel cannot be had."""
    args = parser().parse_args(argv)
    try:
        print(args.verb(args))
    except (KernelError, OSError, ValueError) as error:
        print(f"roost-kernel: {error}", file=sys.stderr)
        if fix := getattr(error, "fix", ""):
            print(f"  fix: {fix}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(cli())
