"""What the steps on the box share: acting as a person, running programs, errors that help."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class StepError(Exception):
    """One step cannot be done.

    Args:
        what: what was found.
        fix: the one step that mends it.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.fix = fix


@dataclass(frozen=True)
class Owner:
    """Who owns an environment, and does all the work in it."""

    name: str
    uid: int
    gid: int
    home: Path

    @staticmethod
    def exists(name: str) -> bool:
        """Whether the box has the Unix account ``name``."""
        try:
            pwd.getpwnam(name)
        except KeyError:
            return False
        return True

    @classmethod
    def named(cls, name: str) -> Owner:
        """The Unix account ``name``.

        Raises:
            StepError: there is no such account.
        """
        if not cls.exists(name):
            fix = "add them to people_list, or correct `owner`"
            raise StepError(f"the box has no user {name}", fix)
        entry = pwd.getpwnam(name)
        return cls(name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


def as_owner(owner: Owner, work: Callable[[], Any]) -> Any:
    """Do ``work`` with the rights of ``owner``, and return what it returns (as JSON carries it).

    A person's home is the person's: done as root, a symbolic link that they placed there would
    lead the work anywhere on the box.

    Raises:
        StepError: ``work`` failed.
    """
    if os.getuid() == owner.uid:
        return work()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            os.close(reading)
            os.initgroups(owner.name, owner.gid)
            os.setgid(owner.gid)
            os.setuid(owner.uid)
            os.umask(0o022)
            answer: dict[str, Any] = {"result": work()}
        except BaseException as error:
            answer = {"what": str(error) or type(error).__name__, "fix": getattr(error, "fix", "")}
            code = 1
        with os.fdopen(writing, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    answer = json.loads(text) if text else {"what": "the step ended without an answer"}
    if "what" in answer:
        raise StepError(answer["what"], answer.get("fix", ""))
    return answer["result"]


@dataclass(frozen=True)
class Runner:
    """Runs programs with a clean environment and a time limit.

    Attributes:
        timeout: seconds that one program may take.
        variables: environment variables for all of them.
        secrets: texts that no message may show.
    """

    timeout: float
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()

    def __call__(
        self,
        argv: Sequence[str],
        *,
        owner: Owner | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        text: str = "",
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``argv``, as ``owner`` where one is given, with ``text`` for its standard input.

        Raises:
            StepError: it failed and ``check`` is set, or it did not end in time.
        """
        home = owner.home if owner else Path(pwd.getpwuid(os.getuid()).pw_dir)
        rights: dict[str, Any] = {}
        if owner and owner.uid != os.getuid():
            groups = os.getgrouplist(owner.name, owner.gid)
            rights = {"user": owner.uid, "group": owner.gid, "extra_groups": groups}
        try:
            done = subprocess.run(
                list(argv),
                input=text,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=self.timeout,
                cwd=cwd or (home if home.is_dir() else Path("/")),
                env=self._environment(owner, home) | dict(env or {}),
                umask=0o022,
                **rights,
            )
        except subprocess.TimeoutExpired:
            raise StepError(
                f"{Path(argv[0]).name} did not end within {self.timeout:g} s",
                "look at the box's way to the index, or raise python_timeout",
            ) from None
        except OSError as error:
            raise StepError(f"{argv[0]} cannot be run: {error.strerror}") from None
        if check and done.returncode != 0:
            raise self.failure(done)
        return done

    def _environment(self, owner: Owner | None, home: Path) -> dict[str, str]:
        env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(home),
            "USER": owner.name if owner else "root",
            "LANG": "C.UTF-8",
        }
        if CERTIFICATES.exists():
            # The box's own trust store: behind a proxy that inspects TLS only that one knows it.
            env |= {"SSL_CERT_FILE": str(CERTIFICATES), "PIP_CERT": str(CERTIFICATES)}
        return env | dict(self.variables)

    def failure(self, done: subprocess.CompletedProcess[str]) -> StepError:
        """The error of a program that failed: its own words, and what mends the usual causes."""
        words = (done.stderr or done.stdout).strip()
        for secret in self.secrets:
            words = words.replace(secret, "***")
        lines = [line for line in words.splitlines() if not line.startswith("Using Python")]
        lowered = words.lower()
        fix = next((cure for sign, cure in CURES.items() if sign in lowered), "")
        said = "\n".join(lines[-15:])
        return StepError(said or f"{done.args[0]} ended with exit code {done.returncode}", fix)


def make_venv(runner: Runner, python: Path, folder: Path) -> None:
    """Make a new virtual environment with pip, without uv.

    Raises:
        StepError: it cannot be made.
    """
    runner([str(python), "-m", "venv", "--clear", "--without-pip", str(folder)])
    # As a step of its own: venv would keep to itself why that fails.
    runner([str(folder / "bin" / "python"), "-m", "ensurepip", "--upgrade", "--default-pip"])


# What the programs say, and what to do about it.
CURES = {
    "no space left": "free some space there (df -h shows where), then run this again",
    "os error 28": "free some space there (df -h shows where), then run this again",
    "disk quota": "free some space in that home, then run this again",
    "unable to get local issuer": "put the CA that signs your proxy's certificates in the box's "
    "trust store",
    "invalid peer certificate": "put the CA that signs your proxy's certificates in the box's "
    "trust store",
    "unauthorized": "check username and password of the index",
    "forbidden": "check username and password of the index",
    "dns error": "the box does not reach the index: check its network, or set python_index_url",
    "temporary failure in name": "the box does not reach the index: check its network, or set "
    "python_index_url",
    "error sending request": "the box does not reach the index: check its network, or set "
    "python_index_url",
    "connection refused": "the index is down, or its address is wrong",
    "no solution found": "correct `requirements` of this environment",
    "was not found in the package registry": "correct the name in `requirements`",
    "could not find a version": "correct the version",
}
