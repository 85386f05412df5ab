"""uv on the box, and the interpreters that environments are made with."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from box import Runner, StepError, make_venv

SYSTEM_PYTHON = Path("/usr/bin/python3")


@dataclass(frozen=True)
class Uv:
    """uv as the role installs it.

    Attributes:
        home: the folder of its own small venv.
        version: the version that the role wants.
        wheel: a wheel on the box to install it from; empty for the index.
        runner: what starts programs.
    """

    home: Path
    version: str
    wheel: str
    runner: Runner

    @property
    def path(self) -> Path:
        """The program."""
        return self.home / "bin" / "uv"

    def installed_version(self) -> str:
        """The version that is there; empty where there is none that runs."""
        if not self.path.exists():
            return ""
        done = self.runner([str(self.path), "--version"], check=False)
        found = re.match(r"uv (\S+)", done.stdout)
        return found[1] if found else ""

    def ensure(self, *, check: bool) -> bool:
        """Install the version that is wanted; True where that changes something.

        Raises:
            StepError: it cannot be installed.
        """
        if self.installed_version() == self.version:
            return False
        if not check:
            wanted = self.wheel or f"uv=={self.version}"
            make_venv(self.runner, SYSTEM_PYTHON, self.home)
            offline = ["--no-index"] if self.wheel else []
            pip = [str(self.home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            self.runner([*pip, "--disable-pip-version-check", *offline, wanted])
            if self.installed_version() != self.version:
                raise StepError(
                    f"{wanted} is installed, but `uv --version` is not {self.version}",
                    "let python_uv_version and python_uv_wheel name the same version",
                )
        return True

    def __call__(self, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run uv.

        Args:
            words: its arguments.
            how: as ``Runner`` takes it: owner, cwd, env, text, check.

        Raises:
            StepError: it failed and ``check`` is set.
        """
        return self.runner([str(self.path), *words], **how)


@dataclass(frozen=True)
class Interpreters:
    """Where a Python of a wanted version comes from.

    Attributes:
        uv: the uv that can download one.
        folder: where downloaded interpreters live, for everybody.
        downloads: whether uv may download.
        downloads_list: address or path of the list of what can be downloaded; empty: uv's own.
    """

    uv: Uv
    folder: Path
    downloads: bool
    downloads_list: str

    def find(self, wanted: str) -> Path | None:
        """An interpreter that is on the box: the system's, or one downloaded before."""
        if not wanted:
            return SYSTEM_PYTHON
        words = ["python", "find", "--system", "--no-project", wanted]
        env = {"UV_PYTHON_INSTALL_DIR": str(self.folder), "UV_PYTHON_PREFERENCE": "system"}
        done = self.uv(*words, env=env, cwd=Path("/"), check=False)
        return Path(done.stdout.strip()) if done.returncode == 0 else None

    def obtain(self, wanted: str) -> Path:
        """``find``, then the package archive, then a download by uv.

        Raises:
            StepError: none of them has it.
        """
        found = self.find(wanted)
        if found:
            return found
        if wanted.startswith("/"):
            raise StepError(f"there is no interpreter {wanted} on the box", "correct `python`")
        reasons = ["it is not installed"]
        for get in (self._from_archive, self._download):
            reasons.append(get(wanted))
            found = self.find(wanted)
            if found:
                return found
        raise StepError(
            f"Python {wanted} cannot be had: {'; '.join(reason for reason in reasons if reason)}",
            "name a version that the box's archive has, allow downloads (python_downloads), or "
            "set python_install_mirror or python_downloads_list",
        )

    def _from_archive(self, wanted: str) -> str:
        package = f"python{wanted}"
        known = self.uv.runner(["apt-cache", "policy", package], check=False).stdout
        candidate = re.search(r"Candidate: (\S+)", known)
        if candidate is None or candidate[1] == "(none)":
            return f"the package archive has no {package}"
        try:
            self.uv.runner(
                ["apt-get", "install", "-y", "-q", "--no-install-recommends", package],
                env={"DEBIAN_FRONTEND": "noninteractive"},
            )
        except StepError as error:
            return f"apt-get install {package} failed: {str(error).splitlines()[-1]}"
        return ""

    def _download(self, wanted: str) -> str:
        if not self.downloads:
            return "downloads are off (python_downloads)"
        env = {"UV_PYTHON_DOWNLOADS": "manual", "UV_PYTHON_INSTALL_DIR": str(self.folder)}
        if self.downloads_list:
            env["UV_PYTHON_DOWNLOADS_JSON_URL"] = self.downloads_list
        # Without the cache: a list that was corrected would be read in its old form for minutes.
        words = ["python", "install", "--no-bin", "--no-cache", wanted]
        done = self.uv(*words, env=env, check=False)
        if done.returncode == 0:
            return ""
        # What was wanted, from which address, and what came of it. A cause may have many lines.
        _, *causes = re.split(r"^\s*(?:error|cause|Caused by): ", done.stderr, flags=re.MULTILINE)
        first, *rest = [" ".join(c.split()) for c in causes] or [done.stderr.strip() or "nothing"]
        told = [first, *[c for c in rest if "://" in c][:1], *rest[-1:]]
        return "uv says: " + ": ".join(dict.fromkeys(told))


def index_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings of uv and pip for a mirror of the package index and of the interpreters."""
    settings = {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    if config["index_url"]:
        settings |= {"UV_DEFAULT_INDEX": config["index_url"], "PIP_INDEX_URL": config["index_url"]}
    if config["install_mirror"]:
        settings["UV_PYTHON_INSTALL_MIRROR"] = config["install_mirror"]
    return settings


def index_environment(indexes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The settings of uv for further indexes; credentials go by environment, never by argument."""
    env: dict[str, str] = {}
    for index in indexes:
        where = f"{index['name']}={index['url']}"
        if index.get("default"):
            env["UV_DEFAULT_INDEX"] = where
        else:
            env["UV_INDEX"] = f"{env['UV_INDEX']} {where}" if "UV_INDEX" in env else where
        variable = "UV_INDEX_" + re.sub(r"[^A-Z0-9]", "_", index["name"].upper())
        if index.get("username"):
            env[f"{variable}_USERNAME"] = index["username"]
        if index.get("password"):
            env[f"{variable}_PASSWORD"] = index["password"]
    return env
