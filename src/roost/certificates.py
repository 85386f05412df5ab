"""Short-lived ssh certificates for people of the list, signed by the team's own authority.

ssh-keygen(1) does the work, "CERTIFICATES"; a certificate names its holder as its only principal.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from roost import process, public_keys
from roost.errors import RoostError, UsageError
from roost.public_keys import PublicKey

DEFAULT_VALIDITY = timedelta(days=1)
# A laptop's clock may be behind the box's, or the box's behind the laptop's.
CLOCK_SLACK = timedelta(minutes=5)
_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
# Without Z for UTC, which OpenSSH 8.9 does not know: ssh-keygen runs in that time zone.
_TIME = "%Y%m%d%H%M%S"


@dataclass(frozen=True)
class Certificate:
    """One certificate.

    Attributes:
        name: whose it is, and its principal.
        text: what goes into ``KEY-cert.pub``, one line.
        serial: its serial number.
        until: when it ends.
        fingerprint: that of the key that it is for.
        authority: that of the key that signed it.
    """

    name: str
    text: str
    serial: int
    until: datetime
    fingerprint: str
    authority: str

    def as_json(self) -> dict[str, object]:
        """Every field by its name."""
        return {**vars(self), "until": self.until.isoformat()}


def parse_validity(text: str) -> timedelta:
    """``30m``, ``8h``, ``2d`` or ``1w``.

    Raises:
        UsageError: it is none of these.
    """
    found = re.fullmatch(r"([1-9]\d{0,5})([mhdw])", text)
    if not found:
        raise UsageError(f"{text!r} is no time", fix="write it as 30m, 8h, 2d or 1w")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def end_of(validity: timedelta, last_day: str) -> datetime:
    """When a certificate that is made now ends: never after the person's last day.

    Args:
        validity: how long it is to hold.
        last_day: ``until`` of the list, or nothing.
    """
    end = datetime.now(UTC).replace(microsecond=0) + validity
    if not last_day:
        return end
    day = datetime.fromisoformat(last_day).replace(tzinfo=UTC)
    return min(end, day + timedelta(days=1))


def authority(path: Path, trusted: Collection[str]) -> PublicKey:
    """The public half of the key that signs.

    Args:
        path: the private key, or its public half where an agent holds it.
        trusted: the keys (base64) that the boxes trust.

    Raises:
        UsageError: it is missing, or no box trusts it.
    """
    beside = path if path.suffix == ".pub" else path.with_name(f"{path.name}.pub")
    try:
        (key,) = public_keys.parse_all(beside.read_text("utf-8", "replace"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"there is no public key in {beside}",
            fix=f"name the key that signs with --ca FILE, or make one: ssh-keygen -t ed25519 "
            f"-f {path} -C 'our people'",
        ) from error
    if key.blob not in trusted:
        raise UsageError(
            f"no box trusts {beside}",
            fix="add it to people_ca_keys in inventory/group_vars/all/people.yml, then: roost up",
        )
    return key


def sign(
    name: str, key: PublicKey, ca: Path, end: datetime, *, environ: Mapping[str, str]
) -> Certificate:
    """Make a certificate with which the holder of ``key`` logs in as ``name``.

    Args:
        name: the person, who becomes the only principal.
        key: the key, without options: a certificate would not carry them.
        ca: the private key that signs, or its public half where an agent holds it.
        end: when the certificate ends.
        environ: for the agent's socket, and for the program that asks for a passphrase.

    Raises:
        RoostError: ssh-keygen refuses.
    """
    # Unique and growing without a count that a team would have to share.
    serial = time.time_ns()
    begin = datetime.now(UTC) - CLOCK_SLACK
    with tempfile.TemporaryDirectory(prefix="roost-sign-") as folder:
        path = Path(folder) / "key.pub"
        path.write_text(f"{key}\n", "utf-8")
        argv = ["ssh-keygen", "-q", *(["-U"] if ca.suffix == ".pub" else []), "-s", str(ca),
                "-I", f"{name} {serial}", "-n", name, "-z", str(serial),
                "-V", f"{begin:{_TIME}}:{end:{_TIME}}", str(path)]  # fmt: skip
        env = {**environ, "TZ": "UTC"}
        # On the terminal: it asks for the passphrase itself, so that it never passes through us.
        with process.start(argv, stdin=None, stdout=None, stderr=None, env=env) as child:
            code = child.wait()
        signed = Path(folder) / "key-cert.pub"
        if code != 0 or not signed.is_file():
            raise RoostError("no certificate was made", why="ssh-keygen's message stands above")
        text = signed.read_text("utf-8").strip()
    public = ca if ca.suffix == ".pub" else ca.with_name(f"{ca.name}.pub")
    (signer,) = public_keys.parse_all(public.read_text("utf-8"))
    return Certificate(name, text, serial, end, key.fingerprint, signer.fingerprint)
