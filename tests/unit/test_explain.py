"""Each failure in the words that the real programs use, and what we make of it."""

from __future__ import annotations

import pytest

from roost.events import Event, Kind
from roost.explain import explain

# Wording read off OpenSSH 9.2, apt 2.6, ansible-core 2.19 and uv 0.9.
CASES = [
    (
        "With the new configuration of sshd no new login as me could become root on gpu1 within "
        "60 s (me@192.0.2.7: Permission denied (publickey).). The former configuration is back",
        "me could not log in anew",
        "--check --diff",
    ),
    (
        "@@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@@\nHost key verification failed.",
        "not the one that was pinned",
        "rebuilt",
    ),
    (
        "No ED25519 host key is known for 192.0.2.7 and you have requested",
        "not pinned",
        "roost add",
    ),
    ("ubuntu@192.0.2.7: Permission denied (publickey).", "refuses our key", "ssh -v gpu1"),
    (
        "ssh: Could not resolve hostname gpu.example: Name or service not known",
        "gpu.example is not known",
        "ansible_host",
    ),
    ("ssh: connect to host 192.0.2.7 port 22: Connection timed out", "nothing answers", "VPN"),
    ("ssh: connect to host 192.0.2.7 port 22: No route to host", "nothing answers", "VPN"),
    ("ssh: connect to host 192.0.2.7 port 22: Connection refused", "no sshd", "ansible_port"),
    ("Missing sudo password", "asks for a password", "--ask-become-pass"),
    ("sudo: a password is required", "asks for a password", "--ask-become-pass"),
    ("ann is not in the sudoers file.", "may not become root", "ansible_user"),
    ("OSError: [Errno 28] No space left on device", "disk is full", "df -h"),
    ("E: You don't have enough free space in /var/cache/apt/archives/.", "disk is full", "df -h"),
    (
        "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (apt-get)",
        "holds apt's lock",
        "wait",
    ),
    ("E: dpkg was interrupted, you must manually run", "cut off", "--configure -a"),
    ("E: Release file for http://a/InRelease is not valid yet", "clock is wrong", "timedatectl"),
    ("ssl.SSLCertVerificationError: CERTIFICATE_VERIFY_FAILED", "does not trust", "base_ca"),
    ("invalid peer certificate: UnknownIssuer", "does not trust", "base_ca"),
    ("Err:1 Temporary failure resolving 'deb.example.org'", "deb.example.org", "DNS"),
    ("Failed to update apt cache: unknown reason", "archive cannot be reached", "base_"),
    ("E: Unable to locate package tmuxx", "no package tmuxx", "release"),
    ("/bin/sh: 1: /usr/bin/python3: not found", "no complete Python", "roost up gpu1"),
    ("ModuleNotFoundError: No module named 'shutil'", "no complete Python", "roost up gpu1"),
    ("uv: Out of memory: Killed process 77", "ran out of memory", "free -h"),
    ("OSError: [Errno 30] Read-only file system: '/etc/x'", "read-only", "dmesg"),
    ("Connection reset by 192.0.2.7 port 22", "broke off", "run it again"),
    ("The following signatures couldn't be verified: NO_PUBKEY 1F3", "not trust", "sources.list"),
    ("E: Failed to fetch http://a/x  Hash Sum mismatch", "not what its index says", "mirror"),
    (
        "error: Request failed after 3 retries\n  Caused by: Failed to fetch: "
        "`https://index.example/simple/six/`\n  Caused by: tcp connect error: Connection refused",
        "index of Python packages",
        "roost doctor gpu1",
    ),
]


@pytest.mark.parametrize(("text", "what", "fix"), CASES, ids=[c[0][:30] for c in CASES])
def test_known_failure_is_named_with_what_to_do(text: str, what: str, fix: str) -> None:
    for event in (
        Event(Kind.FAILED, box="gpu1", message=text),
        Event(Kind.FAILED, box="gpu1", message="MODULE FAILURE: see stdout", detail=text),
    ):
        known = explain(event)
        assert known is not None
        assert what in known.what
        assert fix in known.fix
        assert "{" not in known.what + known.fix


def test_unknown_failure_is_left_to_the_message() -> None:
    for text in ("assertion failed: 1 == 2", "Shared connection to 192.0.2.7 closed."):
        assert explain(Event(Kind.FAILED, box="gpu1", message=text)) is None
