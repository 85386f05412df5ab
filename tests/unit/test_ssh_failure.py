"""What ssh says when it fails, as each version says it, and what roost makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.errors import ExitCode, SshError, UnreachableError
from roost.model import Box, Fleet
from roost.ssh_failure import HostKeyError, RefusedKeyError, explain_failure

GATE = Box("gate", "203.0.113.1", 2222, "me")
GPU = Box("gpu", "10.0.0.5", user="me", via="gate", identity="~/.ssh/id")
FLEET = Fleet(boxes=(GATE, GPU))
NOISE = "kex_exchange_identification: Connection closed by remote host\r\n"

CASES = [
    ("ssh: Could not resolve hostname gpu.corp: Name or service not known", "gpu", "nobody knows"),
    ("ssh: connect to host 203.0.113.1 port 2222: Connection refused\r\n" + NOISE,
     "gate", "refuses the connection"),
    ("ssh: connect to host 10.0.0.5 port 22: Operation timed out", "gpu", "does not answer"),
    ("ssh: connect to host 10.0.0.5 port 22: Connection timed out", "gpu", "does not answer"),
    ("Connection timed out during banner exchange\r\nConnection to 10.0.0.5 port 22 timed out",
     "gpu", "does not answer"),
    ("ssh: connect to host 203.0.113.1 port 2222: No route to host\r\n" + NOISE,
     "gate", "cannot be reached from here"),
    ("ssh: connect to host 10.0.0.5 port 22: Network is unreachable", "gpu", "cannot be reached"),
    ("me@203.0.113.1: Permission denied (publickey,password).\r\n" + NOISE, "gate", "refuses"),
    ("me@10.0.0.5: Permission denied (publickey).", "gpu", "refuses the key ~/.ssh/id for me"),
    ("Received disconnect from 10.0.0.5 port 22:2: Too many authentication failures",
     "gpu", "refuses the key"),
    ("No ED25519 host key is known for gpu and you have requested strict checking.\r\n"
     "Host key verification failed.", "gpu", "is not pinned"),
    ("No ED25519 host key is known for [203.0.113.1]:2222 and you have requested strict "
     "checking.\r\nHost key verification failed.\r\n" + NOISE, "gate", "is not pinned"),
    ("channel 0: open failed: connect failed: Connection refused\r\nstdio forwarding failed\r\n"
     + NOISE, "gpu", "is not reached by its gateway"),
    (NOISE + "Connection closed by UNKNOWN port 65535", "gpu", "is not reached through gate"),
    ("Connection closed by 203.0.113.1 port 2222", "gate", "closes the connection"),
    ("Connection reset by 10.0.0.5 port 22", "gpu", "closes the connection"),
]  # fmt: skip


@pytest.mark.parametrize(("stderr", "name", "found"), CASES, ids=[c[0][:50] for c in CASES])
def test_the_box_and_the_trouble_are_named(stderr: str, name: str, found: str) -> None:
    error = explain_failure(GPU, stderr, FLEET)
    assert isinstance(error, UnreachableError)
    assert error.what.removeprefix("the host key of ").startswith(f"{name} (")
    assert found in error.what
    assert error.fix
    assert error.exit_code == ExitCode.UNREACHABLE
    assert isinstance(error, RefusedKeyError) == ("refuses" in found and "connection" not in found)


@pytest.mark.parametrize(
    ("stderr", "found"),
    [
        ("/w/.roost/ssh_config: line 4: Bad configuration option: foo", "the config"),
        ("/home/me/.ssh/config line 7: no argument after keyword", "the config"),
        ("Bad owner or permissions on /home/me/.ssh/config", "others may write"),
        ('sudo: The "no new privileges" flag is set, which prevents sudo', "behind the door"),
        ("Timeout, server 10.0.0.5 not responding.", "the connection was lost"),
        ("client_loop: send disconnect: Broken pipe", "the connection was lost"),
        ("something nobody has seen", "ssh to gpu failed"),
        ("", "ssh to gpu failed"),
    ],
)
def test_trouble_with_the_transport_is_told_apart(stderr: str, found: str) -> None:
    error = explain_failure(GPU, stderr, FLEET)
    assert isinstance(error, SshError)
    assert found in error.what
    assert error.exit_code == ExitCode.SSH


def test_what_a_remote_shell_says_is_not_taken_for_sshs_own(tmp_path: Path) -> None:
    error = explain_failure(GPU, "/etc/profile: line 5: foo: command not found\n", FLEET)
    assert "the config" not in error.what


def test_of_several_pinned_keys_the_one_of_the_same_kind_is_shown(tmp_path: Path) -> None:
    pins = tmp_path / "known_hosts"
    pins.write_text("gpu ssh-rsa AAAAB3NzaC1y\ngpu ssh-ed25519 AAAAC3NzaC1l\nx ssh-ed25519 AAAA\n")
    stderr = (
        "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n"
        "The fingerprint for the ED25519 key sent by the remote host is\r\nSHA256:new.\r\n"
        f"Offending RSA key in {pins}:1\r\n"
        "Host key for gpu has changed and you have requested strict checking.\r\n"
        "Host key verification failed.\r\n"
    )
    error = explain_failure(GPU, stderr, FLEET)
    assert isinstance(error, HostKeyError)
    # The fingerprint of the second line: SHA-256 of its nine bytes.
    assert "pinned is SHA256:Pv6QtXcY+NpBiGMYpM6nWeo9wDYHOTQqbWWWNxCIBJk" in (error.why or "")
    assert "shows SHA256:new:" in (error.why or "")
    assert error.fix is not None
    assert error.fix.endswith("roost add gpu --renew-host-key")
