"""Public keys as sshd reads them: one line of an ``authorized_keys`` file or of a ``.pub`` file.

Source of the format: sshd(8), "AUTHORIZED_KEYS FILE FORMAT".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

_KEY = re.compile(
    r"(?:^|(?<=\s))(?P<kind>(?:sk-)?(?:ssh|ecdsa)-[\w.@-]+)\s+(?P<blob>[A-Za-z0-9+/]+={0,3})"
    r"(?:\s+(?P<comment>.*))?$"
)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
CERTIFICATE = "-cert-v01@openssh.com"


def fingerprint(blob: str) -> str:
    """The fingerprint of a key in base64 as ssh shows it, ``SHA256:`` and 43 characters."""
    digest = hashlib.sha256(base64.b64decode(blob)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


@dataclass(frozen=True)
class PublicKey:
    """One public key.

    Attributes:
        kind: its type, such as ``ssh-ed25519``.
        blob: the key in base64.
        comment: what stands behind it.
        options: what stands before it, such as ``from="10.0.0.0/8"``.
    """

    kind: str
    blob: str
    comment: str = ""
    options: str = ""

    @property
    def fingerprint(self) -> str:
        """The fingerprint as ssh-keygen shows it, ``SHA256:`` and 43 characters."""
        return fingerprint(self.blob)

    @property
    def algorithm(self) -> str:
        """The type as people say it: ``ed25519``, ``rsa``, ``ed25519-sk``."""
        plain = self.kind.removesuffix("@openssh.com").removeprefix("sk-")
        name = plain.removeprefix("ssh-").removeprefix("ecdsa-sha2-")
        return name + ("-sk" if self.kind.startswith("sk-") else "")

    @property
    def is_authority(self) -> bool:
        """Whether it vouches for certificates instead of letting somebody in itself."""
        return "cert-authority" in _QUOTED.sub("", self.options).lower().split(",")

    def __str__(self) -> str:
        return " ".join(word for word in (self.kind, self.blob, self.comment) if word)


def parse(line: str) -> PublicKey | None:
    """The key of one line; None where there is none."""
    # What stands in quotes may look like a key: it is hidden while the key is looked for.
    hidden = _QUOTED.sub(lambda found: "x" * len(found[0]), line.strip())
    found = _KEY.search(hidden)
    if not found:
        return None
    blob = found["blob"]
    try:
        inner = base64.b64decode(blob, validate=True)
    except binascii.Error:
        return None
    size = int.from_bytes(inner[:4], "big")
    if inner[4 : 4 + size] != found["kind"].encode():
        return None
    text = line.strip()
    at = found.start("comment")
    comment = "" if at < 0 else text[at:].strip()
    return PublicKey(found["kind"], blob, comment, text[: found.start()].strip())


def parse_all(text: str) -> Iterator[PublicKey]:
    """Every key of a file; comments and what is no key are left out."""
    for line in text.splitlines():
        key = None if line.lstrip().startswith("#") else parse(line)
        if key:
            yield key
