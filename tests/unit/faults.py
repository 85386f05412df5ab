"""Stop a writer at every change that it makes to the file system, one after another.

``python faults.py every MODE HAS_CONFIG ACTION FOLDER`` stops ``install`` or ``undo`` at its first
change, its second, and so on: killed ``before`` it, ``half`` way through it, right ``after`` it, or
refused the room on the disk (``full``). After each it looks at what is left, and lets another
writer finish. ``python faults.py once CONFIG STATE ACTION`` runs an action undisturbed.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from roost import ssh_probe
from roost.errors import RoostError
from roost.include_line import with_line
from roost.paths import Paths
from roost.ssh_include import UserConfig

LIVED_IN = (
    b"# mine\r\nHost *\r\n\tUser=x\r\nHost old web\r\n HostName 10.9.9.9\r\n"
    b'Match host foo exec "true"\r\n Port 77\r\n# caf\xe9'
)
# Every function of ``os`` that a writer here changes a file system by.
CHANGES = (
    "open", "write", "fsync", "fchmod", "fchown", "chmod", "chown", "replace", "rename", "unlink",
    "remove", "mkdir", "rmdir", "link", "symlink", "truncate", "ftruncate", "setxattr",
)  # fmt: skip


class Faults:
    """Wraps what changes something; the calls are counted from 1."""

    def __init__(self, mode: str, step: int) -> None:
        self.mode = mode
        self.step = step
        self.count = 0

    def arm(self) -> None:
        for name in CHANGES:
            if hasattr(os, name):
                setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                return real(*args, **kwargs)
            self.count += 1
            if self.count != self.step:
                return real(*args, **kwargs)
            if self.mode == "full":
                if name in {"open", "write", "fsync", "mkdir", "replace", "setxattr"}:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(*args, **kwargs)
            try:
                if self.mode == "half" and name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                elif self.mode != "before":
                    real(*args, **kwargs)
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
            return None

        return call


def user_config(config: Path, state: Path) -> UserConfig:
    return UserConfig(
        config,
        Paths(state, state / "config", state / "state", state / "cache", state / "run"),
    )


def act(config: Path, state: Path, action: str) -> str:
    user = user_config(config, state)
    try:
        if action == "install":
            user.write(Path("/work space/a"), "Host gpu1\n    HostName 192.0.2.1\n")
            user.install()
        else:
            user.undo()
    except RoostError as error:
        return f"refused: {error.what}"
    return ""


def child(mode: str, step: int, config: Path, state: Path, action: str) -> tuple[bool, int]:
    """Run the action in a child; whether it was killed, and how many changes it made."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        faults = Faults(mode, step)
        report = os.write
        faults.arm()
        act(config, state, action)
        report(writer, str(faults.count).encode())
        os._exit(0)
    os.close(writer)
    said = os.read(reader, 100)
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or os.WEXITSTATUS(status) == 0, (mode, step)
    return killed, int(said or 0)


def every(mode: str, before: bytes | None, action: str, folder: Path) -> int:
    """Stop ``action`` at each of its changes, and return how many there are."""
    config, state = fresh(folder / "count", before)
    if action == "undo":
        child("none", 0, config, state, "install")
    _, most = child("none", 0, config, state, action)
    for step in range(1, most + 1):
        config, state = fresh(folder / str(step), before)
        complete = with_line(before or b"", user_config(config, state).line)
        if action == "undo":
            child("none", 0, config, state, "install")
            assert contents(config) == complete
        killed, _ = child(mode, step, config, state, action)
        assert killed == (mode != "full"), (mode, step)
        # The old state or the new one, whole: nothing in between is ever there for ssh.
        assert contents(config) in (before, complete), (mode, step)
        # The next call finishes what was meant, and leaves nothing lying about.
        child("none", 0, config, state, action)
        assert contents(config) == (complete if action == "install" else before), (mode, step)
        there = sorted(p.name for p in config.parent.glob("*"))
        assert there == ([] if contents(config) is None else ["config"]), (mode, step)
        child("none", 0, config, state, "undo")
        assert contents(config) == before, (mode, step)
        if before is not None:
            assert config.stat().st_mode & 0o777 == 0o640
    return most


def fresh(folder: Path, before: bytes | None) -> tuple[Path, Path]:
    folder.mkdir()
    config = folder / ".ssh" / "config"
    if before is not None:
        config.parent.mkdir(mode=0o700)
        config.write_bytes(before)
        config.chmod(0o640)
    return config, folder / "roost"


def contents(config: Path) -> bytes | None:
    return config.read_bytes() if config.exists() else None


def main(verb: str, *words: str) -> None:
    # What ssh answers is another test's matter; here it would only take time.
    ssh_probe.compare = lambda *_: {}
    ssh_probe.complaint = lambda *_: ""
    if verb == "once":
        print(act(Path(words[0]), Path(words[1]), words[2]))  # noqa: T201
        return
    mode, has_config, action, folder = words
    print(every(mode, LIVED_IN if has_config == "yes" else None, action, Path(folder)))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
