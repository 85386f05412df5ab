"""What the role people accepts as a key: the lines of a file that sshd reads."""

from __future__ import annotations

import base64
import binascii
import re
import struct

MIN_RSA_BITS = 2048
KEY_TYPE = re.compile(
    r"ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)"
    r"|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com"
)
# AUTHORIZED_KEYS FILE FORMAT of sshd(8); sshd drops a whole line for one option it does not know.
KNOWN_OPTION = re.compile(
    "(no-)?(agent-forwarding|port-forwarding|pty|user-rc|x11-forwarding)|cert-authority|command"
    "|environment|expiry-time|from|no-touch-required|permitlisten|permitopen|principals|restrict"
    "|tunnel|verify-required",
    re.IGNORECASE,
)
OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="((?:[^"\\]|\\.)*)")?(?:,|(?=\s)|$)')


class RefusedError(ValueError):
    """An entry that cannot be carried out; the message never holds a key."""


def split_options(line: str) -> tuple[str, str]:
    """Split ``options type base64 comment`` into its options and the rest."""
    if KEY_TYPE.fullmatch(line.split(None, 1)[0]):
        return "", line
    at = 0
    while True:
        found = OPTION.match(line, at)
        if not found or not found[1]:
            raise RefusedError(
                "its options are malformed (an unclosed quote, or no key after them)"
            )
        if not KNOWN_OPTION.fullmatch(found[1]):
            raise RefusedError("it starts with neither a key type nor an option that sshd knows")
        at = found.end()
        if line[at : at + 1].isspace():
            return line[:at], line[at:].strip()
        if at >= len(line):
            raise RefusedError("there is no key after its options")


def rsa_bits(blob: bytes) -> int:
    """The size of an RSA key; RFC 4253, section 6.6: string type, mpint e, mpint n."""
    at = 0
    for _ in range(2):
        at += 4 + struct.unpack_from(">I", blob, at)[0]
    (size,) = struct.unpack_from(">I", blob, at)
    return int.from_bytes(blob[at + 4 : at + 4 + size], "big").bit_length()


def check_key(text: str) -> None:
    words = text.split(None, 2)
    if len(words) < 2:
        raise RefusedError("it is cut off: there is no key after its type")
    if not KEY_TYPE.fullmatch(words[0]):
        raise RefusedError(f"keys of the type {words[0][:40]} are not accepted")
    try:
        blob = base64.b64decode(words[1], validate=True)
        (size,) = struct.unpack_from(">I", blob)
        inner = blob[4 : 4 + size].decode()
        if inner != words[0] or len(blob) < 4 + size + 4:
            raise RefusedError("it is malformed: type and content do not fit, or it is cut off")
        if inner == "ssh-ed25519" and len(blob) != 51:
            raise RefusedError("it is malformed: an Ed25519 key has another length")
        if inner == "ssh-rsa" and rsa_bits(blob) < MIN_RSA_BITS:
            raise RefusedError(
                f"RSA with {rsa_bits(blob)} bits; at least {MIN_RSA_BITS} are asked for"
            )
    except (binascii.Error, struct.error, UnicodeDecodeError):
        raise RefusedError("it is malformed: not valid base64, or cut off") from None


def key_lines(entry: dict) -> list[str]:
    """The lines for sshd of one entry of ``keys``: a text with one key or more, and options."""
    lines = []
    for raw in str(entry.get("key", "")).splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        options, key = split_options(line)
        check_key(key)
        extra = str(entry.get("options", "")).strip()
        if extra and split_options(extra + " ssh-ed25519 x")[1] != "ssh-ed25519 x":
            raise RefusedError("its options are malformed")
        joined = ",".join(o for o in (options, extra) if o)
        lines.append(f"{joined} {key}" if joined else key)
    if not lines:
        raise RefusedError("it is empty")
    return lines
