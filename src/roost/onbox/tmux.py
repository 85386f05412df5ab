"""The person's own tmux server: its sessions, and new ones that survive the logout."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from roost.onbox.files import read_json, write_json
from roost.onbox.proc import boot
from roost.onbox.store import STATE, Job, RefusalError

TABLE = "roost-job"
LINE = "#{session_created} #{session_attached} #{session_windows} #{@roost_job} #{session_name}"


def output(*argv: str, check: bool = True, stdin: str = "") -> str:
    """Run a program, and return what it prints.

    Raises:
        RefusalError: with ``check``: it failed. Without tmux: always.
    """
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except FileNotFoundError:
        if argv[0] == "tmux":
            fix = "roost up BOX --tags tmux"
            raise RefusalError("tmux is not installed", fix=fix) from None
        return ""
    if check and done.returncode:
        raise RefusalError(f"{argv[0]} failed: {done.stderr.strip()}")
    return done.stdout


def tmux(*args: str, check: bool = True, stdin: str = "") -> str:
    """Run a tmux command.

    Raises:
        RefusalError: tmux is not installed, or (with ``check``) it failed.
    """
    return output("tmux", "-u", *args, check=check, stdin=stdin)


def new_session(*args: str) -> None:
    """``tmux new-session -d``, in a server that the person's logout does not end.

    systemd's KillUserProcesses= ends what a login leaves behind, in its own scope as in one of
    ``systemd-run --scope``. A service of the person's systemd stays, where that lingers.

    Raises:
        RefusalError: tmux fails, or logind would end it.
    """
    login = ("busctl", "get-property", "org.freedesktop.login1", "/org/freedesktop/login1")
    manager = "org.freedesktop.login1.Manager"
    kills = output(*login, manager, "KillUserProcesses", check=False).split() == ["b", "true"]
    if not kills or tmux("list-sessions", check=False):
        # A server that is just about to end takes no more sessions.
        patiently(lambda: tmux("new-session", "-d", *args), "server")
        return
    if output("loginctl", "show-user", str(os.getuid()), "-P", "Linger", check=False) != "yes\n":
        raise RefusalError(
            "it ends everything that a person leaves running at their logout",
            "logind's KillUserProcesses= is on, and no lingering is allowed to you",
            "roost ssh BOX -- sudo loginctl enable-linger '$USER'",
        )
    unit = ("--property=Type=forking", "--property=KillMode=process", "--collect", "--quiet")
    words = ("systemd-run", "--user", *unit, "--", "tmux", "-u", "new-session", "-d", *args)
    # A login while the person's systemd stops or starts gets no session, and does not know it.
    os.environ.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    patiently(lambda: output(*words), "connect")


def patiently(start: Callable[[], object], passing: str) -> None:
    """Call ``start``, for some seconds again where it fails for what passes.

    Args:
        start: raises ``RefusalError`` where it fails.
        passing: a word that is in what it then says.

    Raises:
        RefusalError: it fails for another reason, or does not stop failing.
    """
    for left in reversed(range(50)):
        try:
            start()
        except RefusalError as refusal:
            if not left or passing not in refusal.args[0]:
                raise
            time.sleep(0.1)
        else:
            return


def sessions(make: str | None) -> dict[str, Any]:
    """The sessions that are not jobs, and those that a reboot has ended.

    Args:
        make: a session to make where there is none of that name.
    """
    found = []
    for line in tmux("list-sessions", "-F", LINE, check=False).splitlines():
        created, attached, windows, job, name = line.split(" ", 4)
        numbers = {"created": int(created), "attached": int(attached), "windows": int(windows)}
        if not job:
            found.append({"name": name, **numbers})
    names = {str(s["name"]) for s in found}
    if make and make not in names:
        new_session("-s", make, "-c", os.path.expanduser("~"))
    path = os.path.join(STATE, "sessions.json")
    kept, (this_boot, booted) = read_json(path), boot()
    before = [] if kept.get("boot") in (None, this_boot) else kept["names"]
    os.makedirs(STATE, mode=0o700, exist_ok=True)
    known = names | ({make} if make else set())
    write_json(path, {"boot": this_boot, "names": sorted(known)})
    return {"sessions": found, "lost": before, "rebooted": booted}


def open_job(spec: Job, folder: str) -> None:
    """Start the runner in a session of its own, in which Ctrl-C leaves and does not kill.

    Raises:
        RefusalError: tmux refuses.
    """
    name = spec["session"]
    runner = (sys.executable, "-I", os.path.join(folder, "run.py"), folder)
    new_session("-s", name, "-n", spec["name"], "-x", "120", "-y", "40", "--", *runner)
    at = ("-t", f"={name}:")
    # A short command has ended, and its session with it, before this: so nothing is checked.
    tmux(
        *("set-option", *at, "@roost_job", spec["id"]),
        # What a person's own configuration may say of sessions must not end or keep a job.
        *(";", "set-option", *at, "destroy-unattached", "off"),
        *(";", "set-option", "-w", *at, "remain-on-exit", "off"),
        *(";", "set-option", "-w", *at, "automatic-rename", "off"),
        *(";", "set-option", *at, "key-table", TABLE),
        # A slow line delivers keys in a bunch: taken for a paste, Ctrl-C would reach the job.
        *(";", "set-option", *at, "assume-paste-time", "0"),
        check=False,
    )
    root = tmux("list-keys", "-T", "root", check=False).splitlines()
    keys = [re.sub(r"^(bind-key\s+(?:-r\s+)?-T )root\b", rf"\1{TABLE}", key) for key in root]
    keys.append(f"bind-key -T {TABLE} C-c detach-client")
    tmux("source-file", "-", check=False, stdin="\n".join(keys) + "\n")
