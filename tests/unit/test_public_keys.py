"""Lines with public keys: what they hold, by ssh-keygen's judgement."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost import process, public_keys

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43


@pytest.mark.parametrize(("kind", "said"), [("ed25519", "ed25519"), ("ecdsa", "nistp256"),
                                            ("rsa", "rsa")])  # fmt: skip
def test_fingerprints_are_those_of_ssh_keygen(tmp_path: Path, kind: str, said: str) -> None:
    path = tmp_path / "key"
    process.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "ann on a laptop", "-f", path])
    key = public_keys.parse((tmp_path / "key.pub").read_text())
    assert key is not None
    assert key.fingerprint in process.run(["ssh-keygen", "-lf", path]).stdout
    assert (key.comment, key.options, key.algorithm) == ("ann on a laptop", "", said)
    assert str(key) == (tmp_path / "key.pub").read_text().strip()


@pytest.mark.parametrize(
    "options",
    [
        "restrict",
        'from="10.0.0.0/8,::1",no-pty',
        rf'command="echo \"{ED25519}\" # , x"',
        f'command="echo {ED25519} x"',
        'environment="A=b c",cert-authority',
    ],
)
def test_options_are_told_from_the_key(options: str) -> None:
    key = public_keys.parse(f"{options} {ED25519} a comment")
    assert key is not None
    assert (key.options, f"{key.kind} {key.blob}", key.comment) == (options, ED25519, "a comment")
    assert key.is_authority is ("cert-authority" in options)


def test_an_authority_is_named_outside_quotes_alone() -> None:
    key = public_keys.parse(f'command="x,cert-authority,y" {ED25519}')
    assert key is not None and not key.is_authority


@pytest.mark.parametrize(
    "line",
    ["", "ssh-ed25519", "ssh-ed25519 AAAA", "no key at all", ED25519.replace("ed25519", "rsa"),
     f'command="{ED25519}"'],
)  # fmt: skip
def test_what_is_no_key(line: str) -> None:
    assert public_keys.parse(line) is None


def test_files_have_comments_and_empty_lines() -> None:
    text = f"# {ED25519}\n\n  {ED25519} one\nnonsense\nrestrict {ED25519} two\n"
    assert [key.comment for key in public_keys.parse_all(text)] == ["one", "two"]
