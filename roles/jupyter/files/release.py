"""Install a release of JupyterLab beside the others, and make it the current one.

A release is one venv, named after everything that it depends on. It is built whole, marked as
complete, and only then does the link `current` point to it; a run that breaks off before that
leaves the server that people use as it was. Fed to the box's Python; see tasks/install.yml.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from box import Runner, StepError, make_venv

# What release_name() makes.
RELEASE = re.compile(r"[0-9a-f]{12}")
COMPLETE = "roost-complete"
CONFIG = "jupyter_server_config.py"
PYTHON = "/usr/bin/python3"
# `requires-python` of packages/jupyter-keeper.
KEEPER_PYTHON = (3, 11)
# JupyterLab asks each person whether it may fetch news, which no server here does. Defaults of the
# release: a person's own settings win.
LAB_SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}


def release_name(
    lock: str, extensions: list[str], wheels: list[Path], python: tuple[int, int]
) -> str:
    """The name of the release that these make; another one for any change.

    Raises:
        OSError: a wheel is not on the box.
    """
    contents = [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels]
    parts = json.dumps([lock, extensions, contents, python, LAB_SETTINGS])
    return hashlib.sha256(parts.encode()).hexdigest()[:12]


def without_hashes(lock: str) -> str:
    """The lock as constraints, which pip takes without hashes alone."""
    plain = re.sub(r"\\\n", "", lock)
    return re.sub(r"\s+--hash=\S+", "", plain)


@dataclass(frozen=True)
class Releases:
    """The releases under one folder.

    Attributes:
        folder: holds the releases and the links `current` and `previous`.
        config: the server's configuration, shared by all releases.
        uv: the program; empty for `python3 -m venv` and pip.
        runner: what starts programs.
    """

    folder: Path
    config: Path
    uv: str
    runner: Runner

    def complete(self, name: str) -> bool:
        """Whether a release was built to its end and its interpreter still runs."""
        release = self.folder / name
        if not (release / COMPLETE).is_file():
            return False
        try:
            done = self.runner([str(release / "bin" / "python"), "-I", "-c", ""], check=False)
        except StepError:
            return False
        return done.returncode == 0

    def target(self, link: str) -> str:
        """The release that `current` or `previous` points to; empty for none."""
        path = self.folder / link
        return path.readlink().name if path.is_symlink() else ""

    def build(self, name: str, lock: str, extensions: list[str], wheels: list[Path]) -> None:
        """Build a release from the lock, with the extensions that fit to it, and the wheels.

        Raises:
            StepError: a package cannot be had.
        """
        release = self.folder / name
        if release.exists():
            shutil.rmtree(release)
        self.folder.mkdir(parents=True, exist_ok=True)
        python = str(release / "bin" / "python")
        if self.uv:
            venv = [self.uv, "venv", "--quiet", "--no-project", "--python", PYTHON]
            self.runner([*venv, str(release)])
            pip = [self.uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
        else:
            make_venv(self.runner, Path(PYTHON), release)
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        locked, constraints = release / "roost-lock.txt", release / "roost-constraints.txt"
        locked.write_text(lock, encoding="utf-8")
        constraints.write_text(without_hashes(lock), encoding="utf-8")
        self.runner([*pip, "--require-hashes", "--requirement", str(locked)])
        if extensions:
            self.runner([*pip, "--constraint", str(constraints), *extensions])
        if wheels:
            # What they need is in the lock, or among the extensions.
            self.runner([*pip, "--no-deps", *map(str, wheels)])
        self._finish(release)

    def _finish(self, release: Path) -> None:
        # ipykernel registers this venv as `python3`; it would hide the box's own kernel of that
        # name, and nobody but root can install packages here.
        shutil.rmtree(release / "share" / "jupyter" / "kernels" / "python3", ignore_errors=True)
        folder = release / "etc" / "jupyter"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).symlink_to(self.config)
        lab = release / "share" / "jupyter" / "lab" / "settings"
        lab.mkdir(parents=True, exist_ok=True)
        (lab / "overrides.json").write_text(json.dumps(LAB_SETTINGS), encoding="utf-8")
        self.runner([str(release / "bin" / "jupyter-lab"), "--version"])
        (release / COMPLETE).touch()

    def point(self, link: str, name: str) -> None:
        """Let a link point to a release, at once: no moment is without it."""
        new = self.folder / f".{link}.new"
        new.unlink(missing_ok=True)
        new.symlink_to(name)
        new.replace(self.folder / link)

    def switch(self, name: str) -> None:
        """Make a release the current one, and remember the one before it."""
        before = self.target("current")
        if before and before != name:
            self.point("previous", before)
        self.point("current", name)

    def superseded(self) -> list[Path]:
        """Releases that neither a link nor a running server uses."""
        keep = {self.target("current"), self.target("previous")} | self._running()
        found = [p for p in sorted(self.folder.iterdir()) if RELEASE.fullmatch(p.name)]
        return [p for p in found if p.name not in keep]

    def _running(self) -> set[str]:
        names = set()
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = command.read_bytes().decode(errors="replace")
            except OSError:
                continue
            if found := re.search(re.escape(f"{self.folder}/") + r"([0-9a-f]{12})/", words):
                names.add(found[1])
        return names


def chosen(releases: Releases, wanted: str, *, rollback: bool) -> str:
    """The release to serve: the wanted one, or with ``rollback`` the one before it.

    Raises:
        StepError: there is no release to go back to.
    """
    if not rollback:
        return wanted
    for name in (releases.target("previous"), releases.target("current")):
        if name and name != wanted and releases.complete(name):
            return name
    raise StepError(
        "there is no earlier release of JupyterLab on the box",
        "set jupyter_rollback back to false",
    )


def with_keeper(
    config: Mapping[str, Any], python: tuple[int, int], notes: list[str], folder: Path
) -> tuple[str, list[Path]]:
    """The lock and the wheels of a release, with the notebook keeper where it is wanted.

    The keeper's wheel is written to ``folder``.
    """
    wheels = [Path(wheel) for wheel in config["wheels"]]
    keeper = config["keeper"]
    if not keeper["wanted"]:
        return config["lock"], wheels
    if python < KEEPER_PYTHON:
        notes.append("the notebook keeper needs Python 3.11: JupyterLab is stock on this box")
        return config["lock"], wheels
    wheel = folder / keeper["wheel"]
    wheel.write_bytes(base64.b64decode(keeper["content"]))
    return keeper["lock"], [*wheels, wheel]


def leaves(releases: Releases, name: str) -> list[dict[str, Any]] | str:
    """What a release is on the box, for the seal (docs/seal.md); or why it is unsettled."""
    if releases.superseded() or any(
        RELEASE.fullmatch(p.name) and p.name not in map(releases.target, ("current", "previous"))
        for p in releases.folder.iterdir()
    ):
        return "an earlier release is still in use, and a later run removes it"
    folder = releases.folder
    links = [{"path": str(folder / link)} for link in ("current", "previous")]
    every = {"glob": str(folder / "*")}
    complete = {"path": str(folder / name / COMPLETE)}
    return [*links, every, complete, {"venv": str(folder / name)}]


def main(config: Mapping[str, Any]) -> dict[str, Any]:
    """Build what is missing, switch to it, and remove what nobody uses any more."""
    os.umask(0o022)
    settings = {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    settings["UV_CACHE_DIR"] = config["cache_dir"]
    if config["index_url"]:
        settings |= {"UV_DEFAULT_INDEX": config["index_url"], "PIP_INDEX_URL": config["index_url"]}
    runner = Runner(config["timeout"], settings)
    releases = Releases(Path(config["folder"]), Path(config["config"]), config["uv"], runner)
    result: dict[str, Any] = {"changed": False, "errors": [], "notes": [], "leaves": []}
    try:
        with tempfile.TemporaryDirectory() as folder:
            _put_in_order(releases, config, result, Path(folder))
    except (StepError, OSError) as error:
        fix = getattr(error, "fix", "")
        result["errors"].append(f"JupyterLab: {error}" + (f" -- {fix}" if fix else ""))
    return result


def _put_in_order(
    releases: Releases, config: Mapping[str, Any], result: dict[str, Any], folder: Path
) -> None:
    extensions, check = config["extensions"], config["check"]
    lock, wheels = with_keeper(config, sys.version_info[:2], result["notes"], folder)
    if check and not all(wheel.is_file() for wheel in wheels):
        result["changed"] = True  # the run itself carries them over first
        return
    wanted = release_name(lock, extensions, wheels, sys.version_info[:2])
    name = chosen(releases, wanted, rollback=config["rollback"])
    if not releases.complete(name):
        result["changed"] = True
        if not check:
            releases.build(name, lock, extensions, wheels)
    if releases.target("current") != name:
        result["changed"] = True
        if not check:
            releases.switch(name)
    if releases.folder.is_dir():
        for old in releases.superseded():
            result["changed"] = True
            if not check:
                shutil.rmtree(old)
    if not check:
        result["leaves"] = leaves(releases, name)
