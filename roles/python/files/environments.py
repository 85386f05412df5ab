"""One virtual environment and its kernel: look at it, make it, mend it, complete it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import kernel_tool
import projects
from box import Owner, Runner, StepError, as_owner
from uv_tool import Interpreters, Uv, index_environment, index_settings

ASIDE = ".before-rebuild"


@dataclass(frozen=True)
class Environment:
    """One entry of python_environments on this box."""

    want: Mapping[str, Any]
    owner: Owner
    path: Path
    kernels: Path

    @classmethod
    def of(cls, want: Mapping[str, Any], config: Mapping[str, Any]) -> Environment:
        """The entry ``want``: under the owner's home, or shared.

        Raises:
            StepError: the box has no such owner.
        """
        owner = Owner.named(want.get("owner") or "root")
        if want.get("owner"):
            path = owner.home / config["personal_dir"] / want["name"]
            return cls(want, owner, path, kernel_tool.user_kernels(owner.home))
        path = Path(config["envs_dir"]) / want["name"]
        return cls(want, owner, path, Path(config["kernels_dir"]))

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"

    @property
    def kernel(self) -> Mapping[str, Any]:
        """Its kernel's settings; empty for none."""
        kernel = self.want.get("kernel", True)
        if kernel is False:
            return {}
        name = self.want["name"]
        settings = {"name": name, "display_name": name, "cwd": "", "env": {}}
        return settings | ({} if kernel is True else kernel)


def site_packages(path: Path) -> list[Path]:
    """The dist-info folders of a venv, of whatever Python version it was made with."""
    return sorted(path.glob("lib/python*/site-packages/*.dist-info"))


def requested_packages(path: Path) -> list[str]:
    """What somebody asked for in a venv, as ``name==version``, without what came along."""
    asked = []
    for info in site_packages(path):
        # Installed from a folder or an address: the list, or its owner, knows from where.
        if (info / "direct_url.json").exists() or not (info / "REQUESTED").exists():
            continue
        name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
        asked.append(f"{name}=={version}")
    return asked


def health(runner: Runner, env: Environment, version: str) -> str:
    """``missing``, ``fine``, or what is wrong with a venv.

    Raises:
        StepError: something else is in its place.
    """
    if not os.path.lexists(env.path):
        return "missing"
    if not (env.path / "pyvenv.cfg").is_file():
        raise StepError(
            f"{env.path} is there, and it is not a virtual environment", "move it out of the way"
        )
    probe = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = runner([str(env.python), "-I", "-c", probe], owner=env.owner, check=False)
    except StepError:
        return "its interpreter is gone"
    now = done.stdout.strip()
    if done.returncode != 0:
        return "its interpreter does not start"
    if not (env.path / "lib" / f"python{now}").is_dir():
        return f"it was made for another Python than the box's {now}"
    if re.fullmatch(r"\d+\.\d+", version) and version != now:
        return f"it has Python {now}, not {version}"
    return "fine"


class Builder:
    """Makes one environment as the list wants it."""

    def __init__(self, config: Mapping[str, Any], env: Environment) -> None:
        self.config = config
        self.env = env
        self.notes: list[str] = []
        secrets = [i["password"] for i in env.want.get("indexes") or [] if i.get("password")]
        self.runner = Runner(config["timeout"], index_settings(config), secrets)
        uv = config["uv"]
        self.uv = Uv(Path(uv["home"]), uv["version"], uv["wheel"], self.runner)
        self.interpreters = Interpreters(
            self.uv,
            Path(config["interpreters_dir"]),
            config["downloads"],
            config["downloads_list"],
        )

    def bring_in_order(self, *, check: bool) -> bool:
        """Make, mend or complete the environment and its kernel; True where that changes it.

        Raises:
            StepError: it cannot be done.
        """
        env = self.env
        version = str(env.want.get("python") or "")
        state = health(self.runner, env, version)
        if check and state != "fine":
            self.notes.append("would be made" if state == "missing" else f"rebuilt: {state}")
            return True
        project = env.want.get("project") or {}
        cloned = projects.clone(project, env.owner, self.runner, check=check) if project else False
        if cloned:
            self.notes.append(f"{project['path']} is cloned")
            if check:
                return True
        if state != "fine":
            self.make(version, state)
        # A rebuild that broke off left the old one aside: its list of packages still counts.
        aside = env.path.with_name(env.path.name + ASIDE)
        changed = self.install(check=check) or cloned or state != "fine"
        if aside.exists():
            self.reinstall(aside)
            changed = True
        return self.register(check=check) or changed

    def make(self, version: str, state: str) -> None:
        """Make the venv, the old one set aside."""
        env, python = self.env, self.interpreters.obtain(version)
        aside = env.path.with_name(env.path.name + ASIDE)
        if state != "missing":
            self.notes.append(f"rebuilt: {state}")
            if not aside.exists():
                as_owner(env.owner, lambda: env.path.rename(aside) and None)
        words = ["venv", "--quiet", "--no-project", "--clear", "--python", str(python)]
        as_owner(env.owner, lambda: env.path.parent.mkdir(parents=True, exist_ok=True))
        self.uv(*words, str(env.path), owner=env.owner)

    def requirements(self) -> tuple[str, list[str]]:
        """What is to be in it, in the requirements format of pip, and flags for uv beside that.

        Raises:
            StepError: the project is not there, or its lock file is not right.
        """
        want = self.env.want
        lines = [self.config["lock_texts"][want["lock"]] if want.get("lock") else ""]
        flags: list[str] = []
        if project := want.get("project"):
            text, flags = projects.requirements(project, self.env.owner, self.uv)
            lines.append(text)
        lines += [str(r) for r in want.get("requirements") or []]
        lines += ["ipykernel"] if self.env.kernel else []
        return "\n".join(lines).strip(), flags

    def install(self, *, check: bool) -> bool:
        """Install what the list names; with ``exact`` remove what it does not name."""
        text, flags = self.requirements()
        if not text and not self.env.want.get("exact"):
            return False
        flags += ["--exact"] if self.env.want.get("exact") else []
        if check:
            said = self._pip(text, *flags, "--dry-run")
            return "Would install" in said or "Would uninstall" in said
        before = site_packages(self.env.path)
        self._pip(text, *flags)
        return before != site_packages(self.env.path)

    def _pip(self, requirements: str, *flags: str) -> str:
        env = index_environment(self.env.want.get("indexes") or [])
        if self.env.owner.uid == 0:
            # Nobody but root can keep compiled files there: without these every kernel of every
            # person would compile all that it imports, at every start.
            env |= {"UV_CACHE_DIR": self.config["cache_dir"], "UV_COMPILE_BYTECODE": "1"}
        words = ["pip", "install", "--python", str(self.env.python), *flags, "--requirements", "-"]
        return self.uv(*words, owner=self.env.owner, env=env, text=requirements).stderr

    def reinstall(self, aside: Path) -> None:
        """Bring back what its people had added by hand before the rebuild."""
        lost = []
        for package in [] if self.env.want.get("exact") else requested_packages(aside):
            name = package.split("==", 1)[0]
            if any(i.name.startswith(f"{name}-") for i in site_packages(self.env.path)):
                continue
            for wanted in (package, name):
                try:
                    self._pip(wanted)
                    break
                except StepError:
                    continue
            else:
                lost.append(package)
        if lost:
            self.notes.append(f"not available any more: {', '.join(lost)}; the old one is {aside}")
        else:
            as_owner(self.env.owner, lambda: shutil.rmtree(aside))

    def register(self, *, check: bool) -> bool:
        """Make it a kernel, or none any more."""
        env, kernel = self.env, self.env.kernel
        changed = self.remove_kernels(keep=str(kernel.get("name", "")), check=check)
        if kernel:
            spec = kernel_tool.render_spec(
                env.python, kernel["display_name"], cwd=kernel["cwd"], env=kernel["env"]
            )
            folder = env.kernels / kernel["name"]
            write = lambda: kernel_tool.write_spec(folder, spec, check=check)  # noqa: E731
            changed = as_owner(env.owner, write) or changed
        return changed

    def remove_kernels(self, *, keep: str, check: bool) -> bool:
        """Take away the kernels of this environment, but for the one named ``keep``."""

        def work() -> bool:
            gone = False
            for known in kernel_tool.kernels_in(self.env.kernels):
                spec = kernel_tool.read_spec(Path(str(known["path"]))) or {}
                ours = spec.get("metadata", {}).get("roost", {})  # type: ignore[attr-defined]
                if known["name"] != keep and ours.get("prefix") == str(self.env.path):
                    gone = kernel_tool.remove_spec(Path(str(known["path"])), check=check) or gone
            return gone

        return bool(as_owner(self.env.owner, work))

    def remove(self, *, check: bool) -> bool:
        """Take away the environment and its kernels; True where there was something."""
        changed = self.remove_kernels(keep="", check=check)
        for path in (self.env.path, self.env.path.with_name(self.env.path.name + ASIDE)):
            if (path / "pyvenv.cfg").is_file():
                changed = True
                if not check:
                    as_owner(self.env.owner, partial(shutil.rmtree, path))
        return changed
