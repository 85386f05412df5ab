"""The one line in ``~/.ssh/config``, and the folder of files that it includes.

Every other byte of the user's config stays. Before a new config takes the name, ``ssh -G`` has
to answer for every host as it did before.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pwd
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from roost import files, ssh_hosts, ssh_probe
from roost.errors import RoostError
from roost.include_line import decode, include_line, is_effective, position, with_line, without_line
from roost.paths import Paths
from roost.ssh_config_reader import Line, is_literal, read

_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
# Home-manager and its like: writable for root, and made anew from elsewhere.
_GENERATED = (Path("/nix/store"), Path("/gnu/store"))


class ReadOnlyConfigError(RoostError):
    """The user's ssh config cannot be written, or belongs to another tool."""


class ConfigChangesError(RoostError):
    """With the new line a host would be answered differently.

    Attributes:
        differences: for each host, lines of ``ssh -G`` with ``-`` and ``+``.
    """

    differences: Mapping[str, Sequence[str]] = {}


@dataclass(frozen=True)
class State:
    """How things stand.

    Attributes:
        config: the user's ssh config.
        line: the line that belongs at its top.
        at: the number of the line that has it; None where it is missing.
        effective: whether it stands above every ``Host`` and ``Match``.
        files: the files in roost's folder.
    """

    config: Path
    line: str
    at: int | None
    effective: bool
    files: tuple[Path, ...]


class UserConfig:
    """A user's ssh config, and what roost adds to it.

    Args:
        config: the file that ssh reads: OpenSSH takes the home from the password database.
        paths: roost's own folders.
    """

    def __init__(self, config: Path, paths: Paths) -> None:
        self.config = config
        self._paths = paths
        self.folder = ssh_hosts.folder(paths)
        self._record = paths.state / "ssh-config" / "installed.json"
        self._before = paths.state / "ssh-config" / "before"
        self._lock = paths.state / "ssh-config" / "lock"

    @property
    def line(self) -> str:
        """The line that is ours.

        Raises:
            RoostError: the folder's path cannot be written in an ``Include``.
        """
        # The home that ssh puts for ``~``, whatever $HOME says.
        home = pwd.getpwuid(os.getuid()).pw_dir
        with contextlib.suppress(ValueError):
            return include_line("~/" + str(self.folder.relative_to(home)))
        return include_line(str(self.folder))

    def file_for(self, workspace: Path) -> Path:
        """The file that holds the hosts of one workspace."""
        return ssh_hosts.file_for(self._paths, workspace)

    def state(self) -> State:
        """How things stand now; nothing is changed."""
        text = self._text()
        return State(
            config=self.config,
            line=self.line,
            at=position(text, self.line),
            effective=is_effective(text, self.line),
            files=tuple(sorted(self.folder.glob("*.conf"))),
        )

    def defined(self, names: Sequence[str]) -> list[tuple[str, Line]]:
        """Which of ``names`` the user's own config defines, and where."""
        wanted = set(names)
        return [
            (word, line)
            for line in read(self.config, skip=self.folder)
            if line.keyword == "host"
            for word in line.words
            if word in wanted and is_literal(word)
        ]

    def elsewhere(self, workspace: Path, names: Sequence[str]) -> list[tuple[Path, str]]:
        """Which of ``names`` the files of other workspaces have."""
        others = [f for f in sorted(self.folder.glob("*.conf")) if f != self.file_for(workspace)]
        return [(file, name) for file in others for name in sorted(_names([file]) & set(names))]

    def planned(self) -> tuple[bytes | None, bytes]:
        """The user's config as it is (None: missing) and as it would be."""
        before = self._bytes()
        return before, with_line(before or b"", self.line)

    def write(self, workspace: Path, text: str) -> bool:
        """Write the hosts of one workspace, and return whether anything changed.

        Raises:
            InventoryError: ssh does not understand the text; it would refuse every host then.
            RoostError: roost's folder cannot be written.
        """
        return ssh_hosts.write(self.file_for(workspace), text)

    def install(self) -> bool:
        """Put the line at the top, and return whether anything changed.

        Raises:
            ReadOnlyConfigError: the config cannot be written.
            ConfigChangesError: a host would be answered differently; nothing was changed.
        """
        with self._locked():
            before, after = self.planned()
            if before == after or (before and is_effective(decode(before), self.line)):
                return False
            self._keep(before, after)
            self._replace(before, after, checked=True)
            return True

    def undo(self) -> bool:
        """Take the line and roost's files back, and return whether there was anything.

        A config that nobody has touched since becomes what it was, byte for byte, and goes if it
        was not there. From one that was edited meanwhile the line alone is removed.

        Raises:
            ReadOnlyConfigError: the config cannot be written.
        """
        with self._locked():
            now = self._bytes()
            record = self._read_record()
            did = False
            if now is not None and _digest(now) == record.get("after"):
                did = True
                if record["existed"]:
                    self._replace(now, self._before.read_bytes())
                else:
                    self._remove(made_folder=bool(record["made_folder"]))
            elif now is not None and position(decode(now), self.line) is not None:
                did = True
                self._replace(now, without_line(now, self.line))
            for file in (*self.folder.glob("*.conf"), self._before, self._record):
                did = did or file.suffix == ".conf"
                file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.folder.rmdir()
        return did

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with files.locked(self._lock):
                self._sweep()
                yield
        except OSError as error:
            raise RoostError(f"{error.filename or self._lock}: {error.strerror}") from error

    def _sweep(self) -> None:
        """Remove what a writer left that was killed: nobody else writes while we hold the lock."""
        target = self.config.resolve()
        with contextlib.suppress(OSError):
            for left in target.parent.glob(files.temporary_prefix(target) + "*"):
                left.unlink()

    def _text(self) -> str:
        return decode(self._bytes() or b"")

    def _bytes(self) -> bytes | None:
        try:
            return self.config.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RoostError(f"{self.config} cannot be read: {error.strerror}") from error

    def _keep(self, before: bytes | None, after: bytes) -> None:
        """Note what is there for ``undo``, before anything changes."""
        known = self._read_record()
        if before is not None and _digest(before) == known.get("after"):
            # Ours is there and was moved by nobody: the older state is the one to go back to.
            return
        files.replace(self._before, without_line(before or b"", self.line))
        record = {
            "existed": before is not None,
            "made_folder": not self.config.parent.exists(),
            "after": _digest(after),
        }
        files.replace(self._record, json.dumps(record).encode())

    def _read_record(self) -> dict[str, object]:
        try:
            found = json.loads(self._record.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _replace(self, before: bytes | None, after: bytes, *, checked: bool = False) -> None:
        target = self.config.resolve()
        if any(target.is_relative_to(store) for store in _GENERATED):
            raise self._read_only("another tool makes it anew")
        if target.exists() and not os.access(target, os.W_OK):
            raise self._read_only("it is write-protected")
        try:
            self.config.parent.mkdir(mode=0o700, exist_ok=True)
            with files.staged(target, after) as staged:
                if checked and before is not None:
                    self._compare(staged)
                if self._bytes() != before:
                    raise RoostError(
                        f"{self.config} was changed by something else just now",
                        fix="try again: roost ssh-config install",
                    )
                staged.replace(target)
            files.sync_folder(target.parent)
        except OSError as error:
            if error.errno in _READ_ONLY:
                raise self._read_only(error.strerror or "") from error
            raise RoostError(f"{self.config} cannot be written: {error.strerror}") from error

    def _compare(self, staged: Path) -> None:
        ours = _names(sorted(self.folder.glob("*.conf")))
        names = [name for name in ssh_probe.names(self.config, self.folder) if name not in ours]
        differences = ssh_probe.compare(self.config, staged, names)
        if differences:
            error = ConfigChangesError(
                f"with roost's line ssh would treat {_some(list(differences))} differently",
                why=_some([f"{h}: {line}" for h, lines in differences.items() for line in lines]),
                fix=f"{self.config} is left as it was; use the boxes by roost ssh, or ssh -F",
            )
            error.differences = differences
            raise error

    def _remove(self, *, made_folder: bool) -> None:
        self.config.resolve().unlink()
        if made_folder:
            with contextlib.suppress(OSError):
                self.config.parent.rmdir()

    def _read_only(self, why: str) -> ReadOnlyConfigError:
        return ReadOnlyConfigError(
            f"{self.config} is not ours to write",
            why=why,
            fix=f"make this its first line, where it is made: {self.line}",
        )


def _some(texts: Sequence[str], most: int = 4) -> str:
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def _names(configs: Sequence[Path]) -> set[str]:
    lines = (line for config in configs for line in read(config))
    return {word for line in lines if line.keyword == "host" for word in line.words}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
