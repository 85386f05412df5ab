"""Find a container engine that works, podman or docker, and talk to it."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roost import process
from roost.errors import MissingProgramError, ProcessError, SandboxError
from roost.sandbox import advice
from roost.sandbox.interrupts import deferred

ENVIRONMENT_VARIABLE = "ROOST_ENGINE"
KINDS = ("podman", "docker")
# podman lowers its own limit of processes to this when it starts.
PODMAN_NPROC = 32768
KERNEL_NOFILE = 1048576  # fs.nr_open: no limit above it can be set

Run = Callable[..., process.Completed]


@dataclass(frozen=True)
class Engine:
    """One container engine, and what it can do here.

    Attributes:
        program: the program, by name or path.
        kind: ``podman`` or ``docker``.
        direct: this machine reaches the containers' own addresses; otherwise the ssh port is
            published on the loopback.
        cgroups: ``v1`` or ``v2``.
        runtime: the OCI runtime to ask for; empty for the engine's own choice.
        run: what runs programs; another function in tests.
    """

    program: str
    kind: str
    direct: bool
    cgroups: str
    runtime: str = ""
    run: Run = process.run

    def argv(self, *words: str) -> list[str]:
        """The command line for ``words``, for programs that run it themselves."""
        runtime = ["--runtime", self.runtime] if self.runtime else []
        return [self.program, *runtime, *words]

    def __call__(
        self,
        *words: str,
        timeout: float = 60,
        check: bool = True,
        input: str | None = None,
    ) -> process.Completed:
        """Run one engine command to its end.

        Args:
            words: the command and its arguments.
            timeout: seconds.
            check: raise where it fails.
            input: text for its standard input.

        Raises:
            SandboxError: it failed; the causes that are known carry what mends them.
        """
        try:
            return self.run(self.argv(*words), timeout=timeout, check=check, input=input)
        except ProcessError as error:
            raise advice.explain(error, self.program, words[0]) from error

    def inspect(self, kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
        """What the engine knows of these containers or images; those that are gone are left out.

        Args:
            kind: ``container`` or ``image``.
            names: their names or ids.
        """
        if not names:
            return []
        done = self(kind, "inspect", *names, check=False)
        if done.returncode != 0 and len(names) > 1:
            # One that is gone, or half removed by somebody else, hides all the others.
            return [found for name in names for found in self.inspect(kind, [name])]
        text = done.stdout.strip()
        found: list[dict[str, Any]] = json.loads(text) if text else []
        return found

    def ids(self, label: str) -> list[str]:
        """Every container that carries ``label`` (``key`` or ``key=value``), in any state."""
        return self("ps", "--all", "--quiet", "--filter", f"label={label}").stdout.split()

    def containers(self, label: str) -> list[dict[str, Any]]:
        """What is known of the containers that carry ``label``, but for broken ones."""
        return self.inspect("container", self.ids(label))

    def remove(self, names: Sequence[str]) -> None:
        """Remove containers at once, running or not; those that are gone do not matter.

        Ctrl-C waits for the end: a removal that is cut off leaves a container that the engine
        lists, and knows nothing more about.
        """
        # podman would wait for systemd to shut down; docker kills at once.
        now = ["--time", "0"] if self.kind == "podman" else []
        with deferred():
            for name in names:  # podman stops at the first one that is not there
                self("rm", "--force", "--volumes", *now, name, check=False)

    def limits(self) -> list[str]:
        """The resource limits to ask for, as far as they may be raised here.

        Where ``CAP_SYS_RESOURCE`` is missing, a limit above one's own cannot be set and the
        start fails. docker's daemon has limits of its own, which are left alone.
        """
        if self.kind != "podman":
            return []
        nproc = _within(resource.RLIMIT_NPROC, PODMAN_NPROC)
        nofile = _within(resource.RLIMIT_NOFILE, KERNEL_NOFILE)
        return ["--ulimit", f"nproc={nproc}:{nproc}", "--ulimit", f"nofile={nofile}:{nofile}"]


def _within(limit: int, most: int) -> int:
    hard = resource.getrlimit(limit)[1]
    return most if hard == resource.RLIM_INFINITY else min(hard, most)


def find_engine(environ: Mapping[str, str], run: Run = process.run) -> Engine:
    """The engine that ``$ROOST_ENGINE`` names, else the first of podman and docker that works.

    Raises:
        SandboxError: none works; it says what was tried, and how to install one.
    """
    wanted = environ.get(ENVIRONMENT_VARIABLE)
    tried: list[str] = []
    for program in [wanted] if wanted else KINDS:
        try:
            return _probe(program, environ, run)
        except MissingProgramError:
            tried.append(f"{program} is not installed")
        except ProcessError as error:
            tried.append(f"{program} does not work ({error.why or error.what})")
    raise SandboxError(
        "a sandbox needs a container engine, and there is none that works",
        why="; ".join(tried),
        fix=advice.install_engine(sys.platform, os.geteuid()),
    )


def _probe(program: str, environ: Mapping[str, str], run: Run) -> Engine:
    if process.which(program, environ) is None:
        raise MissingProgramError(f"{program} is not installed")
    # Some systems install podman under docker's name.
    version = run([program, "--version"], timeout=20).stdout.lower()
    if "podman" in version:
        info = json.loads(run([program, "info", "--format", "json"], timeout=30).stdout)
        return _podman(program, info["host"], environ, run)
    # The client alone answers too: only the daemon's own fields tell that there is one.
    form = "{{.ServerVersion}} {{.CgroupVersion}}"
    words = run([program, "info", "--format", form], timeout=30).stdout.split()
    if len(words) != 2:
        raise ProcessError("the docker daemon does not answer")
    # A daemon in a virtual machine (Docker Desktop) has no addresses that this side reaches,
    # and the client does not tell; the loopback works with every daemon.
    return Engine(program, "docker", direct=False, cgroups=f"v{words[1]}", run=run)


def _podman(program: str, host: Mapping[str, Any], environ: Mapping[str, str], run: Run) -> Engine:
    rootless = bool(host["security"]["rootless"])
    remote = bool(host.get("serviceIsRemote")) or sys.platform != "linux"
    # crun refuses the hybrid hierarchy ("cgroups in hybrid mode not supported").
    old = host["cgroupVersion"] == "v1" and host["ociRuntime"]["name"] == "crun"
    runtime = "runc" if old and not remote and process.which("runc", environ) else ""
    return Engine(
        program,
        "podman",
        direct=not rootless and not remote,
        cgroups=str(host["cgroupVersion"]),
        runtime=runtime,
        run=run,
    )
