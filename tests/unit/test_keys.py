"""Which key a new box gets, and what is pinned for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost import keys, known_hosts, process
from roost.cli.hosts import parse_target
from roost.errors import UsageError
from roost.known_hosts import HostKey
from roost.ssh_failure import HostKeyError


def generate(path: Path, kind: str = "ed25519") -> str:
    process.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", path.name, "-f", path])
    return path.with_name(path.name + ".pub").read_text().strip()


@pytest.fixture
def folder(home: Path) -> Path:
    path = home / ".ssh"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    environ = dict(os.environ) | {"SSH_AUTH_SOCK": str(tmp_path / "agent")}
    with process.start(["ssh-agent", "-D", "-a", environ["SSH_AUTH_SOCK"]]) as child:
        while not Path(environ["SSH_AUTH_SOCK"]).exists():
            assert child.poll() is None
        yield environ
        child.terminate()


def test_there_is_none(folder: Path) -> None:
    assert keys.choose(folder, {}) is None


def test_the_best_that_is_there(folder: Path) -> None:
    rsa = generate(folder / "id_rsa", "rsa")
    assert keys.choose(folder, {}) == keys.Identity("~/.ssh/id_rsa", rsa)
    ed = generate(folder / "id_ed25519")
    assert keys.choose(folder, {}) == keys.Identity("~/.ssh/id_ed25519", ed)
    # One that is named, privately or publicly, comes first; without .pub it is computed.
    other = generate(folder / "other key")
    assert keys.choose(folder, {}, "~/.ssh/other key") == keys.Identity("~/.ssh/other key", other)
    assert keys.choose(folder, {}, str(folder / "other key.pub")) == keys.Identity(
        "~/.ssh/other key.pub", other
    )
    (folder / "other key.pub").unlink()
    found = keys.choose(folder, {}, "~/.ssh/other key")
    assert found is not None
    assert found.public.split()[:2] == other.split()[:2]


def test_what_is_no_key(folder: Path, tmp_path: Path) -> None:
    (folder / "id_ed25519").write_text("nothing")
    with pytest.raises(UsageError, match="cannot be read"):
        keys.choose(folder, {})
    (folder / "id_ed25519.pub").write_text("nothing\n")
    with pytest.raises(UsageError, match="is no public key"):
        keys.choose(folder, {})
    with pytest.raises(UsageError, match="there is no key file"):
        keys.choose(folder, {}, str(tmp_path / "missing"))
    locked = tmp_path / "locked"
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked])
    assert keys.public_key(locked).startswith("ssh-ed25519 ")
    locked.with_suffix(".pub").unlink()
    with pytest.raises(UsageError, match="cannot be read") as caught:
        keys.public_key(locked)
    assert "ssh-keygen -y" in (caught.value.fix or "")


def test_the_agents_key(folder: Path, tmp_path: Path, agent: dict[str, str]) -> None:
    assert keys.choose(folder, agent) is None
    public = generate(tmp_path / "one")
    process.run(["ssh-add", "-q", tmp_path / "one"], env=agent)
    assert keys.choose(folder, agent) == keys.Identity("", public)
    generate(tmp_path / "two")
    process.run(["ssh-add", "-q", tmp_path / "two"], env=agent)
    with pytest.raises(UsageError, match="offers 2 keys") as caught:
        keys.choose(folder, agent)
    assert "--identity" in (caught.value.fix or "")


def test_a_new_pair(home: Path) -> None:
    made = keys.make(home / ".ssh", "ann@here", ask=False)
    assert made.file == "~/.ssh/id_ed25519"
    assert made.public.startswith("ssh-ed25519 ")
    assert made.public.endswith(" ann@here")
    private = home / ".ssh" / "id_ed25519"
    assert (private.stat().st_mode & 0o777, private.parent.stat().st_mode & 0o777) == (0o600, 0o700)


ED = HostKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIA==")
RSA = HostKey("ssh-rsa", "AAAAB3NzaC1yc2E=")
names = st.sampled_from(["gpu", "10.0.0.5", "[10.0.0.5]:2222", "2001:db8::7", "[::1]:22022"])


@given(name=names, other=names, hashed=st.booleans())
def test_pins_as_ssh_keygen_finds_them(
    tmp_path_factory: pytest.TempPathFactory, name: str, other: str, hashed: bool
) -> None:
    pins = tmp_path_factory.mktemp("pins") / "known_hosts"
    pins.write_text("# a comment\n*.corp,!x.corp ssh-rsa AAAAB3NzaC1yc2E= theirs\n")
    known_hosts.pin(pins, other, [RSA], hashed=not hashed)
    known_hosts.pin(pins, name, [ED, RSA], hashed=hashed)
    found = process.run(["ssh-keygen", "-F", name, "-f", pins]).stdout
    assert ED.blob in found
    assert RSA.blob in found
    assert known_hosts.pinned(pins, name) == [ED, RSA]
    assert (name in pins.read_text()) >= (not hashed)
    if name != other:
        assert known_hosts.pinned(pins, other) == [RSA]
    # Pinned anew it is replaced, not added to; what it has is left as it stands.
    before = pins.read_text()
    known_hosts.pin(pins, name, [RSA, ED], hashed=not hashed)
    assert pins.read_text() == before
    known_hosts.pin(pins, name, [ED], hashed=hashed)
    assert known_hosts.pinned(pins, name) == [ED]
    known_hosts.unpin(pins, name)
    known_hosts.unpin(pins, other)
    assert pins.read_text() == "# a comment\n*.corp,!x.corp ssh-rsa AAAAB3NzaC1yc2E= theirs\n"


def test_patterns_and_authorities(tmp_path: Path) -> None:
    pins = tmp_path / "known_hosts"
    line = f"@cert-authority *.corp,!x.corp {ED.algorithm} {ED.blob} ca"
    pins.write_text(f"{line}\n*.corp {RSA.algorithm} {RSA.blob}\n@revoked * {RSA.algorithm} AAAA\n")
    assert known_hosts.authorities([pins, tmp_path / "missing"], "a.corp") == [line]
    assert known_hosts.authorities([pins], "x.corp") == []
    assert known_hosts.pinned(pins, "a.corp") == [RSA]
    # A pattern is somebody else's, too: it stays.
    known_hosts.pin(pins, "a.corp", [ED], hashed=False)
    assert f"\n*.corp {RSA.algorithm} " in pins.read_text()
    known_hosts.add_authorities(pins, [line, "@cert-authority y ssh-ed25519 AAAA"])
    assert pins.read_text().count("@cert-authority") == 2


def test_a_fingerprint_is_compared(tmp_path: Path) -> None:
    shown = process.run(["ssh-keygen", "-l", "-f", "-"], input=f"{ED.algorithm} {ED.blob}\n",
                        check=False)  # fmt: skip
    if shown.returncode == 0:
        assert ED.fingerprint in shown.stdout
    public = generate(tmp_path / "key")
    key = HostKey(*public.split()[:2])
    listed = process.run(["ssh-keygen", "-l", "-f", tmp_path / "key.pub"]).stdout
    assert listed.split()[1] == key.fingerprint
    assert known_hosts.check_fingerprint([ED, key], key.fingerprint) == key
    assert known_hosts.check_fingerprint([key], key.fingerprint.removeprefix("SHA256:")) == key
    with pytest.raises(HostKeyError, match="does not have the host key"):
        known_hosts.check_fingerprint([ED], key.fingerprint)
    with pytest.raises(UsageError):
        known_hosts.check_fingerprint([ED], "MD5:00:11")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("h", ("", "h", 22)),
        ("me@h", ("me", "h", 22)),
        ("me@h:2222", ("me", "h", 2222)),
        ("me@corp@h", ("me@corp", "h", 22)),
        ("2001:db8::7", ("", "2001:db8::7", 22)),
        ("me@[2001:db8::7]:2222", ("me", "2001:db8::7", 2222)),
        ("[::1]", ("", "::1", 22)),
        ("me@fe80::1%eth0", ("me", "fe80::1%eth0", 22)),
    ],
)
def test_where_a_box_is(text: str, expected: tuple[str, str, int]) -> None:
    assert parse_target(text) == expected


@pytest.mark.parametrize(
    "text", ["", "@h", "me@", "h:", "h:0", "h:70000", "h:ssh", "[::1", "a b:c:d"]
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(UsageError):
        parse_target(text)


OURS = "ssh-ed25519 AAAAC3Nz/+ours me@here"


@pytest.mark.parametrize(
    ("before", "after", "taken"),
    [
        (f"{OURS}\n", "", "1"),
        (
            f"# first\nssh-rsa AAAAother x\n{OURS}\nlast",
            "# first\nssh-rsa AAAAother x\nlast\n",
            "1",
        ),
        (f'from="10.*",no-pty {OURS} again\n{OURS}\n', "", "2"),
        (
            f"# {OURS}\nssh-ed25519 AAAAC3Nz/+ours2 x",
            f"# {OURS}\nssh-ed25519 AAAAC3Nz/+ours2 x",
            "0",
        ),
        (None, None, "0"),
    ],
)
def test_a_key_is_taken_out_and_nothing_else(
    home: Path, tmp_path: Path, before: str | None, after: str | None, taken: str
) -> None:
    """The script for the box, run here."""
    real, link = tmp_path / "real", home / ".ssh" / "authorized_keys"
    link.parent.mkdir(mode=0o700)
    if before is not None:
        real.write_text(before)
        real.chmod(0o640)
        link.symlink_to(real)
    done = process.run(["sh", "-c", keys._TAKE_AWAY], input=OURS + "\n", env=dict(os.environ))
    assert done.stdout.strip() == taken
    assert (real.read_text() if real.exists() else None) == after
    assert [p.name for p in tmp_path.iterdir()] == (["real"] if before is not None else [])
    if before is not None:
        assert link.is_symlink()
        assert real.stat().st_mode & 0o777 == 0o640
