"""What can be wrong with a box, by what docs/what-it-changes.md says that roost manages there.

Written without a look at what a seal covers: here it shows what a seal leaves out.
"""

from __future__ import annotations

from tampers import KEEP, Tamper

ENVIRONMENT = "/opt/roost/envs/default"
KERNELS = "/usr/local/share/jupyter/kernels"
RELEASES = "/opt/roost/jupyter"
KEYS = "/etc/ssh/authorized_keys.d"
UNITS = "/etc/systemd/system"


def _edit(path: str, change: str) -> tuple[str, str]:
    return f"cp -a {path} {KEEP}; {change}", f"rm -rf {path}; mv -T {KEEP} {path}"


def _append(path: str, line: str = "# x") -> tuple[str, str]:
    return _edit(path, f"echo '{line}' >>{path}")


def _gone(path: str) -> tuple[str, str]:
    return f"mv {path} {KEEP}", f"mv -T {KEEP} {path}"


def _new(path: str, text: str = "x") -> tuple[str, str]:
    return f"printf '%s\\n' '{text}' >{path}", f"rm {path}"


def _mode(path: str, wrong: str, right: str) -> tuple[str, str]:
    return f"chmod {wrong} {path}", f"chmod {right} {path}"


def _unit(verb: str, back: str, unit: str) -> tuple[str, str]:
    return f"systemctl {verb} {unit}", f"systemctl {back} {unit}"


_WORDS: dict[str, tuple[str, str]] = {
    # base
    "package removed": (
        "dpkg --force-all -r task-spooler",
        "apt-get install -qq --yes --no-install-recommends task-spooler",
    ),
    "package held": ("apt-mark hold rsync", "apt-mark unhold rsync"),
    "a proxy for apt": _new("/etc/apt/apt.conf.d/01roost-proxy", "// nothing"),
    "upgrades off": _append("/etc/apt/apt.conf.d/52roost", "// x"),
    "memory guard's drop-in gone": _gone(f"{UNITS}/earlyoom.service.d/50-roost.conf"),
    "memory guard disabled": _unit("disable", "enable", "earlyoom"),
    "memory guard masked": (
        "systemctl mask earlyoom",
        "systemctl unmask earlyoom; systemctl enable earlyoom",
    ),
    "limit of logins": _append(f"{UNITS}/user-.slice.d/50-roost.conf", "TasksMax=5"),
    "a unit not reloaded": (
        f"mkdir -p {UNITS}/earlyoom.service.d; echo '[Unit]' >{UNITS}/earlyoom.service.d/zz.conf",
        f"rm {UNITS}/earlyoom.service.d/zz.conf; systemctl daemon-reload",
    ),
    "another language": _edit(
        "/etc/default/locale", "sed -i 's/^LANG=.*/LANG=C/' /etc/default/locale"
    ),
    "a certificate of ours": _new("/usr/local/share/ca-certificates/roost-x.crt"),
    "uv's settings": _gone("/etc/uv/uv.toml"),
    # people
    "a key added": _append(f"{KEYS}/ann", "ssh-ed25519 AAAA evil"),
    "a key file gone": _gone(f"{KEYS}/bob"),
    "a key file that others write": _mode(f"{KEYS}/ann", "0666", "0644"),
    "the key folder closed": _mode(KEYS, "0700", "0755"),
    "a key file of nobody": _new(f"{KEYS}/nobody2"),
    "the way back for who left": _new(f"{KEYS}/eve", "ssh-ed25519 AAAA evil"),
    "who left is open again": ("usermod -e '' eve", "usermod -e 1 eve"),
    "who left runs something": (
        "systemd-run --quiet --uid=eve --unit=eve-runs sleep 600",
        "systemctl stop eve-runs",
    ),
    "who left lingers": _new("/var/lib/systemd/linger/eve", ""),
    "who left has a cron table": (
        "mkdir -p /var/spool/cron/crontabs; touch /var/spool/cron/crontabs/eve",
        "rm /var/spool/cron/crontabs/eve",
    ),
    "member dropped": ("gpasswd -d ann video", "gpasswd -a ann video"),
    "full name": ("usermod -c Nobody ann", "usermod -c 'Ann Lee' ann"),
    "end date": ("chage -E -1 bob", "chage -E 2999-02-01 bob"),
    "sudo for bob": _append("/etc/sudoers.d/roost-people", "bob ALL=(ALL:ALL) NOPASSWD: ALL"),
    "sudoers readable": _mode("/etc/sudoers.d/roost-jupyter", "0444", "0440"),
    # sshd
    "sshd's drop-in": _append("/etc/ssh/sshd_config.d/00-roost.conf", "X11Forwarding yes"),
    "sshd overridden": _new("/etc/ssh/sshd_config.d/00-a.conf", "X11Forwarding yes"),
    "sshd's main file": _edit(
        "/etc/ssh/sshd_config", "sed -i '1i X11Forwarding yes' /etc/ssh/sshd_config"
    ),
    # tmux, rmate
    "tmux.conf": _append("/etc/tmux.conf"),
    "tmux's program": _mode("/opt/roost/bin/roost-tmux-status", "0644", "0755"),
    "logind": _gone("/etc/systemd/logind.conf.d/roost-tmux.conf"),
    "rmate": _edit("/opt/roost/bin/rmate", "truncate -s -1 /opt/roost/bin/rmate"),
    "somebody's rmate": _edit("/usr/local/bin/rmate", "echo '#!/bin/sh' >/usr/local/bin/rmate"),
    # python
    "uv gone": _gone("/opt/roost/uv"),
    "another uv": _edit(
        "/opt/roost/uv/bin/uv", "printf '#!/bin/sh\\necho uv 0.1\\n' >/opt/roost/uv/bin/uv"
    ),
    "no link to uv": _gone("/usr/local/bin/uv"),
    "kernel deleted": _gone(f"{KERNELS}/python3"),
    "kernel edited": _edit(
        f"{KERNELS}/python3/kernel.json", f"sed -i s/3/4/ {KERNELS}/python3/kernel.json"
    ),
    "a second kernel of ours": (
        f"cp -a {KERNELS}/python3 {KERNELS}/again", f"rm -r {KERNELS}/again"
    ),
    "environment gone": _gone(ENVIRONMENT),
    "interpreter gone": _gone(f"{ENVIRONMENT}/bin/python"),
    "module removed": (
        f"cp -a {ENVIRONMENT} {KEEP}; /opt/roost/uv/bin/uv pip uninstall -q"
        f" --python {ENVIRONMENT}/bin/python ipykernel",
        f"rm -rf {ENVIRONMENT}; mv -T {KEEP} {ENVIRONMENT}",
    ),
    "a person's module removed": (
        f"cp -a ~ann/.venvs/own {KEEP}; rm -r ~ann/.venvs/own/lib/python3*/site-packages/six*",
        f"rm -rf ~ann/.venvs/own; mv -T {KEEP} ~ann/.venvs/own",
    ),
    "a rebuild that broke off": (
        f"mkdir {ENVIRONMENT}.before-rebuild", f"rmdir {ENVIRONMENT}.before-rebuild"
    ),
    # jupyter
    "current leads elsewhere": _edit(f"{RELEASES}/current", f"ln -sfn etc {RELEASES}/current"),
    "release not complete": _gone(f"{RELEASES}/current/roost-complete"),
    "another release": (
        f"mkdir {RELEASES}/0123456789ab", f"rmdir {RELEASES}/0123456789ab"
    ),
    "server stopped": _unit("stop", "start", "roost-jupyter@bob"),
    "server disabled": _unit("disable", "enable", "roost-jupyter@ann"),
    "server of nobody on the list": _unit("enable", "disable", "roost-jupyter@eve"),
    "server's limits": _gone(f"{UNITS}/roost-jupyter@ann.service.d/roost-limits.conf"),
    "server's unit": _append(f"{UNITS}/roost-jupyter@.service"),
    "server's settings": _append(f"{RELEASES}/etc/jupyter_server_config.py"),
    "started as another": _append("/run/roost-jupyter/ann/fingerprint", "x"),
    "a token of nobody": (
        "mkdir /var/lib/roost-jupyter/nobody2", "rmdir /var/lib/roost-jupyter/nobody2"
    ),
}  # fmt: skip

BY_HAND = [Tamper(name, do, undo) for name, (do, undo) in _WORDS.items()]
