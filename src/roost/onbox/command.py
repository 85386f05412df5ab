"""Start a job's command: its environment, its terminal, and the process that sees its end."""

import contextlib
import errno
import fcntl
import json
import os
import pwd
import signal
import subprocess
import termios
from typing import Any

from roost.onbox.proc import family
from roost.onbox.store import MARK as JOB_MARK
from roost.onbox.store import mark_of

MARK = b"\x1eroost environment\n"
LONGEST_PROFILE = 20.0

Spec = dict[str, Any]


def login_environment() -> dict[str, str]:
    """The environment that the person's login shell sets up (PATH, above all)."""
    shell = pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    command = "printf '\\036roost environment\\n'; exec env -0"
    plain = dict(os.environ)
    try:
        done = subprocess.run(
            [shell, "-l", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LONGEST_PROFILE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return plain
    _, found, listed = done.stdout.partition(MARK)
    if not found:
        return plain
    pairs = (entry.partition(b"=") for entry in listed.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def environment(spec: Spec) -> dict[str, str]:
    """What the command finds in its environment."""
    env = login_environment()
    for name in ("SHLVL", "_", "PWD", "OLDPWD"):
        env.pop(name, None)
    if spec.get("venv"):
        env["VIRTUAL_ENV"] = spec["venv"]
        env["PATH"] = spec["venv"] + "/bin:" + env.get("PATH", os.defpath)
        env.pop("PYTHONHOME", None)
    env.update(spec.get("env") or {})
    env["ROOST_JOB"] = spec["id"]
    env[JOB_MARK] = mark_of(spec)
    return env


def lead(spec: Spec, env: dict[str, str], slave: int, report: int, release: int) -> None:
    """Be the leader of the command's session: start it, report its end, and stay until released.

    The terminal belongs to the session. Were the command its leader, the kernel would hang up
    on whatever the command leaves running.
    """
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    failed_read, failed_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(slave, os.getpid())
        become(spec, env, slave, failed_write)
    os.close(failed_write)
    failure = os.read(failed_read, 4096).decode("utf-8", "replace")
    begun = {"failure": failure} if failure else {"begun": pid}
    os.write(report, (json.dumps(begun) + "\n").encode())
    os.close(slave)
    # The kernel tells the leader alone that the terminal is gone: the runner was killed.
    signal.signal(signal.SIGHUP, lambda *_: hang_up(os.getpid()))
    status, usage = os.wait4(pid, 0)[1:]
    ended = {
        "code": 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status),
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        "cpu_user": usage.ru_utime,
        "cpu_system": usage.ru_stime,
        "max_rss_kib": usage.ru_maxrss,
    }
    with contextlib.suppress(BrokenPipeError):
        os.write(report, (json.dumps(ended) + "\n").encode())
    os.close(report)
    os.read(release, 1)
    os._exit(0)


def hang_up(leader: int) -> None:
    """Tell all of the session."""
    for pid in family(leader):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGHUP)


def become(spec: Spec, env: dict[str, str], slave: int, failed: int) -> None:
    """Turn into the command, or say why not; does not return."""
    try:
        for number in range(1, signal.NSIG):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                try:
                    signal.signal(number, signal.SIG_DFL)
                except (OSError, ValueError):
                    continue
        for fd in (0, 1, 2):
            os.dup2(slave, fd)
        os.chdir(spec["dir"])
        env["PWD"] = spec["dir"]
        os.execvpe(spec["argv"][0], spec["argv"], env)  # noqa: S606 - no shell is the point
    except OSError as error:
        name = spec["argv"][0]
        text = "{}: {}".format(name, "command not found" if error.errno == errno.ENOENT else error)
        os.write(2, (f"roost: {text}\r\n").encode("utf-8", "replace"))
        os.write(failed, text.encode("utf-8", "replace"))
    finally:
        os._exit(127)
