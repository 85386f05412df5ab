"""What is wrong on this side, each finding with the command that mends it.

What was seen comes as a value: so a Mac, WSL and an old OpenSSH are judged on any machine.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator

from roost.doctor_facts import Facts
from roost.finding import Finding, Level
from roost.ssh_config import CONTROL_DIR_MAX

# Quotes and backslashes in a config are read as roost writes them from 8.7 on (argv_split).
OLDEST_SSH = (8, 7)
OLDEST_RSYNC = (3, 1)
OLDEST_ANSIBLE = (2, 19)
OLDEST_PYTHON = (3, 11)
# sshd lets six tries pass before it hangs up (MaxAuthTries).
MANY_KEYS = 5


def examine(facts: Facts) -> list[Finding]:
    """Judge what was seen, in the order of ``CHECKS``."""
    return [finding for check in CHECKS for finding in check(facts)]


def check_ssh(facts: Facts) -> Iterator[Finding]:
    version = _numbers(facts.ssh.partition("OpenSSH_")[2])
    if not version:
        fix = {"darwin": "it comes with macOS: see to your PATH"}.get(
            facts.platform, "sudo apt-get install openssh-client"
        )
        yield Finding("ssh", "error", "OpenSSH is not installed, or not on the PATH", fix)
        return
    shown = facts.ssh.partition(",")[0].strip()
    if version < OLDEST_SSH:
        yield Finding(
            "ssh", "error", f"{shown} is too old: it reads quotes in a config differently",
            "update OpenSSH to 8.7 or later",
        )  # fmt: skip
    else:
        yield Finding("ssh", "ok", shown)
    if not any(kind.startswith("sk-") for kind in facts.key_types):
        yield Finding("ssh", "note", "it cannot use hardware keys (sk-)")


def check_rsync(facts: Facts) -> Iterator[Finding]:
    version = _numbers(facts.rsync.partition("version")[2])
    mac = facts.platform == "darwin"
    install = "brew install rsync" if mac else "sudo apt-get install rsync"
    if "openrsync" in facts.rsync:
        yield Finding(
            "rsync", "warning", "this is openrsync: no --info=progress2, so no overall progress",
            install,
        )  # fmt: skip
    elif not version:
        yield Finding(
            "rsync", "error", "rsync is not installed; push, pull and sync need it", install
        )
    elif version < OLDEST_RSYNC:
        yield Finding("rsync", "warning", f"{facts.rsync} is too old for progress", install)
    else:
        yield Finding("rsync", "ok", " ".join(facts.rsync.split()[:3]))


def check_python(facts: Facts) -> Iterator[Finding]:
    shown = ".".join(map(str, facts.python))
    level: Level = "ok" if facts.python >= OLDEST_PYTHON else "error"
    yield Finding("python", level, f"Python {shown}", "" if level == "ok" else "use 3.11 or later")
    version = _numbers(facts.ansible)
    if not version or version < OLDEST_ANSIBLE:
        found = facts.ansible or "missing"
        fix = "uv tool upgrade --reinstall roost"
        yield Finding("ansible", "error", f"ansible-core is {found}; 2.19 is needed", fix)
    else:
        yield Finding("ansible", "ok", f"ansible-core {facts.ansible}")
    if facts.encoding.replace("-", "") != "utf8":
        fix = "export LC_ALL=C.UTF-8"
        yield Finding("locale", "error", f"Ansible needs UTF-8, not {facts.encoding}", fix)


def check_home(facts: Facts) -> Iterator[Finding]:
    said, real = facts.home
    if said != real:
        yield Finding(
            "home", "warning", f"$HOME is {said}, but ssh reads {real}/.ssh", f"export HOME={real}"
        )
    if facts.folder is not None and facts.folder & 0o022:
        fix = f"chmod go-w {shlex.quote(str(real))}/.ssh"
        yield Finding("~/.ssh", "error", f"others may write to it ({facts.folder:04o})", fix, True)
    if facts.config is not None and facts.config & 0o022:
        fix = f"chmod go-w {shlex.quote(str(real))}/.ssh/config"
        text = f"ssh refuses it: others may write ({facts.config:04o})"
        yield Finding("~/.ssh/config", "error", text, fix, True)


def check_keys(facts: Facts) -> Iterator[Finding]:
    for key in facts.keys:
        if key.mode & 0o077:
            fix = f"chmod 600 {shlex.quote(str(key.path))}"
            text = f"ssh ignores {key.path}: mode {key.mode:04o}"
            yield Finding("key", "error", text, fix, True)
        if not key.has_public:
            fix = f"ssh-keygen -y -f {key.path} > {key.path}.pub"
            yield Finding("key", "note", f"{key.path} has no .pub beside it", fix)
        bits = _numbers(key.kind) or (0,)
        if "(DSA)" in key.kind or ("(RSA)" in key.kind and bits[0] < 2048):
            fix = "ssh-keygen -t ed25519"
            yield Finding("key", "warning", f"{key.path} is refused by today's sshd", fix)
    if not facts.keys and not facts.agent:
        yield Finding("key", "note", "you have no key yet; roost add makes one")


def check_agent(facts: Facts) -> Iterator[Finding]:
    if facts.agent is None:
        fix = 'eval "$(ssh-agent)" && ssh-add'
        yield Finding("agent", "note", "no agent runs: ssh asks for a passphrase each time", fix)
    elif facts.agent < 0:
        fix = "unset SSH_AUTH_SOCK, or start the agent anew"
        yield Finding("agent", "warning", "SSH_AUTH_SOCK names an agent that does not answer", fix)
    elif facts.agent > MANY_KEYS:
        fix = "name the key of each box: roost_identity"
        text = f"the agent offers {facts.agent} keys; a server cuts off after six tries"
        yield Finding("agent", "warning", text, fix)
    else:
        yield Finding("agent", "ok", f"{facts.agent} keys")


def check_control(facts: Facts) -> Iterator[Finding]:
    if facts.control_dir is None:
        text = f"every folder for control sockets is longer than {CONTROL_DIR_MAX} characters"
        fix = "export XDG_RUNTIME_DIR=/run/user/$(id -u), or another short folder of yours"
        yield Finding("control path", "warning", f"{text}: each ssh connects anew", fix)
    else:
        yield Finding("control path", "ok", f"{facts.control_dir}/%C")


def check_tunnels(facts: Facts) -> Iterator[Finding]:
    if facts.doors:
        yield Finding("tunnels", "ok", "their ports on this machine are yours alone")
    else:
        text = "every user of this machine can connect to their ports"
        fix = "where others work: a socket in place of the port, ~/app.sock:localhost:8000"
        yield Finding("tunnels", "note", text, fix)


def check_platform(facts: Facts) -> Iterator[Finding]:
    if facts.workspace and facts.workspace[1] & 0o002:
        root = facts.workspace[0]
        fix = f"export ANSIBLE_CONFIG={root}/ansible.cfg, for plain ansible"
        text = f"everybody may write to {root}: Ansible ignores its ansible.cfg"
        yield Finding("workspace", "warning", text, fix)
    if "microsoft" not in facts.kernel.lower():
        return
    if facts.workspace and str(facts.workspace[0]).startswith("/mnt/"):
        text = "the workspace lies on a Windows disk: no modes, and slow"
        yield Finding("WSL", "warning", text, "move it into the Linux home")
    if str(facts.home[1]).startswith("/mnt/"):
        text = "keys on a Windows disk have no modes: ssh ignores them"
        yield Finding("WSL", "error", text, "copy ~/.ssh into the Linux home")
    fix = "for Windows programs: their own OpenSSH, in %USERPROFILE%\\.ssh"
    yield Finding("WSL", "note", "editors on Windows do not read this ~/.ssh/config", fix)


def check_mac(facts: Facts) -> Iterator[Finding]:
    if facts.platform != "darwin":
        return
    if facts.environ.get("OBJC_DISABLE_INITIALIZE_FORK_SAFETY") != "YES":
        text = "plain ansible may crash when it forks; roost sets what is needed itself"
        fix = "export OBJC_DISABLE_INITIALIZE_FORK_SAFETY=YES"
        yield Finding("macOS", "note", text, fix)


CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    check_ssh,
    check_rsync,
    check_python,
    check_home,
    check_keys,
    check_agent,
    check_control,
    check_tunnels,
    check_platform,
    check_mac,
)


def _numbers(text: str) -> tuple[int, ...]:
    found = re.match(r"\s*v?(\d+)(?:\.(\d+))?", text)
    return tuple(int(n) for n in found.groups() if n) if found else ()
