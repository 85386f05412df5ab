"""Ask the jobs program on a box, over ssh, and read its answer as it comes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from roost import onbox, process, ssh
from roost.errors import ProcessError, RoostError, SshError
from roost.model import Box, Fleet

# The box's own Python, whatever else is on the PATH there; -I: no file of the person's has a say.
PYTHON = "exec /usr/bin/python3 -I -X utf8 -"
MARK = b"\x1eroost 1\n"
NO_PROGRAM = 127
# The program there sends something every 10 seconds: this much silence is a dead connection.
SILENCE = 40.0
# A shared connection that has died would hold a new one up until ssh notices.
ALONE = ("-o", "ControlMaster=no", "-o", "ControlPath=none")


@dataclass(frozen=True)
class Remote:
    """One box and the way to it.

    Attributes:
        config: the workspace's ssh config.
        box: the box.
        fleet: where the gateways are found that an error may be about.
    """

    config: Path
    box: Box
    fleet: Fleet | None = None


@dataclass(frozen=True)
class At:
    """Which job it is, and where in its log the data begins."""

    job: str
    offset: int


@dataclass(frozen=True)
class Result:
    """What the program there answers in the end."""

    value: Any


def ask(remote: Remote, request: Mapping[str, Any]) -> Any:
    """The answer to one request.

    Raises:
        RoostError: the box refuses.
        UnreachableError: it does not answer, or does not let us in.
        SshError: the connection broke.
    """
    return next(part.value for part in talk(remote, request) if isinstance(part, Result))


def talk(
    remote: Remote, request: Mapping[str, Any], *, alone: bool = False
) -> Iterator[At | bytes | Result]:
    """Send one request and give what comes back: for a log its place and its bytes.

    The last part is a ``Result``; without one, an error is raised.

    Args:
        remote: the box.
        request: what the program there is to do; see ``roost.onbox.agent``.
        alone: do not share a connection that is open already.

    Raises:
        RoostError: the box refuses.
        UnreachableError: it does not answer, or does not let us in.
        SshError: the connection broke.
    """
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={ssh.CONNECT_SECONDS}"]
    argv = ssh.command(
        remote.config,
        remote.box.name,
        ssh.remote_sh(PYTHON),
        options=[*options, *(ALONE if alone else ())],
    )
    import tempfile

    with tempfile.TemporaryFile("w+", errors="replace") as said:
        child = process.start(argv, stdin=subprocess.PIPE, stderr=said, new_session=True)
        try:
            _send(child, _program(request))
            reader = _Reader(_raw(child.stdout).fileno())
            if reader.skip_to(MARK):
                for part in _parts(remote, reader):
                    yield part
                    if isinstance(part, Result):
                        return
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(1)
            said.seek(0)
            raise _failure(remote, child.poll(), said.read())
        finally:
            child.kill()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    cast(io.TextIOWrapper, pipe).close()
            child.wait()


def _parts(remote: Remote, reader: _Reader) -> Iterator[At | bytes | Result]:
    while (line := reader.line()) is not None:
        kind, _, rest = line.partition(" ")
        if kind == "o":
            offset, _, job = rest.partition(" ")
            yield At(job, int(offset))
        elif kind == "d":
            yield from reader.data(int(rest))
        elif kind == "e":
            yield Result(json.loads(rest))
            return
        elif kind == "r":
            what, why, fix = json.loads(rest)
            name = remote.box.name
            fix = fix.replace("BOX", name) if fix else None
            raise RoostError(f"{name}: {what}", why=why, fix=fix)


class _Reader:
    """Lines and counted bytes from a pipe; its end, or a long silence, ends them."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._held = b""

    def _more(self) -> bool:
        if not select.select([self._fd], [], [], SILENCE)[0]:
            return False
        data = os.read(self._fd, 1 << 16)
        self._held += data
        return bool(data)

    def skip_to(self, mark: bytes) -> bool:
        """Leave out what a login shell prints before the program begins."""
        while (at := self._held.find(mark)) < 0:
            self._held = self._held[-len(mark) :]
            if not self._more():
                return False
        self._held = self._held[at + len(mark) :]
        return True

    def line(self) -> str | None:
        while (at := self._held.find(b"\n")) < 0:
            if not self._more():
                return None
        line, self._held = self._held[:at], self._held[at + 1 :]
        return line.decode("ascii")

    def data(self, count: int) -> Iterator[bytes]:
        """The next ``count`` bytes, or as many of them as arrive."""
        while count:
            if not self._held and not self._more():
                return
            part, self._held = self._held[:count], self._held[count:]
            count -= len(part)
            yield part


def _raw(pipe: Any) -> io.BufferedIOBase:
    return cast(io.BufferedIOBase, cast(io.TextIOWrapper, pipe).buffer)


def _send(child: subprocess.Popen[str], text: str) -> None:
    # An ssh that has given up already says why on its standard error.
    with contextlib.suppress(BrokenPipeError):
        pipe = cast(io.TextIOWrapper, child.stdin)
        pipe.write(text)
        pipe.close()


def lacks_python(returncode: int | None, stderr: str) -> bool:
    """Whether a box has no Python, or one without its library (Debian's python3-minimal)."""
    # Where sudo was to start it, the exit code is sudo's.
    words = ("No module named", "python3: command not found", "python3: not found")
    return returncode == NO_PROGRAM or any(word in stderr for word in words)


def _failure(remote: Remote, returncode: int | None, stderr: str) -> RoostError:
    name = remote.box.name
    if returncode is None or returncode < 0:
        return SshError(f"{name} has stopped answering", fix="try again")
    if returncode == ssh.TRANSPORT_FAILED:
        from roost.ssh_failure import explain_failure

        return explain_failure(remote.box, stderr, remote.fleet)
    if lacks_python(returncode, stderr):
        return RoostError(f"{name} has no complete Python", fix=f"provision it: roost up {name}")
    lines = [line for line in stderr.splitlines() if line.strip()]
    return ProcessError(
        f"a command on {name} failed with exit code {returncode}",
        returncode=returncode,
        stderr=stderr,
        why=lines[-1].strip() if lines else None,
    )


def _program(request: Mapping[str, Any]) -> str:
    literal = json.dumps(json.dumps(request))
    return bundle(onbox.AGENT, f"import json; agent.main(json.loads({literal}))")


# Each module is compiled when a name in it is first asked for, and many are not.
_LAZILY = """\
import sys
class Lazy(type(sys)):
    def __init__(self, name, text):
        super().__init__(name)
        self.text = text
        sys.modules[name] = self
    def __getattr__(self, name):
        if name.startswith('__') or 'text' not in self.__dict__:
            raise AttributeError(name)
        text = self.__dict__.pop('text')
        exec(compile(text, self.__name__.rpartition('.')[2] + '.py', 'exec'), self.__dict__)
        return getattr(self, name)
"""


def bundle(modules: Sequence[str], call: str) -> str:
    """One Python program, all ASCII, made of modules of ``roost.onbox``.

    Args:
        modules: their names.
        call: what it does in the end; each module has its own name there.
    """
    lines = [_LAZILY]
    for name in modules:
        # A JSON string is a Python string, too.
        text = json.dumps(onbox.text(f"{name}.py"))
        lines.append(f"{name} = Lazy('roost.onbox.{name}', {text})")
    return "\n".join([*lines, call, ""])
