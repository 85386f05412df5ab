"""Run one job in a tmux pane, and write down all that it prints and how it ends.

Its folder holds ``job.json``, what was asked for. Written there:

- ``log``: every byte that the command printed;
- ``times``: lines ``SECONDS OFFSET``: when that byte of the log came, one a second at most;
- ``state.json``: what the job is doing, or how it ended.

The command has a terminal of its own, between it and tmux's: so the log begins before the
command does, nothing is lost at its end, and what it leaves running keeps its terminal.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import tty
from typing import Any

from roost.onbox.command import environment, lead
from roost.onbox.files import read_json, write_json_patiently
from roost.onbox.logfile import Log
from roost.onbox.memory import cause, oom_kills
from roost.onbox.proc import family, started
from roost.onbox.store import STATE, processes_of

# How long after the end of a command that was killed our own end is awaited: when the machine
# shuts down both are told to stop, in no certain order.
SHUTDOWN_WINDOW = 1.0
UNASKED = (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP)
PATIENCE = 10.0


class Runner:
    """One job, from before its start until nothing of it writes any more."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.spec = read_json(os.path.join(folder, "job.json"))
        self.log = Log(folder)
        self.state: dict[str, Any] = {"state": "starting"}
        self.process: dict[str, Any] = {
            "runner": os.getpid(),
            "runner_started": started(os.getpid()),
        }
        self.told: list[int] = []
        self.deadline: float | None = None
        self.pane = True
        self.oom = oom_kills()
        self.leader = 0
        self.master = self.lock = -1
        self.wake, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def write_state(self, **news: Any) -> None:
        """Note what is new, for whoever asks."""
        self.state.update(news)
        path = os.path.join(self.folder, "state.json")
        write_json_patiently(path, {**self.state, "process": self.process})

    def take_turn(self) -> bool:
        """Wait in the queue; false where the job was stopped before its turn.

        task-spooler decides whose turn it is. What it runs for us only says so, and then holds
        the place until our lock is free: at the command's end, or at ours, whatever ends us.
        """
        lock = os.open(os.path.join(self.folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        self.lock = lock
        self.write_state(state="queued")
        env = {**os.environ, "TS_SOCKET": os.path.join(STATE, "queue")}
        if self.spec.get("at_once"):
            subprocess.run(["tsp", "-S", str(self.spec["at_once"])], env=env, check=False)  # noqa: S607
        place = (sys.executable, "-I", sys.argv[0], "--hold", self.folder)
        waiting = subprocess.Popen(
            ["tsp", "-n", "-f", "-L", self.spec["id"], *place],  # noqa: S607
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        turn = waiting.stdout.fileno() if waiting.stdout else -1
        while True:
            ready = select.select([turn, self.wake], [], [])[0]
            if turn in ready:
                if os.read(turn, 64):
                    return True
                waiting.wait()
                self.write_state(
                    state="ended", end=time.time(), code=1, reason="the queue was shut down"
                )
                return False
            numbers = set(os.read(self.wake, 64)) - {signal.SIGWINCH}
            if numbers:
                waiting.kill()
                self.told = sorted(numbers)
                self.finish({"code": None, "signal": None, "reason": "before its turn"})
                return False

    def start(self) -> None:
        """Open the terminal and start the command on it."""
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
            if self.lock >= 0:
                os.close(self.lock)
            signal.set_wakeup_fd(-1)
            lead(self.spec, env, self.slave, report_write, release_read)
        os.close(report_write)
        os.close(release_read)
        self.process["leader"] = self.leader
        self.write_state(state="starting", start=time.time())
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
        inputs = [self.master, self.report, self.wake] + ([0] if os.isatty(0) else [])
        while True:
            timeout = None if self.deadline is None else max(0.0, self.deadline - time.time())
            ready = select.select(inputs, [], [], timeout)[0]
            if self.deadline is not None and time.time() >= self.deadline:
                self.deadline = None
                self.signal_all(signal.SIGKILL)
            if self.wake in ready:
                self.signals(os.read(self.wake, 64))
            if 0 in ready and not self.keys():
                inputs.remove(0)
            if self.master in ready and not self.copy():
                break
            if self.report in ready:
                data = os.read(self.report, 65536)
                *lines, buffered = (buffered + data).split(b"\n")
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

    def copy(self) -> bool:
        """Pass on what the command printed; false where nobody has its terminal open any more."""
        try:
            data = os.read(self.master, 65536)
        except OSError:
            data = b""
        if not data:
            self.log.write(b"", cooked=False)
            return False
        modes = termios.tcgetattr(self.master)[1]
        self.log.write(data, cooked=bool(modes & termios.OPOST and modes & termios.ONLCR))
        while data and self.pane:
            try:
                data = data[os.write(1, data) :]
            except OSError:
                self.pane = False
        return True

    def drain(self) -> None:
        """Take what the command printed before it ended; what it left running may go on."""
        for _ in range(64):
            if not select.select([self.master], [], [], 0)[0] or not self.copy():
                return

    def reported(self, news: dict[str, Any]) -> None:
        """Take the leader's word on the command's start or end."""
        if "begun" in news:
            self.process["command"] = news["begun"]
            self.write_state(state="running", start=time.time())
        elif "failure" in news:
            self.state["reason"] = news["failure"]
        else:
            self.drain()
            self.log.write(b"", cooked=False)
            # A shell whose command was killed ends by itself, with 128 and the signal's number.
            if (news["signal"] or news["code"] - 128) in UNASKED and not self.asked():
                late = select.select([self.wake], [], [], SHUTDOWN_WINDOW)[0]
                self.signals(os.read(self.wake, 64) if late else b"")
            self.finish(news)

    def report_closed(self) -> None:
        """The leader ends its reports: from now on the terminal closes with its last user."""
        if "end" not in self.state:
            reason = "the process that watched it was killed"
            self.finish({"code": None, "signal": None, "reason": reason})
        os.close(self.slave)

    def finish(self, news: dict[str, Any]) -> None:
        """Write down how the command ended."""
        number = news.pop("signal")
        self.state.update(news, state="ended", end=time.time())
        if number:
            self.state["signal"] = signal.Signals(number).name
        unasked = not self.asked() and not self.told
        if news.get("code") and unasked and "reason" not in self.state:
            begun = self.state["start"]
            self.state["reason"] = cause(self.process["command"], begun, self.oom, number)
        if self.asked():
            self.state["state"] = "stopped"
        elif self.told or news.get("code") is None:
            self.state["state"] = "lost"
        self.write_state()
        if self.spec.get("queue"):
            fcntl.flock(self.lock, fcntl.LOCK_UN)

    def asked(self) -> dict[str, Any]:
        """A request to stop, where there is one: its signal, and its patience in seconds."""
        return read_json(os.path.join(self.folder, "stop"))

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
                self.signal_all(int(ask.get("signal", number)))
                self.deadline = time.time() + float(ask.get("grace", PATIENCE))

    def signal_all(self, number: int) -> None:
        """Send a signal to the command and to all that it started."""
        for pid in {*family(self.leader), *processes_of(self.spec)}:
            with contextlib.suppress(OSError):
                os.kill(pid, number)


def hold(folder: str) -> None:
    """Say that it is the job's turn, and keep its place in the queue until the job is over."""
    print("turn", flush=True)  # noqa: T201 - the runner reads it
    with open(os.path.join(folder, "lock"), encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def main() -> None:
    """Run the job in the folder that the argument names, or (``--hold``) keep its place."""
    if sys.argv[1] == "--hold":
        hold(sys.argv[2])
        return
    runner = Runner(sys.argv[1])
    if not runner.spec.get("queue") or runner.take_turn():
        runner.start()
        runner.run()
