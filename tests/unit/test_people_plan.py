"""What the role people accepts as a key, a name and an entry, before a box sees any of it."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_module() -> ModuleType:
    # On a box Ansible brings what the module imports from there.
    ansible.module_utils.__path__.append(str(ROOT / "plugins/module_utils"))
    path = ROOT / "plugins/modules/people_plan.py"
    spec = importlib.util.spec_from_file_location("people_plan", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


people_plan = load_module()

# An Ed25519 and a FIDO key that nobody holds the private halves of: the points are zeros.
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
SK = (
    "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAI" + "A" * 43
    + "AAAABHNzaDo= ann@token"
)  # fmt: skip


def make_key(folder: Path, kind: str, bits: str = "") -> str:
    path = folder / "key"
    more = ["-b", bits] if bits else []
    argv = ["ssh-keygen", "-q", "-t", kind, *more, "-N", "", "-C", "a b", "-f", str(path)]
    subprocess.run(argv, check=True)
    return path.with_suffix(".pub").read_text().strip()


@pytest.mark.parametrize(
    ("kind", "bits"), [("ed25519", ""), ("rsa", "2048"), ("ecdsa", "256"), ("ecdsa", "521")]
)
def test_real_keys_are_accepted(tmp_path: Path, kind: str, bits: str) -> None:
    key = make_key(tmp_path, kind, bits)
    assert people_plan.key_lines({"key": key}) == [key]


def test_short_rsa_key_is_refused(tmp_path: Path) -> None:
    key = make_key(tmp_path, "rsa", "1024")
    with pytest.raises(people_plan.RefusedError, match="RSA with 1024 bits"):
        people_plan.key_lines({"key": key})


@pytest.mark.parametrize("key", [ED25519, SK])
def test_ssh_keygen_reads_the_same(tmp_path: Path, key: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f'from="10.0.0.1,::1",command="echo \\"a, b\\"" {key}\n')
    subprocess.run(["ssh-keygen", "-lf", path], check=True, capture_output=True)
    assert people_plan.key_lines({"key": path.read_text()}) == [path.read_text().strip()]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ""),
        ("restrict", "restrict"),
        ('from="10.0.0.0/8,192.168.1.*"', 'from="10.0.0.0/8,192.168.1.*"'),
        (r'command="echo \"a, b\" ssh-rsa"', r'command="echo \"a, b\" ssh-rsa"'),
        ('environment="A=b c",no-pty', 'environment="A=b c",no-pty'),
        ('No-Port-Forwarding,permitopen="[::1]:80"', 'No-Port-Forwarding,permitopen="[::1]:80"'),
    ],
)
def test_options_are_split_as_sshd_does(options: str, expected: str) -> None:
    line = f"{options} {ED25519} ann" if options else f"{ED25519} ann"
    assert people_plan.split_options(line) == (expected, f"{ED25519} ann")
    separate = people_plan.key_lines({"key": f"{ED25519} ann", "options": options})
    assert separate == [line]


def test_a_file_with_several_keys() -> None:
    text = f"# laptop\n{ED25519} one\n\nrestrict {ED25519} two\n"
    assert people_plan.key_lines({"key": text, "options": "no-pty"}) == [
        f"no-pty {ED25519} one",
        f"restrict,no-pty {ED25519} two",
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("# only a comment", "empty"),
        ("ssh-ed25519", "cut off"),
        (ED25519[:-8], "malformed"),
        ("ssh-ed25519 !!!!", "malformed"),
        (ED25519.replace("ssh-ed25519", "ssh-rsa"), "do not fit"),
        ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB", "malformed"),
        ("ssh-dss AAAAB3NzaC1kc3MAAACBAP1", "neither a key type nor an option"),
        (f'from="10.0.0.1 {ED25519}', "options are malformed"),
        (f"no-such-option {ED25519}", "neither a key type nor an option"),
        ("restrict,no-pty", "no key after"),
        ("ann@laptop", "malformed|neither"),
    ],
)
def test_what_is_no_key_is_refused(text: str, why: str) -> None:
    with pytest.raises(people_plan.RefusedError, match=why) as refused:
        people_plan.key_lines({"key": text})
    assert "AAAA" not in str(refused.value)


@pytest.mark.parametrize("options", ['from="10.0.0.1', "no-such", f"restrict {ED25519}", "a b"])
def test_wrong_options_beside_a_key_are_refused(options: str) -> None:
    with pytest.raises(people_plan.RefusedError):
        people_plan.key_lines({"key": ED25519, "options": options})


@pytest.mark.parametrize(
    ("person", "why"),
    [
        ({}, "a name starts with"),
        ({"name": "Ann"}, "a name starts with"),
        ({"name": "1ann"}, "a name starts with"),
        ({"name": "a" * 33}, "a name starts with"),
        ({"name": "ann;id"}, "a name starts with"),
        ({"name": "ann", "sate": "absent"}, "unknown field 'sate'; 'state'"),
        ({"name": "ann", "state": "gone"}, "state is one of present, absent"),
        ({"name": "ann", "sudo": "yes"}, "sudo is one of true, false, password"),
        ({"name": "ann", "home": "burn"}, "home is one of"),
        ({"name": "ann", "until": "soon"}, "until is a date"),
        ({"name": "ann", "shell": "bash"}, "absolute path"),
        ({"name": "ann", "full_name": "a:b"}, "colon"),
    ],
)
def test_wrong_entries_are_refused(person: dict[str, Any], why: str) -> None:
    with pytest.raises(people_plan.RefusedError, match=why):
        people_plan.check_person(person)


@pytest.mark.parametrize("name", ["ann", "_ann", "ann-lee2", "a" * 32, "u-"])
def test_names_that_are_fine(name: str) -> None:
    people_plan.check_person({"name": name})


@pytest.mark.parametrize(
    ("person", "left"),
    [
        ({}, False),
        ({"state": "absent"}, True),
        ({"until": "2027-01-31"}, False),  # the last day counts
        ({"until": "2027-01-30"}, True),
        ({"until": "2028-01-01", "state": "absent"}, True),
    ],
)
def test_who_has_left(person: dict[str, Any], left: bool) -> None:
    assert people_plan.has_left(person, "2027-01-31") is left


def test_sudo_rules() -> None:
    rule = people_plan.sudo_rule
    assert rule({"name": "ann"}) == rule({"name": "ann", "sudo": False}) == ""
    assert rule({"name": "ann", "sudo": True}) == "ann ALL=(ALL:ALL) NOPASSWD: ALL\n"
    assert rule({"name": "ann", "sudo": "password"}) == "ann ALL=(ALL:ALL) ALL\n"


def planner(tmp_path: Path, **params: Any) -> Any:
    """A plan for a box on which nobody of the list has an account."""
    plan = people_plan.Planner({
        "people": [], "places": ["box"], "today": "2027-01-31", "login_user": "",
        "keys_folder": str(tmp_path / "keys"), "unlisted": "leave", "authorities": [],
        "revoked": [], "principals_folder": str(tmp_path / "principals"), **params,
    })  # fmt: skip
    plan.build()
    return plan


def test_principals_are_those_who_belong_here_while_there_is_an_authority(tmp_path: Path) -> None:
    folder = tmp_path / "principals"
    folder.mkdir()
    (folder / "gone").touch()
    people = [{"name": "no-such-ann"}, {"name": "no-such-bob", "boxes": ["elsewhere"]}]
    files = planner(tmp_path, people=people, authorities=[{"key": ED25519}]).files
    placed = {Path(f["path"]).name: f for f in files if f["path"].startswith(f"{folder}/")}
    assert {name: f["state"] for name, f in placed.items()} == {
        "gone": "absent", "no-such-ann": "file",
    }  # fmt: skip
    assert placed["no-such-ann"]["content"].splitlines()[1:] == ["no-such-ann"]
    files = planner(tmp_path, people=people).files
    left = [f["path"] for f in files if f.get("state") == "absent"]
    assert left == [f"{folder}/gone", str(folder)]


@pytest.mark.parametrize(
    ("param", "variable"), [("authorities", "people_ca_keys"), ("revoked", "people_revoked_keys")]
)
def test_keys_of_authorities_and_revoked_keys_are_checked(
    tmp_path: Path, param: str, variable: str
) -> None:
    entries = [{"key": ED25519}, {"key": f"restrict {ED25519}"}, {"key": ED25519[:-8]}]
    plan = planner(tmp_path, **{param: entries})
    assert getattr(plan, param) == [ED25519]
    assert [p.split(":")[:2] for p in plan.problems] == [
        [variable, " key 2 is refused"], [variable, " key 3 is refused"],
    ]  # fmt: skip
