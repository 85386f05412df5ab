"""What to do where a container engine fails: the causes that are known, with what mends them."""

from __future__ import annotations

import re

from roost.errors import MissingProgramError, ProcessError, ProcessTimeoutError, SandboxError

PACKAGES = "podman runc crun netavark aardvark-dns iptables"


def install(packages: str, uid: int) -> str:
    """The command that installs Debian packages, for this user."""
    sudo = "" if uid == 0 else "sudo "
    return f"{sudo}apt-get install -y --no-install-recommends {packages}"


def install_engine(platform: str, uid: int) -> str:
    """How to install an engine on this platform (``sys.platform``), for this user."""
    if platform == "darwin":
        return "brew install podman && podman machine init && podman machine start"
    return install(PACKAGES, uid)


# Each: what the engine says; what that means; what mends it.
_KNOWN = (
    (
        r"cgroups in hybrid mode not supported",
        "crun cannot start a container on this machine's mixed cgroup hierarchy",
        "install the other runtime: apt-get install -y runc",
    ),
    (
        r"setrlimit.*(RLIMIT_\w+|operation not permitted)",
        "the container asks for higher resource limits than this machine allows",
        "raise the hard limits of this shell (ulimit -Hn, ulimit -Hu), or run as root",
    ),
    (
        r"(iptables|nft)\W+(executable file )?not found|unable to .*iptables",
        "the engine cannot set up its network without iptables",
        "apt-get install -y iptables",
    ),
    (
        r"could not find \W*(netavark|aardvark-dns)",
        "the engine cannot set up its network without netavark",
        "apt-get install -y netavark aardvark-dns",
    ),
    (
        r"could not find (slirp4netns|pasta)|(slirp4netns|pasta)\W+(executable file )?not found",
        "a rootless engine cannot set up its network without slirp4netns or pasta",
        "apt-get install -y slirp4netns passt",
    ),
    (
        r"newuidmap|no subuid ranges|insufficient UIDs",
        "a rootless engine needs a range of subordinate user ids",
        "apt-get install -y uidmap && usermod --add-subuids 100000-165535 "
        '--add-subgids 100000-165535 "$USER"',
    ),
    (
        r"no space left on device",
        "the disk is full",
        "make room, for instance by removing images: roost sandbox down --purge",
    ),
    (
        r"permission denied.*docker.*\.sock|docker\.sock.*permission denied",
        "this user may not talk to the docker daemon",
        "use podman, or join the group docker and log in anew",
    ),
    (
        r"cannot connect to the docker daemon",
        "the docker daemon does not run",
        "start it (systemctl start docker), or install podman",
    ),
    (
        r"seccomp|apparmor|operation not permitted|permission denied",
        "this machine does not let the engine start the container",
        "inside a container or a locked-down machine, run on the machine itself, or as root",
    ),
)


def explain(error: ProcessError, program: str, command: str) -> SandboxError:
    """What a failed engine command means, as an error that the user can act upon.

    Args:
        error: how it failed.
        program: the engine.
        command: its command (``run``, ``import``).
    """
    detail = (error.stderr.strip() or error.why or error.what).splitlines()[-1]
    if isinstance(error, MissingProgramError):
        return SandboxError(f"{program} is gone", fix=error.fix)
    if isinstance(error, ProcessTimeoutError):
        return SandboxError(
            f"{program} {command} does not end: {error.what}",
            fix=f"look whether {program} answers at all: {program} ps",
        )
    for pattern, meaning, fix in _KNOWN:
        if re.search(pattern, error.stderr, re.IGNORECASE | re.DOTALL):
            return SandboxError(meaning, why=f"{program} {command}: {detail}", fix=fix)
    return SandboxError(
        f"{program} {command} failed",
        why=detail,
        fix=f"look whether the engine itself works: {program} info",
    )
