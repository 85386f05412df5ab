"""Programs that run side by side while other things are looked at.

The module subprocess would do; to import it takes longer than most programs here run.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
# What Python ignores, and a program must not: SIGPIPE and SIGXFSZ, signal(7).
_IGNORED = (13, 25)


class Program:
    """A program that has been started; its messages on standard error are lost.

    Args:
        argv: the program, looked for where the system's own programs are, and its arguments.
        text: for its standard input.
    """

    def __init__(self, argv: Sequence[str], text: str = "") -> None:
        self._pid = 0
        self._answer, written = os.pipe()
        said = os.memfd_create("stdin")
        try:
            os.write(said, text.encode())
            os.lseek(said, 0, os.SEEK_SET)
            streams = [
                (os.POSIX_SPAWN_DUP2, said, 0),
                (os.POSIX_SPAWN_DUP2, written, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ]
            self._pid = os.posix_spawn(
                _path(argv[0]), list(argv), ENVIRONMENT, file_actions=streams, setsigdef=_IGNORED
            )
        except OSError:  # such as one that is gone
            pass
        finally:
            os.close(said)
            os.close(written)

    def said(self) -> tuple[str, str]:
        """What it wrote, and its exit code, when it has ended; may be asked once."""
        with open(self._answer, "rb") as file:
            out = file.read()
        if not self._pid:
            return "", "cannot be run"
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return out.decode("utf-8", "replace"), str(code)


def _path(name: str) -> str:
    if "/" not in name:
        for folder in ENVIRONMENT["PATH"].split(":"):
            if os.access(os.path.join(folder, name), os.X_OK):
                return os.path.join(folder, name)
    return name
