"""The only place that starts a subprocess: argument lists, never a shell, always a time limit."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from roost.errors import MissingProgramError, ProcessError, ProcessTimeoutError

Argv = Sequence[str | os.PathLike[str]]
# Seconds that a program which is to end has to clean up after itself.
GRACE = 3.0


@dataclass(frozen=True)
class Completed:
    """A program that ended: its exit code and what it wrote."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def which(program: str, env: Mapping[str, str] | None = None) -> str | None:
    """The path of ``program``, or None where it is not installed."""
    return shutil.which(program, path=None if env is None else env.get("PATH"))


def display(argv: Argv) -> str:
    """``argv`` as one would type it."""
    return shlex.join(os.fspath(a) for a in argv)


def run(
    argv: Argv,
    *,
    timeout: float | None = 60.0,
    check: bool = True,
    input: str | Callable[[], str] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    fix: str | None = None,
) -> Completed:
    """Run a program to its end and return what it wrote.

    Args:
        argv: the program and its arguments.
        timeout: seconds; the program and its children are killed after that. None: no limit.
        check: raise where the exit code is not 0.
        input: text for its standard input, or what makes it while the program starts; without
            it the input is empty, so that no program waits for a terminal that nobody looks at.
        env: its whole environment; None passes ours on.
        cwd: the folder it runs in.
        fix: the advice that an error carries.

    Raises:
        MissingProgramError: there is no such program.
        ProcessTimeoutError: it did not end in time.
        ProcessError: it ended with another code than 0, and ``check`` is set.
    """
    words = tuple(os.fspath(a) for a in argv)
    stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
    with start(words, stdin=stdin, env=env, cwd=cwd, new_session=True) as child:
        try:
            text = input() if callable(input) else input
            out, err = child.communicate(text, timeout=timeout)
        except subprocess.TimeoutExpired:
            _end_group(child)
            raise ProcessTimeoutError(
                f"{words[0]} did not end within {timeout:g} s", why=display(words), fix=fix
            ) from None
        except BaseException:
            _end_group(child)
            raise
    done = Completed(words, child.returncode, out, err)
    if check and done.returncode != 0:
        detail = (done.stderr or done.stdout).strip()
        raise ProcessError(
            f"{words[0]} failed with exit code {done.returncode}",
            returncode=done.returncode,
            stderr=done.stderr,
            why=detail.splitlines()[-1] if detail else display(words),
            fix=fix,
        )
    return done


def start(
    argv: Argv,
    *,
    stdin: int | IO[str] | None = subprocess.DEVNULL,
    stdout: int | IO[str] | None = subprocess.PIPE,
    stderr: int | IO[str] | None = subprocess.PIPE,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    new_session: bool = False,
) -> subprocess.Popen[str]:
    """Start a program and return it while it runs; the caller ends it.

    Args:
        argv: the program and its arguments.
        stdin: as for ``subprocess.Popen``; likewise ``stdout`` and ``stderr``.
        stdout: where its output goes; a pipe unless told otherwise.
        stderr: where its messages go; a pipe unless told otherwise.
        env: its whole environment; None passes ours on.
        cwd: the folder it runs in.
        new_session: detach it from the terminal, so that Ctrl-C does not reach it.

    Raises:
        MissingProgramError: there is no such program.
    """
    words = [os.fspath(a) for a in argv]
    try:
        return subprocess.Popen(
            words,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=None if env is None else dict(env),
            cwd=cwd,
            text=True,
            errors="replace",
            start_new_session=new_session,
        )
    except (FileNotFoundError, PermissionError) as error:
        if cwd is not None and not cwd.is_dir():
            raise ProcessError(f"the folder {cwd} does not exist") from error
        raise MissingProgramError(
            f"{words[0]} is not installed, or not on the PATH", fix=f"install {words[0]}"
        ) from error


def interactive(argv: Argv, *, env: Mapping[str, str] | None = None) -> int:
    """Run a program on the user's own terminal and return its exit code.

    Ctrl-C goes to the program alone, as in a shell: it decides what that means.

    Raises:
        MissingProgramError: there is no such program.
    """
    with (
        _interrupt_is_the_programs(),
        start(argv, stdin=None, stdout=None, stderr=None, env=env) as child,
    ):
        return child.wait()


def replace(argv: Argv, *, env: Mapping[str, str] | None = None) -> None:
    """Become the program (exec): for ``roost ssh``, where nothing of ours is left to do.

    Raises:
        MissingProgramError: there is no such program.
    """
    words = [os.fspath(a) for a in argv]
    try:
        os.execvpe(words[0], words, dict(os.environ if env is None else env))  # noqa: S606
    except FileNotFoundError as error:
        raise MissingProgramError(f"{words[0]} is not installed") from error


@contextlib.contextmanager
def _interrupt_is_the_programs() -> Iterator[None]:
    # Not SIG_IGN: that would be inherited through exec, and the program would be deaf too.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_group(child: subprocess.Popen[str]) -> None:
    """End a program and its children, politely first.

    A podman that is killed in the middle of a start forgets the container that it had half made.
    """
    try:
        _signal_group(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
    finally:
        _signal_group(child, signal.SIGKILL)
        child.wait()


def _signal_group(child: subprocess.Popen[str], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)
