"""Host keys: what a box shows, what is pinned, and the file that holds the pins.

Source of the format: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from roost import files, process, ssh
from roost.errors import RoostError, UsageError
from roost.model import Box, Fleet
from roost.public_keys import fingerprint
from roost.ssh_config import word
from roost.ssh_failure import HostKeyError, explain_failure

# What sshd may show, the best first; an RSA key is one key under three signature names.
ALGORITHMS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512,rsa-sha2-256")
CERTIFICATES = (
    "ssh-ed25519-cert-v01@openssh.com,ecdsa-sha2-nistp256-cert-v01@openssh.com,"
    "rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com"
)
AUTHORITY = "@cert-authority"
_HASHED = "|1|"


@dataclass(frozen=True)
class HostKey:
    """One public host key.

    Attributes:
        algorithm: its type, such as ``ssh-ed25519``.
        blob: the key in base64.
    """

    algorithm: str
    blob: str

    @property
    def fingerprint(self) -> str:
        """The fingerprint as ssh shows it, ``SHA256:`` and 43 characters."""
        return fingerprint(self.blob)

    def __str__(self) -> str:
        return f"{self.algorithm} {self.fingerprint}"


@dataclass(frozen=True)
class Entry:
    """One line of a known_hosts file.

    Attributes:
        line: the line as it stands.
        marker: ``@cert-authority``, ``@revoked`` or empty.
        names: the patterns, or one hashed name.
        key: the key; None where the line holds none.
    """

    line: str
    marker: str = ""
    names: str = ""
    key: HostKey | None = None

    def matches(self, name: str) -> bool:
        """Whether the line is about ``name``, written as ``host_key_name`` writes it."""
        if self.names.startswith(_HASHED):
            return _hashed_is(self.names, name)
        patterns = self.names.lower().split(",")
        if any(p.startswith("!") and fnmatchcase(name, _glob(p[1:])) for p in patterns):
            return False
        return any(fnmatchcase(name, _glob(p)) for p in patterns if not p.startswith("!"))


def parse(text: str) -> Iterator[Entry]:
    """The lines of a known_hosts file, those without a key included."""
    for line in text.splitlines():
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) >= 3 and not words[0].startswith("#") and _is_blob(words[2]):
            yield Entry(line, marker, words[0], HostKey(words[1], words[2]))
        else:
            yield Entry(line)


def pinned(path: Path, name: str) -> list[HostKey]:
    """The keys that are pinned for ``name``; none where there is no such file."""
    return [e.key for e in _read(path) if e.key and not e.marker and e.matches(name)]


def is_hashed(path: Path) -> bool:
    """Whether ``path`` hides names."""
    return any(entry.names.startswith(_HASHED) for entry in _read(path))


def pin(path: Path, name: str, keys: Iterable[HostKey], *, hashed: bool) -> None:
    """Make ``keys`` the pinned keys of ``name``; every other line stays.

    Args:
        path: the known_hosts file; made where it is missing.
        name: as ``host_key_name`` writes it.
        keys: the keys that are right.
        hashed: do not show the name in the file.

    Raises:
        RoostError: the file cannot be written.
    """
    fresh = list(keys)
    if set(pinned(path, name)) == set(fresh):
        return
    lines = [e.line for e in _read(path) if e.marker or not _is_only(e, name)]
    shown = _hash(name) if hashed else name
    _write(path, [*lines, *(f"{shown} {key.algorithm} {key.blob}" for key in fresh)])


def unpin(path: Path, name: str) -> int:
    """Remove the pinned keys of ``name`` and return how many there were."""
    entries = _read(path)
    rest = [e.line for e in entries if e.marker or not _is_only(e, name)]
    if len(rest) < len(entries):
        _write(path, rest)
    return len(entries) - len(rest)


def authorities(sources: Iterable[Path], name: str) -> list[str]:
    """The ``@cert-authority`` lines of ``sources`` that cover ``name``."""
    found = (e for path in sources for e in _read(path) if e.marker == AUTHORITY)
    return list(dict.fromkeys(e.line for e in found if e.matches(name)))


def add_authorities(path: Path, lines: Sequence[str]) -> None:
    """Add lines of ``authorities`` that ``path`` does not have yet."""
    there = [e.line for e in _read(path)]
    missing = [line for line in lines if line not in there]
    if missing:
        _write(path, [*there, *missing])


def scan(config: Path, box: Box, fleet: Fleet) -> list[HostKey]:
    """Every host key that the box shows, through its gateways if it has some.

    ssh-keyscan knows no gateway, so ssh itself is asked, once for each kind of key, to write
    down what it meets and to go no further. The gateways' own keys are checked as always.

    Args:
        config: an ssh config that has the box and its gateways.
        box: the box.
        fleet: for the gateways' names in an error.

    Raises:
        UnreachableError: the box does not answer, or a gateway stops us.
    """
    keys: list[HostKey] = []
    problem = ""
    with tempfile.TemporaryDirectory(prefix="roost-") as folder:
        for algorithms in ALGORITHMS:
            seen = Path(folder) / "seen"
            seen.unlink(missing_ok=True)
            options = _stop_at_the_key(algorithms, [seen], "accept-new")
            stderr = process.run(
                ssh.command(config, box.name, "true", options=options), check=False
            ).stderr
            found = [e.key for e in _read(seen) if e.key]
            keys += found
            if not found:
                problem = problem or stderr
                if "no matching host key type" not in stderr:
                    break
    if not keys:
        raise explain_failure(box, problem, fleet)
    return keys


def vouched(config: Path, box: Box, lines: Sequence[str]) -> bool:
    """Whether the box shows a certificate of one of the authorities in ``lines``."""
    if not lines:
        return False
    with tempfile.TemporaryDirectory(prefix="roost-") as folder:
        trusted = Path(folder) / "trusted"
        trusted.write_text("".join(line + "\n" for line in lines), "utf-8")
        options = _stop_at_the_key(CERTIFICATES, [trusted], "yes")
        done = process.run(ssh.command(config, box.name, "true", options=options), check=False)
    # Past the host key there is only the log-in, for which nothing was offered.
    return done.returncode == 0 or "Permission denied" in done.stderr


def _stop_at_the_key(algorithms: str, known: Sequence[Path], strict: str) -> list[str]:
    settings = {
        "BatchMode": "yes",
        "ConnectTimeout": str(ssh.CONNECT_SECONDS),
        "ControlMaster": "no",
        "ControlPath": "none",
        "HostKeyAlgorithms": algorithms,
        "StrictHostKeyChecking": strict,
        "UserKnownHostsFile": " ".join(word(str(path)) for path in known),
        "GlobalKnownHostsFile": "/dev/null",
        "HashKnownHosts": "no",
        "UpdateHostKeys": "no",
        "PreferredAuthentications": "none",
        "PubkeyAuthentication": "no",
        "ClearAllForwardings": "yes",
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def check_fingerprint(shown: Sequence[HostKey], wanted: str) -> HostKey:
    """The key of ``shown`` that has the fingerprint ``wanted``.

    Raises:
        UsageError: ``wanted`` is no SHA256 fingerprint.
        HostKeyError: no key has it.
    """
    text = wanted.strip().removeprefix("SHA256:").rstrip("=")
    if len(text) != 43:
        raise UsageError(
            f"{wanted!r} is no SHA256 fingerprint",
            why="it looks like SHA256: and 43 characters",
            fix="on the box: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        )
    for key in shown:
        if hmac.compare_digest(key.fingerprint, f"SHA256:{text}"):
            return key
    raise HostKeyError(
        "the box does not have the host key that was given",
        why=f"given is SHA256:{text}; it shows {', '.join(map(str, shown))}",
        fix="see to the address, and to what answers there, before anything else",
    )


def _read(path: Path) -> list[Entry]:
    try:
        return list(parse(path.read_text("utf-8", "surrogateescape")))
    except FileNotFoundError:
        return []


def _write(path: Path, lines: Sequence[str]) -> None:
    text = "".join(line + "\n" for line in lines)
    try:
        # Public keys, and in git: readable as every other file of the workspace.
        files.replace(path, text.encode("utf-8", "surrogateescape"), mode=0o644)
    except OSError as error:
        raise RoostError(f"{path} cannot be written: {error.strerror}") from error


def _is_only(entry: Entry, name: str) -> bool:
    """Whether the line is about ``name`` and nothing else: a pattern may cover other hosts."""
    return entry.key is not None and (
        entry.names.lower() == name or (entry.names.startswith(_HASHED) and entry.matches(name))
    )


def _glob(pattern: str) -> str:
    """An ssh pattern, in which only ``*`` and ``?`` are special, for ``fnmatch``."""
    return pattern.replace("[", "[[]")


def _is_blob(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) > 0
    except (binascii.Error, ValueError):
        return False


def _hash(name: str, salt: bytes | None = None) -> str:
    salt = os.urandom(20) if salt is None else salt
    # SHA-1 is what the format says.
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return _HASHED + "|".join(base64.b64encode(part).decode() for part in (salt, digest))


def _hashed_is(hashed: str, name: str) -> bool:
    try:
        salt = base64.b64decode(hashed.split("|")[2])
    except (IndexError, binascii.Error):
        return False
    return hmac.compare_digest(_hash(name, salt), hashed)
