"""Certificates as ssh-keygen reads them, and what is refused before any is made."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roost import certificates, process, public_keys
from roost.cli.main import main
from roost.errors import UsageError
from roost.workspace import Workspace


def make(path: Path) -> Path:
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", path])
    return path


def public(path: Path) -> str:
    return path.with_name(f"{path.name}.pub").read_text().strip()


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """The authority's key and ann's."""
    return make(tmp_path / "ca"), make(tmp_path / "ann")


@pytest.fixture
def team(workspace: Workspace, keys: tuple[Path, Path]) -> Workspace:
    """A workspace with one box, the authority, and ann on the list."""
    ca, ann = keys
    folder = workspace.inventory / "group_vars" / "all"
    (workspace.inventory / "hosts.yml").write_text("all: {hosts: {gpu1: {}}}")
    (folder / "people.yml").write_text(
        f"people_ca_keys: ['{public(ca)}']\n"
        f"people_list:\n"
        f"  - {{name: ann, keys: ['{public(ann)}'], until: 2999-12-31}}\n"
        f"  - {{name: bob, keys: ['{public(ann)}', {{file: {ann}.pub}}]}}\n"
        f"  - {{name: eve, keys: ['{public(ann)}'], state: absent}}\n"
        f"  - {{name: tim, keys: [{{key: '{public(ann)}', options: 'from=\"10.0.0.1\"'}}]}}\n"
        f"  - {{name: zoe}}\n"
    )
    return workspace


def shown(text: str) -> str:
    return process.run(["ssh-keygen", "-Lf", "-"], input=text).stdout


def test_what_a_certificate_says(keys: tuple[Path, Path]) -> None:
    ca, ann = keys
    key = public_keys.parse(public(ann))
    assert key is not None
    end = certificates.end_of(timedelta(hours=8), "")
    made = certificates.sign("ann", key, ca, end, environ=os.environ)
    said = shown(made.text)
    assert "user certificate" in said
    assert f"Serial: {made.serial}\n" in said
    assert "Principals: \n                ann\n" in said
    assert key.fingerprint in said and made.authority in said
    local = end.astimezone().strftime("%Y-%m-%dT%H:%M:%S")
    assert f" to {local}\n" in said


def test_serial_numbers_differ(keys: tuple[Path, Path]) -> None:
    ca, ann = keys
    key = public_keys.parse(public(ann))
    assert key is not None
    end = datetime.now(UTC) + timedelta(hours=1)
    made = [certificates.sign("ann", key, ca, end, environ=os.environ) for _ in range(3)]
    assert len({one.serial for one in made}) == 3


def test_an_agent_may_hold_the_authoritys_key(
    keys: tuple[Path, Path], tmp_path: Path, home: Path
) -> None:
    ca, ann = keys
    key = public_keys.parse(public(ann))
    assert key is not None
    socket = home / "agent"
    agent = process.start(["ssh-agent", "-D", "-a", str(socket)])
    try:
        env = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
        while not socket.exists():
            assert agent.poll() is None
        process.run(["ssh-add", "-q", ca], env=env)
        ca.unlink()
        end = datetime.now(UTC) + timedelta(hours=1)
        made = certificates.sign("ann", key, ca.with_name("ca.pub"), end, environ=env)
    finally:
        agent.terminate()
        agent.communicate()
    assert made.authority in shown(made.text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("8h", 28800), ("2d", 172800), ("1w", 604800)]
)
def test_times(text: str, seconds: int) -> None:
    assert certificates.parse_validity(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "0d", "8", "h", "-1h", "forever", "1.5h", "always:forever"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        certificates.parse_validity(text)


def test_no_certificate_outlives_the_last_day() -> None:
    day = datetime.now(UTC).date()
    end = certificates.end_of(timedelta(weeks=1), day.isoformat())
    assert end == datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


def test_sign_prints_the_certificate_alone(
    team: Workspace, keys: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["-w", str(team.root), "people", "sign", "ann", "--ca", str(keys[0]), "--valid", "2h"]
    assert main(words) == 0
    out, err = capfd.readouterr()
    assert out.count("\n") == 1 and "Principals: \n                ann\n" in shown(out)
    assert "It belongs beside the private key" in err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["ann", "--ca", "OTHER"], "no box trusts"),
        (["ann", "--ca", "/nowhere/ca"], "there is no public key in /nowhere/ca.pub"),
        (["nobody"], "nobody is called 'nobody'"),
        (["eve"], "eve has left"),
        (["bob"], "has 2 keys of bob"),
        (["zoe"], "has no keys of zoe"),
        (["tim"], "has options"),
        (["ann", "--valid", "soon"], "'soon' is no time"),
        (["ann", "bob"], "sign takes one name"),
    ],
)
def test_what_is_not_signed(
    team: Workspace, keys: tuple[Path, Path], words: list[str], why: str,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    other = make(keys[0].with_name("other"))
    words = [str(other) if word == "OTHER" else word for word in words]
    authority = [] if "--ca" in words else ["--ca", str(keys[0])]
    assert main(["-w", str(team.root), "people", "sign", *words, *authority]) == 2
    out, err = capfd.readouterr()
    assert out == "" and why in err


def test_a_revoked_key_is_not_signed(
    team: Workspace, keys: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    revoked = team.inventory / "group_vars" / "all" / "revoked.yml"
    revoked.write_text(f"people_revoked_keys: [{{file: {keys[1]}.pub}}]\n")
    assert main(["-w", str(team.root), "people", "sign", "ann", "--ca", str(keys[0])]) == 2
    assert "is revoked" in capfd.readouterr().err


def test_options_of_sign_without_sign(team: Workspace, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["-w", str(team.root), "people", "gpu1", "--valid", "1d"]) == 2
    assert "belong to: roost people sign NAME" in capfd.readouterr().err
