"""What is made of a box's answer: each way in, and whether somebody listed it."""

from __future__ import annotations

import io
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from roost import people, people_list, public_keys
from roost.cli import people as verb
from roost.errors import RoostError, UsageError
from roost.job_stream import Remote
from roost.model import Box
from roost.people_list import Known, Listed
from roost.public_keys import PublicKey
from roost.report import Reporter

ROOT_SUDO = "(ALL) NOPASSWD: ALL"
BOX = Box("gpu1", "192.0.2.1", groups=("gpu",))


def key(fill: str, comment: str = "") -> PublicKey:
    line = f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{fill * 43} {comment}"
    found = public_keys.parse(line)
    assert found is not None
    return found


ANN, BOB, CA = key("A", "ann"), key("B", "bob"), key("C", "team CA")
SETTINGS = {
    "pubkeyauthentication": "yes", "passwordauthentication": "no",
    "kbdinteractiveauthentication": "no", "permitrootlogin": "without-password",
    "trustedusercakeys": "none", "revokedkeys": "none",
}  # fmt: skip


def account(name: str, *keys: PublicKey, **more: Any) -> dict[str, Any]:
    lines = [f"{one.options} {one}".strip() for one in keys]
    files = [{"path": f"/etc/ssh/authorized_keys.d/{name}", "lines": lines, "untrusted": ""}]
    settings = {**SETTINGS, **more.pop("settings", {})}
    return {
        "name": name, "uid": 1000, "full_name": "", "shell": "/bin/bash", "personal": True,
        "closed": False, "password": False, "admitted": True, "files": files if keys else [],
        "principals": [], "sudo": "", "settings": settings, **more,
    }  # fmt: skip


def look(*accounts: dict[str, Any], known: Known | None = None,
         **contents: list[str]) -> list[people.Way]:  # fmt: skip
    said = {"accounts": accounts, "login": "debian", "contents": contents}
    return people.ways(said, BOX, known or Known((Listed(ANN, "here", "ann"),), ("ann",)))


def states(ways: list[people.Way]) -> list[tuple[str, str, str]]:
    return [(way.account, way.by, way.state) for way in ways]


def test_a_listed_key_in_its_own_account() -> None:
    (way,) = look(account("ann", ANN))
    assert (way.state, way.source, way.fingerprint) == ("listed", "here", ANN.fingerprint)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [("ann", "key", "listed")]),
        ({"closed": True}, [("ann", "key", "missing")]),
        ({"admitted": False}, [("ann", "key", "ignored")]),
        ({"settings": {"pubkeyauthentication": "no"}}, [("ann", "key", "ignored")]),
        ({"password": True}, [("ann", "key", "listed")]),
        ({"password": True, "settings": {"passwordauthentication": "yes"}},
         [("ann", "key", "listed"), ("ann", "password", "listed")]),
        ({"password": True, "admitted": False, "settings": {"passwordauthentication": "yes"}},
         [("ann", "key", "ignored")]),
        ({"settings": {"revokedkeys": "revoked"}}, [("ann", "key", "ignored")]),
    ],
)  # fmt: skip
def test_what_a_way_depends_on(
    changes: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    assert states(look(account("ann", ANN, **changes), revoked=[str(ANN)])) == expected


@pytest.mark.parametrize(
    ("value", "password", "expected"),
    [
        ("yes", True, [("root", "key", "unlisted"), ("root", "password", "unlisted")]),
        ("without-password", True, [("root", "key", "unlisted")]),
        ("no", True, [("root", "key", "ignored")]),
    ],
)
def test_root(value: str, password: bool, expected: list[tuple[str, str, str]]) -> None:
    settings = {"permitrootlogin": value, "passwordauthentication": "yes"}
    root = account("root", BOB, uid=0, personal=False, password=password, settings=settings)
    assert states(look(root, known=Known())) == expected


def test_keys_in_the_wrong_account() -> None:
    known = Known((Listed(ANN, "1", "ann"), Listed(BOB, "2", "bob"), Listed(CA, "mine")),
                  ("ann", "bob"))  # fmt: skip
    found = look(account("ann", ANN, BOB, CA), account("debian", CA), account("bob", BOB),
                 known=known)  # fmt: skip
    assert [(w.account, w.state, w.note) for w in found] == [
        ("ann", "listed", ""),
        ("ann", "unlisted", "the key of bob"),
        ("ann", "unlisted", ""),
        ("debian", "listed", ""),
        ("bob", "listed", ""),
    ]


def test_an_authority_in_a_key_file_is_no_key() -> None:
    authority = PublicKey(CA.kind, CA.blob, "ca", "cert-authority")
    found = look(account("ann", ANN, authority))
    assert states(found)[1] == ("ann", "certificate", "unlisted")


def test_certificates_count_where_a_principal_is_accepted() -> None:
    settings = {"trustedusercakeys": "trusted"}
    known = Known((), ("ann", "bob"), authorities=frozenset({CA.blob}))
    accounts = (account("ann", principals=["ann"], settings=settings),
                account("bob", settings=settings))  # fmt: skip
    found = look(*accounts, known=known, trusted=[str(CA)])
    assert states(found) == [("ann", "certificate", "listed"), ("bob", "nothing", "listed")]
    foreign = look(accounts[0], known=Known((), ("ann",)), trusted=[str(CA)])
    assert states(foreign) == [("ann", "certificate", "unlisted")]


def test_people_who_are_to_be_gone_and_people_who_are_not_there_yet() -> None:
    known = Known((Listed(ANN, "here", "ann"),), ("ann", "zoe"), gone=frozenset({"bob"}))
    assert states(look(account("bob", BOB), account("sys", personal=False), known=known)) == [
        ("bob", "key", "left"), ("ann", "key", "missing"), ("zoe", "nothing", "missing"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("User ann may run the following commands on gpu1:\n    (ALL : ALL) NOPASSWD: ALL", "yes"),
        ("User ann may run the following commands on gpu1:\n    (ALL : ALL) ALL", "password"),
        ("User ann may run the following commands on gpu1:\n"
         "    (root) NOPASSWD: /usr/bin/systemctl restart x", "limited"),
        ("User ann is not allowed to run sudo on gpu1.", "no"),
    ],
)  # fmt: skip
def test_what_sudo_says(said: str, expected: str) -> None:
    assert look(account("ann", ANN, sudo=said))[0].sudo == expected


TODAY = date(2027, 1, 31)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, True),
        ({"boxes": ["gpu"]}, True),
        ({"boxes": ["gpu1", "x"]}, True),
        ({"boxes": ["x"]}, False),
        ({"boxes": []}, False),
        ({"boxes": ["all"]}, True),
        ({"until": date(2027, 1, 31)}, True),
        ({"until": "2027-01-30"}, False),
        ({"state": "absent"}, False),
    ],
)
def test_who_belongs_on_a_box(entry: dict[str, Any], expected: bool) -> None:
    assert people_list.belongs({"name": "ann", **entry}, BOX, TODAY) is expected


def test_keys_of_an_entry(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "two.pub").write_text(f"# both\n{ANN}\nno-pty {BOB}\n")
    entry = {"name": "ann", "keys": [str(ANN), {"file": "keys/two.pub", "options": "restrict"},
                                     {"key": str(BOB)}, {"file": "~/own.pub"}]}  # fmt: skip
    (tmp_path / "own.pub").write_text(str(CA))
    found = list(people_list.keys_of(entry, tmp_path, tmp_path))
    assert [(one.source, one.key.comment, one.key.options) for one in found] == [
        ("people_list, key 1", "ann", ""), ("keys/two.pub", "ann", "restrict"),
        ("keys/two.pub", "bob", "no-pty,restrict"), ("people_list, key 3", "bob", ""),
        ("~/own.pub", "team CA", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("item", "why"),
    [("{{ lookup('file', 'x') }}", "is a template"), ({"file": "no/such"}, "cannot be read")],
)
def test_keys_that_cannot_be_read(tmp_path: Path, item: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        list(people_list.keys_of({"name": "ann", "keys": [item]}, tmp_path, tmp_path))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("sudo: a password is required", "sudo wants a password"),
        ("sudo: sorry, you must have a tty to run sudo", "sudo wants a password"),
        ("sudo: /usr/bin/python3: command not found", "has no complete Python"),
        ("sh: 1: exec: /usr/bin/python3: not found", "has no complete Python"),
        ("ModuleNotFoundError: No module named json", "has no complete Python"),
        ("Traceback: nonsense", "failed with exit code 1"),
    ],
)
def test_boxes_that_cannot_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, expected: str
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(RoostError, match=expected):
        people.ask(Remote(tmp_path / "config", BOX))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_table_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    way = people.Way("gpu1", "ann-lee", "Ann", "password", "key", "listed", "people_list, key 1",
                     "", "ed25519", ANN.fingerprint, "ann@laptop")  # fmt: skip
    Reporter(stdout=screen).table(verb.COLUMNS, [verb.row(way)])
    _, line = screen.getvalue().rstrip().splitlines()
    assert len(line) <= 80
    assert line.split()[:5] == ["gpu1", "ann-lee", "password", "ed25519", ANN.fingerprint[7:19]]
