"""What ssh's messages mean, and what mends it.

Source of the messages: OpenSSH 8.9 to 10, ``sshconnect.c``, ``sshconnect2.c``, ``clientloop.c``
and ``readconf.c``. They are in English whatever the locale is, but for strerror(3).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from roost.errors import RoostError, SshError, UnreachableError
from roost.model import Box, Fleet
from roost.ssh_config import host_key_name


class HostKeyError(UnreachableError):
    """The box shows a host key that is not pinned, or not the pinned one."""


class RefusedKeyError(UnreachableError):
    """A box answers, and lets nobody in with the key that it was shown.

    Attributes:
        box: the name of the box that refuses.
    """

    box = ""


_Explain = Callable[["re.Match[str]", Box, str], RoostError]


def explain_failure(box: Box, stderr: str, fleet: Fleet | None = None) -> RoostError:
    """The error for an ssh that ended with 255.

    Args:
        box: the box that was to be reached.
        stderr: what ssh wrote.
        fleet: where the gateways are found, one of which the message may be about.
    """
    hops = (*fleet.jumps(box), box) if fleet is not None else (box,)
    for pattern, explain in _TABLE:
        if match := pattern.search(stderr):
            return explain(match, _culprit(match, hops), stderr)
    lines = [line for line in stderr.splitlines() if line.strip()]
    return SshError(
        f"ssh to {box.name} failed",
        why=lines[-1].strip() if lines else "ssh said nothing",
        fix=f"see more with: roost ssh {box.name} -- -v",
    )


def _culprit(match: re.Match[str], hops: tuple[Box, ...]) -> Box:
    """The box on the way that the message names; the last one where it names none."""
    found = match.groupdict()
    host, port = found.get("host"), found.get("port")
    for hop in hops:
        if host == host_key_name(hop):
            return hop
        same_port = port is None or int(port) == hop.port
        if host and host.strip("[]").lower() == hop.host.strip("[]").lower() and same_port:
            return hop
    return hops[-1]


def _where(box: Box) -> str:
    host = f"[{box.host}]" if ":" in box.host else box.host
    return f"{box.name} ({host}:{box.port})"


def _changed(match: re.Match[str], box: Box, stderr: str) -> RoostError:
    sent = re.search(
        r"fingerprint for the (\S+) key sent by the remote host is\s+(\S+?)\.?\s*$", stderr, re.M
    )
    kind, shown = (sent[1], sent[2]) if sent else ("", "another one")
    place = re.search(r"Offending (?:\S+ )?key in (.+):(\d+)\s*$", stderr, re.MULTILINE)
    pinned = _fingerprint_at(Path(place[1]), int(place[2]), kind) if place else "unknown"
    return HostKeyError(
        f"the host key of {_where(box)} has changed",
        why=f"pinned is {pinned}, and the box shows {shown}: "
        "it was rebuilt, or something answers in its place",
        fix=f"if you know that it was rebuilt: roost add {box.name} --renew-host-key",
    )


def _fingerprint_at(known_hosts: Path, line: int, kind: str) -> str:
    """The fingerprint of the pinned key of that kind, as ssh names kinds: ``ED25519``.

    The line that ssh names may hold another kind of key of the same host.
    """
    try:
        lines = [text.split() for text in known_hosts.read_text("utf-8", "replace").splitlines()]
        named = lines[line - 1]
        same = [words for words in lines if words[:1] == named[:1] and len(words) > 2]
        prefixes = (f"ssh-{kind.lower()}", f"{kind.lower()}-", f"sk-ssh-{kind.lower()}")
        words = next((w for w in same if kind and w[1].startswith(prefixes)), named)
        blob = next(w for w in words if w.startswith("AAAA"))
        digest = hashlib.sha256(base64.b64decode(blob, validate=True)).digest()
    except (OSError, IndexError, StopIteration, binascii.Error):
        return "unknown"
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _unknown_key(match: re.Match[str], box: Box, stderr: str) -> RoostError:
    return HostKeyError(
        f"the host key of {_where(box)} is not pinned",
        why=f"known_hosts of the workspace has no key for {host_key_name(box)}",
        fix=f"see and pin it: roost add {box.name}",
    )


def _refused_key(match: re.Match[str], box: Box, stderr: str) -> RoostError:
    key = f"the key {box.identity}" if box.identity else "every key that ssh offered"
    methods = match.groupdict().get("methods") or ""
    error = RefusedKeyError(
        f"{_where(box)} refuses {key} for {box.user or 'your user name'}",
        why=f"it accepts: {methods}" if methods else None,
        fix=f"install the key: roost add {box.name}; or name another one in roost_identity",
    )
    error.box = box.name
    return error


def _unreachable(problem: str, fix: str) -> _Explain:
    def explain(match: re.Match[str], box: Box, stderr: str) -> RoostError:
        return UnreachableError(
            f"{_where(box)} {problem}",
            why=match[0].strip(),
            fix=fix.format(name=box.name),
        )

    return explain


def _closed(match: re.Match[str], box: Box, stderr: str) -> RoostError:
    # Behind a gateway ssh sees a pipe that ends, whatever the gateway met: UNKNOWN port 65535.
    known = match.groupdict().get("host") or "UNKNOWN"
    if box.via and known == "UNKNOWN":
        return UnreachableError(
            f"{_where(box)} is not reached through {box.via}",
            why=match[0].strip(),
            fix=f"see whether {box.name} is up, and whether {box.via} lets us through: "
            f"roost ssh {box.via}",
        )
    return UnreachableError(
        f"{_where(box)} closes the connection before anyone can log in",
        why=match[0].strip(),
        fix=f"see whether sshd on {box.name} is overloaded or still starting",
    )


def _local(problem: str, fix: str) -> _Explain:
    def explain(match: re.Match[str], box: Box, stderr: str) -> RoostError:
        return SshError(f"{problem} ({box.name})", why=match[0].strip(), fix=fix)

    return explain


_UP = "see whether it is up, and its address and port are right (ansible_host, ansible_port)"
_CONNECT = r"connect to (?:host|address) (?P<host>\S+) port (?P<port>\d+): "
_CLOSED = (
    r"(?:Connection (?:closed|reset) by (?P<host>\S+) port (?P<port>\d+)"
    r"|(?:kex_exchange_identification|banner exchange|ssh_exchange_identification): [^\r\n]+)"
)

# In the order of meaning: what stopped the first hop stands before the noise it causes later.
_TABLE: tuple[tuple[re.Pattern[str], _Explain], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), explain)
    for pattern, explain in (
        (
            r"^(?P<file>.+?): (?:line \d+: )?Bad configuration option.*$",
            _local(
                "ssh does not understand the config",
                "correct the option named above, in roost_ssh_options or ~/.ssh/config",
            ),
        ),
        (
            r"^(?P<file>/[^:\n]+) line \d+: .*$",
            _local(
                "ssh does not understand the config",
                "correct the line named above, in roost_ssh_options or ~/.ssh/config",
            ),
        ),
        (
            # sudo, sudo(8); snap-confine says the same of itself.
            r".*no new privileges.*",
            _local(
                "the way there asks for rights that nothing gets behind the door of a tunnel",
                "set roost_door: false for it (docs/tunnels.md), or take a socket in place of the "
                "port: ~/app.sock:localhost:8000",
            ),
        ),
        (
            r"Bad owner or permissions on (?P<file>\S+)",
            _local("ssh refuses a config that others may write", "chmod 600 the file named above"),
        ),
        (
            r"Permissions \d+ for '(?P<file>[^']+)' are too open",
            _local(
                "ssh ignores a private key that others may read", "chmod 600 the file named above"
            ),
        ),
        (
            r"ControlPath .* too long|unix_listener: .*",
            _local("ssh cannot make its control socket", "roost doctor"),
        ),
        (
            r"REMOTE HOST IDENTIFICATION HAS CHANGED[\s\S]*?"
            r"Host key for (?P<host>\S+) has changed",
            _changed,
        ),
        (r"No \S+ host key is known for (?P<host>\S+) and you have requested strict", _unknown_key),
        (r"Host key verification failed", _unknown_key),
        (
            r"Could not resolve hostname (?P<host>\S+): .*",
            _unreachable(
                "has a name that nobody knows",
                "correct its address (ansible_host); a private name needs a gateway (roost_via)",
            ),
        ),
        (_CONNECT + r"(?:Connection|Operation) timed out", _unreachable("does not answer", _UP)),
        (
            r"Connection (?:to (?P<host>\S+) port (?P<port>\d+) )?timed out.*",
            _unreachable("does not answer", _UP),
        ),
        (_CONNECT + r"Connection refused", _unreachable("refuses the connection", _UP)),
        (
            _CONNECT + r"(?:No route to host|Network is unreachable|Host is down)",
            _unreachable("cannot be reached from here", "see to the network or the VPN; " + _UP),
        ),
        (_CONNECT + r".*", _unreachable("cannot be reached", _UP)),
        (
            r"(?:(?P<user>\S+)@)?(?P<host>[^\s@]+): Permission denied \((?P<methods>[^)]*)\)",
            _refused_key,
        ),
        (
            r"Received disconnect from (?P<host>\S+) port (?P<port>\d+):2: Too many authentication",
            _refused_key,
        ),
        (
            r"channel \d+: open failed: .*|stdio forwarding failed.*",
            _unreachable(
                "is not reached by its gateway",
                "see whether {name} is up, and whether the gateway allows the forward",
            ),
        ),
        (
            r"Timeout, server (?P<host>\S+) not responding.*",
            _local("the connection was lost: the box stopped answering", "try again"),
        ),
        (
            r"client_loop: send disconnect: .*|packet_write_wait: .*|Broken pipe",
            _local("the connection was lost", "try again"),
        ),
        (_CLOSED, _closed),
    )
)
