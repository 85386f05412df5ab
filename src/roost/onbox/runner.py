"""Run one job in a tmux pane, and write down all that it prints and how it ends.

Usage: ``python3 -I run.py FOLDER``, where FOLDER holds ``job.json``. Written there:

- ``log``: every byte that the command printed;
- ``times``: lines ``SECONDS OFFSET``: when that byte of the log came, one a second at most;
- ``state.json``: what the job is doing, or how it ended; replaced as a whole.

The command has a terminal of its own, between it and tmux's: so the log begins before the
command does, nothing is lost at its end, and what it leaves running keeps its terminal.
"""

import errno
import fcntl
import json
import os
import pwd
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import tty
from typing import Any

MARK = b"\x1eroost environment\n"
# How long after the end of a command that was killed its own end is awaited: when the machine
# shuts down both are told to stop, in no certain order.
SHUTDOWN_WINDOW = 1.0
UNASKED = (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP)


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
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return plain
    _, found, listed = done.stdout.partition(MARK)
    if not found:
        return plain
    pairs = (entry.partition(b"=") for entry in listed.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def environment(spec: dict[str, Any]) -> dict[str, str]:
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
    return env


def write_state(folder: str, state: dict[str, Any]) -> None:
    """Replace ``state.json``; a reader sees the old one or the new one, whole."""
    path = os.path.join(folder, "state.json")
    while True:
        try:
            with open(path + ".new", "w", encoding="utf-8") as file:
                json.dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path + ".new", path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            time.sleep(1)


def started_at(pid: int) -> str:
    """When a process started, in the kernel's ticks: it tells a process id's users apart."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[19]


def oom_kills() -> int:
    """How many processes the kernel has ended for want of memory since it booted."""
    try:
        with open("/proc/vmstat", encoding="ascii") as file:
            return next((int(s.split()[1]) for s in file if s.startswith("oom_kill ")), 0)
    except OSError:
        return 0


class Log:
    """The log, with the times at which it grew.

    A full disk does not lose output: the command waits, as at a full pipe, until there is room.
    """

    def __init__(self, folder: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.fd = os.open(os.path.join(folder, "log"), flags, 0o600)
        self.times = os.open(os.path.join(folder, "times"), flags, 0o600)
        self.size = os.fstat(self.fd).st_size
        self.stamped = 0

    def write(self, data: bytes) -> None:
        now = int(time.time())
        if now != self.stamped and data:
            self._all(self.times, b"%d %d\n" % (now, self.size))
            self.stamped = now
        self._all(self.fd, data)
        self.size += len(data)

    @staticmethod
    def _all(fd: int, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(fd, data) :]
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                time.sleep(1)


def lead(spec: dict[str, Any], env: dict[str, str], slave: int, report: int, release: int) -> None:
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
    begun = {"pid": pid, "pid_started": started_at(pid)} if not failure else {"failure": failure}
    os.write(report, (json.dumps(begun) + "\n").encode())
    os.close(slave)
    status, usage = os.wait4(pid, 0)[1:]
    ended = {
        "code": 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status),
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        "cpu_user": usage.ru_utime,
        "cpu_system": usage.ru_stime,
        "max_rss_kib": usage.ru_maxrss,
    }
    os.write(report, (json.dumps(ended) + "\n").encode())
    os.close(report)
    os.read(release, 1)
    os._exit(0)


def become(spec: dict[str, Any], env: dict[str, str], slave: int, failed: int) -> None:
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


class Runner:
    """One job, from before its start until nothing of it writes any more."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        with open(os.path.join(folder, "job.json"), encoding="utf-8") as file:
            self.spec: dict[str, Any] = json.load(file)
        self.log = Log(folder)
        self.state: dict[str, Any] = {
            "runner": os.getpid(),
            "runner_started": started_at(os.getpid()),
        }
        self.told: list[int] = []
        self.deadline: float | None = None
        self.pane = True
        self.carry = b""
        self.oom = oom_kills()

    def start(self) -> None:
        """Open the terminal and start the command on it."""
        self.wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        env = environment(self.spec)
        self.master, self.slave = os.openpty()
        self.resize()
        modes = termios.tcgetattr(self.slave)
        # A stray Ctrl-S or Ctrl-Z would hold the job up for good: no shell is there to go on.
        modes[0] &= ~termios.IXON
        modes[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(self.slave, termios.TCSANOW, modes)
        self.report, report_write = os.pipe()
        release_read, self.release = os.pipe()
        self.leader = os.fork()
        if self.leader == 0:
            os.close(self.master)
            os.close(self.release)
            signal.set_wakeup_fd(-1)
            lead(self.spec, env, self.slave, report_write, release_read)
        os.close(report_write)
        os.close(release_read)
        self.state.update(state="starting", leader=self.leader, start=time.time())
        write_state(self.folder, self.state)
        if os.isatty(0):
            tty.setraw(0)

    def resize(self) -> None:
        """Give the command's terminal the size of the pane."""
        try:
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
        except OSError:
            size = struct.pack("HHHH", 40, 120, 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def run(self) -> None:
        """Copy until the terminal is closed by the last that had it open."""
        buffered = b""
        inputs = [self.master, self.report, self.wake_read] + ([0] if os.isatty(0) else [])
        while True:
            timeout = None if self.deadline is None else max(0.0, self.deadline - time.time())
            ready = select.select(inputs, [], [], timeout)[0]
            if self.deadline is not None and time.time() >= self.deadline:
                self.deadline = None
                self.signal_all(signal.SIGKILL)
            if self.wake_read in ready:
                self.signals(os.read(self.wake_read, 64))
            if 0 in ready and not self.keys():
                inputs.remove(0)
            if self.master in ready and not self.copy():
                break
            if self.report in ready:
                data = os.read(self.report, 65536)
                buffered += data
                *lines, buffered = buffered.split(b"\n")
                for line in lines:
                    self.reported(json.loads(line))
                if not data:
                    inputs.remove(self.report)
                    self.report_closed()
        os.close(self.release)
        os.waitpid(self.leader, 0)

    def keys(self) -> bool:
        """Pass on what is typed into the pane; false where the pane is gone."""
        try:
            data = os.read(0, 4096)
            os.write(self.master, data)
        except OSError:
            return False
        return bool(data)

    def copy(self, limit: int = 65536) -> bool:
        """Pass on what the command printed; false where nobody has its terminal open any more."""
        try:
            data = os.read(self.master, limit)
        except OSError:
            data = b""
        if not data:
            self.log.write(self.carry)
            return False
        self.show(data)
        # The terminal turned every newline into CR NL; the log has what the command wrote.
        modes = termios.tcgetattr(self.master)[1]
        if modes & termios.OPOST and modes & termios.ONLCR:
            data = self.carry + data
            keep = len(data) - 1 if data.endswith(b"\r") else len(data)
            data, self.carry = data[:keep].replace(b"\r\n", b"\n"), data[keep:]
        else:
            data, self.carry = self.carry + data, b""
        self.log.write(data)
        return True

    def show(self, data: bytes) -> None:
        """Write into the pane; without one the job goes on all the same."""
        while data and self.pane:
            try:
                data = data[os.write(1, data) :]
            except OSError:
                self.pane = False

    def drain(self) -> None:
        """Take what the command printed before it ended; what it left running may go on."""
        for _ in range(64):
            if not select.select([self.master], [], [], 0)[0] or not self.copy():
                return

    def reported(self, news: dict[str, Any]) -> None:
        """Take the leader's word on the command's start or end."""
        if "pid" in news:
            self.state.update(news, state="running", start=time.time())
            write_state(self.folder, self.state)
            return
        if "failure" in news:
            self.state["reason"] = news["failure"]
            return
        self.drain()
        if news["signal"] in UNASKED and not self.asked():
            late = select.select([self.wake_read], [], [], SHUTDOWN_WINDOW)[0]
            self.signals(os.read(self.wake_read, 64) if late else b"")
        self.finish(news)

    def report_closed(self) -> None:
        """The leader ends its reports: from now on the terminal closes with its last user."""
        if "end" not in self.state:
            self.finish({"code": None, "signal": None})
            self.state["reason"] = "the process that watched it was killed"
            write_state(self.folder, self.state)
        os.close(self.slave)

    def finish(self, news: dict[str, Any]) -> None:
        """Write down how the command ended."""
        number = news.pop("signal")
        self.state.update(news, state="ended", end=time.time())
        if number:
            self.state["signal"] = signal.Signals(number).name
            if number == signal.SIGKILL and oom_kills() > self.oom:
                self.state["reason"] = "the box ran out of memory"
        if self.asked():
            self.state["state"] = "stopped"
        elif self.told or news.get("code") is None:
            self.state["state"] = "lost"
        write_state(self.folder, self.state)

    def asked(self) -> tuple[int, float] | None:
        """The signal and the patience (seconds) of a request to stop, where there is one."""
        try:
            with open(os.path.join(self.folder, "stop"), encoding="utf-8") as file:
                request = json.load(file)
            return int(request["signal"]), float(request["grace"])
        except (OSError, ValueError, KeyError):
            return None

    def signals(self, numbers: bytes) -> None:
        """Act on signals: a new size of the pane, a request to stop, the end of the session."""
        for number in numbers:
            if number == signal.SIGWINCH:
                self.resize()
                continue
            ask = self.asked()
            if not ask:
                self.told.append(number)
                self.pane = self.pane and number != signal.SIGHUP
            if self.deadline is None:
                self.signal_all(ask[0] if ask else number)
                self.deadline = time.time() + (ask[1] if ask else 10.0)

    def signal_all(self, number: int) -> None:
        """Send a signal to the command and to all that it started."""
        for pid in family(self.leader):
            try:
                os.kill(pid, number)
            except OSError:
                continue


def family(leader: int) -> list[int]:
    """The processes of a session, and their descendants in other ones, without the leader."""
    parent, session = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            parent[int(name)], session[int(name)] = int(fields[1]), int(fields[3])
    members = {pid for pid in session if session[pid] == leader} | {leader}
    while True:
        more = {pid for pid in parent if parent[pid] in members} - members
        if not more:
            return sorted(members - {leader})
        members |= more


def main() -> None:
    """Run the job in the folder that the first argument names."""
    runner = Runner(sys.argv[1])
    runner.start()
    runner.run()


if __name__ == "__main__":
    main()
