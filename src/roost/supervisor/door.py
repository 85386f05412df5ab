"""Run the ssh of a tunnel, and let only its own user's connections into its local ports.

``python -m roost.supervisor.door ssh ARGUMENT...`` starts ssh, writes its process id on a line of
standard output, and ends with it; ssh ends with this process, too.

A TCP port on loopback is open to every user of this machine, and ssh does not ask who comes. So
the kernel asks here whenever ssh takes a connection (seccomp_unotify(2)): this process takes it,
asks whose it is, and hands it to ssh only if it is this user's. ssh then carries it like any
other. Where the kernel does not do that (before Linux 5.14, or where a container forbids it), ssh
takes what comes; ``works`` tells.

Sources: seccomp(2), seccomp_unotify(2), pidfd_getfd(2), linux/seccomp.h, linux/filter.h,
linux/audit.h, and each architecture's table of system calls.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

from roost import peers

# By machine: its AUDIT_ARCH, and the numbers of accept, accept4 and seccomp.
_MACHINES = {
    "x86_64": (0xC000003E, 43, 288, 317),
    "aarch64": (0xC00000B7, 202, 242, 277),
    "riscv64": (0xC00000F3, 202, 242, 277),
}
_PIDFD_GETFD = 438
_SET_PDEATHSIG, _SET_NO_NEW_PRIVS = 1, 38
_SET_FILTER, _SPEC_ALLOW, _NEW_LISTENER, _WAIT_KILLABLE = 1, 1 << 2, 1 << 3, 1 << 5
_RECEIVE, _ANSWER, _STILL_ASKED, _GIVE = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103
_GO_ON, _GIVE_AS_ANSWER = 1, 2
_QUESTION = struct.Struct("=QIIiIQ6Q")  # seccomp_notif
_REPLY = struct.Struct("=QqiI")  # seccomp_notif_resp
_GIFT = struct.Struct("=QIIII")  # seccomp_notif_addfd
# Of the trial: seconds for a connection, and how often one is asked for.
_PATIENCE, _TRIES = 5.0, 500

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *words: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Door:
    """A process that gets no connection on loopback but those of this user; what it starts neither.

    Args:
        run: what the process does.
        guarded: false where it shall take what comes.
        quiet: say nothing of what goes wrong in it.
    """

    def __init__(
        self, run: Callable[[], object], *, guarded: bool = True, quiet: bool = False
    ) -> None:
        ours, its = socket.socketpair()
        parent = os.getpid()
        self.let_in = 0
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _prepare(its, parent, guarded=guarded)
                run()
                os._exit(0)
            except OSError as error:
                if not quiet:
                    os.write(sys.stderr.fileno(), f"{error}\n".encode())
            finally:
                os._exit(127)
        its.close()
        self._process = os.pidfd_open(self.pid)
        with ours:
            _, self._questions, _, _ = socket.recv_fds(ours, 1, 1)

    def serve(self) -> int:
        """Answer until the process has ended, and return its exit code.

        Raises:
            PermissionError: nobody may look at the process's sockets.
        """
        waiting = select.poll()
        for number in (self._process, *self._questions):
            waiting.register(number, select.POLLIN)
        while self._process not in (ready := [number for number, _ in waiting.poll()]):
            for number in ready:
                # Who asks may be gone, before the question is read or before it is answered.
                with suppress(FileNotFoundError, ProcessLookupError):
                    self._answer(number)
        for number in (self._process, *self._questions):
            os.close(number)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _answer(self, questions: int) -> None:
        raw = bytearray(_QUESTION.size)
        fcntl.ioctl(questions, _RECEIVE, raw)
        number, thread, _, call, _, _, *words = _QUESTION.unpack(raw)
        asker = _process_of(thread)
        process = os.pidfd_open(asker)
        try:
            # Still the one that asks: so long nobody else can have its number.
            fcntl.ioctl(questions, _STILL_ASKED, struct.pack("=Q", number))
            taken = _take(process, words[0])
            if taken is None:
                reply = _REPLY.pack(number, 0, 0, _GO_ON)
            else:
                accept4 = call == _MACHINES[os.uname().machine][2]
                with taken:
                    self._give(taken, questions, number, words[3] if accept4 else 0)
                return
        except OSError as error:
            gone = isinstance(error, (FileNotFoundError, ProcessLookupError))
            # Where nobody may look at ssh it would ask again at once, for ever.
            if gone or (isinstance(error, PermissionError) and asker == self.pid):
                raise
            reply = _REPLY.pack(number, 0, -(error.errno or errno.ECONNABORTED), 0)
        finally:
            os.close(process)
        fcntl.ioctl(questions, _ANSWER, reply)

    def _give(self, taken: socket.socket, questions: int, number: int, flags: int) -> None:
        taken.setblocking(not flags & socket.SOCK_NONBLOCK)
        gift = (number, _GIVE_AS_ANSWER, taken.fileno(), 0, flags & socket.SOCK_CLOEXEC)
        fcntl.ioctl(questions, _GIVE, _GIFT.pack(*gift))
        self.let_in += 1


def _process_of(thread: int) -> int:
    with open(f"/proc/{thread}/status", encoding="utf-8") as file:  # noqa: PTH123
        return int(file.read().split("\nTgid:", 1)[1].split(None, 1)[0])


def _take(process: int, number: int) -> socket.socket | None:
    """The next connection of this user at the socket ``number`` of a process.

    ssh learns nothing of the address that accept(2) would have told: it asks the connection.

    Args:
        process: its pidfd.
        number: the descriptor there.

    Returns:
        The connection; None where the process may take it itself, since the socket is not one that
        listens on loopback.

    Raises:
        OSError: there is none, or the socket cannot be had.
    """
    same = _call(_PIDFD_GETFD, process, ctypes.c_int(number), 0)
    with socket.socket(fileno=same) as listener:
        if not _on_loopback(listener):
            return None
        # It is the same open socket: whether it waits is for ssh to choose, and not asked here.
        if select.select([listener], [], [], 0)[0]:
            taken, _ = listener.accept()
            if peers.is_ours(taken):
                return taken
            taken.close()
    # ssh asks again where there is another one.
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _on_loopback(listener: socket.socket) -> bool:
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    host: str = listener.getsockname()[0]
    return host == "::1" or host.startswith("127.")


def _prepare(line: socket.socket, parent: int, *, guarded: bool) -> None:
    """In the new process: ask from now on, and send the descriptor where the questions arrive.

    Raises:
        OSError: the kernel does not do that; the process is not to run without it.
    """
    # Python ignores these, and what it runs would, too.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    _libc.prctl(_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    if guarded:
        questions = _filter()
        socket.send_fds(line, [b"."], [questions])
        os.close(questions)


def _filter() -> int:
    """Have every accept(2) of this process asked for.

    Returns:
        The descriptor where the questions arrive.

    Raises:
        OSError: the kernel does not do that.
    """
    machine, accept, accept4, seccomp = _MACHINES.get(os.uname().machine, (0, 0, 0, -1))
    load, unless, done = 0x20, 0x15, 0x06
    program = [
        (load, 0, 0, 4),
        (unless, 0, 3, machine),
        (load, 0, 0, 0),
        (unless, 2, 0, accept),
        (unless, 1, 0, accept4),
        (done, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
        (done, 0, 0, 0x7FC00000),  # SECCOMP_RET_USER_NOTIF
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    # Without it only root may set a filter: what ssh starts gets no rights by sudo from here on.
    _libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Until Linux 5.15 a filter slowed all memory down, as if the program were not to be trusted.
    flags = _NEW_LISTENER | _SPEC_ALLOW
    try:
        # Since Linux 5.19 no signal but a deadly one comes between a question and its answer.
        return _call(seccomp, _SET_FILTER, flags | _WAIT_KILLABLE, head)
    except OSError:
        return _call(seccomp, _SET_FILTER, flags, head)


def works() -> bool:
    """Whether the kernel lets a door be set up here: tried with a connection of our own.

    Raises:
        OSError: it cannot be tried.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=_PATIENCE),
    ):

        def take() -> None:
            # Others may stand in front of us, as many as the backlog holds.
            for _ in range(_TRIES):
                with suppress(BlockingIOError):
                    server.accept()
                    return
            raise TimeoutError

        door = Door(take, quiet=True)
        return door.serve() == 0 and door.let_in == 1


def main(argv: list[str]) -> int:
    """Run ``argv`` behind a door, where there can be one, and return its exit code.

    Without arguments only the exit code tells whether there can be one.
    """
    try:
        guarded = works()
        if not argv:
            return int(not guarded)
        told = os.dup(sys.stdout.fileno())
        # What ssh writes there belongs to its messages.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        door = Door(lambda: os.execvp(argv[0], argv), guarded=guarded)  # noqa: S606
        # Who ends them both waits for this one, and ssh has something to clear away.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(told, b"%d\n" % door.pid)
        os.close(told)
        return door.serve()
    except OSError as error:
        sys.exit(f"the door before the ports of the tunnel: {error}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
