"""``roost people`` and certificates on a real box: what is said is what sshd then does."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
import yaml
from cli import ROOST, roost, set_variables
from test_roles_base import LEAN, sh
from test_roles_people import gets_in, login, public

from boxes import LiveBox, exec_in, start_boxes
from roost import process
from roost.sandbox.files import IDENTITY

pytestmark = pytest.mark.box

Keys = Callable[[str], Path]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Key pairs by name, each made once; the public half has the ending ``.pub``."""
    folder = tmp_path_factory.mktemp("keys")

    def make(name: str) -> Path:
        path = folder / name
        if not path.exists():
            process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@test",
                         "-f", path])  # fmt: skip
        return path

    return make


@pytest.fixture(scope="module")
def box() -> Iterator[LiveBox]:
    with start_boxes("box") as boxes:
        set_variables(boxes["box"], yaml.safe_dump(LEAN))
        done = roost(boxes["box"], "up", "--tags", "base", timeout=600)
        assert done.returncode == 0, done.stderr
        yield boxes["box"]


def entry(name: str, keys: Keys, **more: Any) -> dict[str, Any]:
    return {"name": name, "keys": [public(keys(name))], **more}


def up(box: LiveBox, people: list[dict[str, Any]], **variables: Any) -> process.Completed:
    """``roost up`` with this list of people, and only the roles that it is about."""
    set_variables(box, yaml.safe_dump({"people_list": people, **variables}))
    return roost(box, "up", "--tags", "people,sshd", timeout=600)


def provision(box: LiveBox, people: list[dict[str, Any]], **variables: Any) -> None:
    done = up(box, people, **variables)
    assert done.returncode == 0, done.stdout + done.stderr


def own_key_file(box: LiveBox, user: str, home: str, key: str, mode: str = "600") -> None:
    """A key that somebody put there by hand."""
    script = (
        f"install -d -o {user} -g {user} -m 700 {home}/.ssh && cat >> {home}/.ssh/authorized_keys"
        f" && chown {user}: {home}/.ssh/* && chmod {mode} {home}/.ssh/*"
    )
    exec_in(box, ["sh", "-c", script], input=f"{key}\n")


def ways(box: LiveBox) -> dict[tuple[str, str], dict[str, str]]:
    """What ``roost people --json`` says, by the account and the comment of the key."""
    done = roost(box, "people", box.name, "--json")
    assert done.returncode == 0, done.stderr
    return {(w["account"], w["comment"] or w["by"]): w for w in json.loads(done.stdout)}


def test_what_is_said_is_what_sshd_does(box: LiveBox, keys: Keys) -> None:
    user, identity = box.now.user, box.workspace.root / IDENTITY
    own = public(identity)
    (box.workspace.root / "keys").mkdir()
    shutil.copy(f"{keys('bob')}.pub", box.workspace.root / "keys" / "bob.pub")
    provision(box, [
        entry("ann", keys, full_name="Ann Lee", sudo=True),
        {"name": "bob", "keys": [{"file": "keys/bob.pub"}], "sudo": "password"},
        entry("eve", keys), entry("max", keys), entry("far", keys, boxes=["elsewhere"]),
    ])  # fmt: skip
    sh(box, "useradd -m zed; useradd -m idle; usermod -aG sudo zed; echo max:x | chpasswd -e")
    own_key_file(box, "zed", "/home/zed", public(keys("zed")))
    own_key_file(box, "ann", "/home/ann", public(keys("bob")))
    own_key_file(box, "bob", "/home/bob", public(keys("loose")), "666")
    own_key_file(box, "root", "/root", 'command="id -un" ' + public(keys("root")))
    set_variables(box, yaml.safe_dump({"people_list": [
        entry("ann", keys, sudo=True), {"name": "bob", "keys": [{"file": "keys/bob.pub"}]},
        entry("eve", keys, state="absent"), entry("max", keys), entry("new", keys),
    ]}))  # fmt: skip
    found = ways(box)
    said = {place: (w["state"], w["sudo"], w["source"] or w["note"]) for place, w in found.items()}
    assert said == {
        ("root", "root@test"): ("unlisted", "yes", ""),
        (user, own.split(None, 2)[2]): ("listed", "yes", f"your {identity}"),
        ("ann", "ann@test"): ("listed", "yes", "people_list, key 1"),
        ("ann", "bob@test"): ("unlisted", "yes", "the key of bob"),
        ("bob", "bob@test"): ("listed", "password", "keys/bob.pub"),
        ("bob", "loose@test"): ("ignored", "password", "modes of /home/bob/.ssh/authorized_keys"),
        ("eve", "eve@test"): ("left", "no", ""),
        ("max", "max@test"): ("listed", "no", "people_list, key 1"),
        ("zed", "zed@test"): ("unlisted", "password", ""),
        ("idle", "nothing"): ("unlisted", "no", ""),
        ("new", "new@test"): ("missing", "no", "people_list, key 1"),
    }  # fmt: skip
    for (account, comment), way in found.items():
        name = comment.removesuffix("@test")
        if comment.endswith("@test"):
            expected = way["state"] not in ("missing", "ignored")
            assert gets_in(box, account, keys(name)) is expected, (account, comment)
            assert way["fingerprint"] in process.run(["ssh-keygen", "-lf", keys(name)]).stdout
    assert found["root", "root@test"]["options"] == 'command="id -un"'
    assert found["ann", "bob@test"]["file"] == "/home/ann/.ssh/authorized_keys"


def test_the_table_names_what_nobody_listed(box: LiveBox) -> None:
    done = roost(box, "people")
    assert done.returncode == 0, done.stderr
    assert "NOT LISTED: the key of bob" in done.stdout
    assert "4 keys or accounts that nobody listed" in done.stderr
    assert "1 key or account of people who left" in done.stderr


def test_a_box_that_is_down_is_named(box: LiveBox) -> None:
    hosts = box.workspace.inventory / "down.yml"
    hosts.write_text("all: {hosts: {down: {ansible_host: 127.0.0.1, ansible_port: 1}}}\n")
    try:
        done = roost(box, "people")
    finally:
        hosts.unlink()
    assert done.returncode == 4
    assert "down" in done.stderr
    assert "zed" in done.stdout


def with_password(box: LiveBox, password: str) -> tuple[int, str]:
    """The exit code of ``roost people -K --json``, and what it said."""
    argv = ["-w", str(box.workspace.root), "people", box.name, "-K", "--json"]
    child = pexpect.spawn(str(ROOST), argv, encoding="utf-8", timeout=60)
    child.expect("sudo password on the boxes: ")
    child.sendline(password)
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus, child.before


def test_a_sudo_that_wants_a_password_gets_it(box: LiveBox) -> None:
    user, password = box.now.user, "correct horse $1"
    # One that is not asked for does no harm.
    assert with_password(box, password)[0] == 0
    (rule,) = sh(box, f"grep -rl '^{user} ' /etc/sudoers.d").split()
    exec_in(box, ["chpasswd"], input=f"{user}:{password}\n")
    sh(box, f"cp {rule} /root/rule; echo '{user} ALL=(ALL) ALL' > {rule}")
    try:
        without = roost(box, "people")
        assert f"fix: roost people {box.name} --ask-become-pass" in without.stderr
        assert with_password(box, "wrong")[0] == without.returncode == 1
        code, said = with_password(box, password)
    finally:
        sh(box, f"cp /root/rule {rule}; usermod -p '*' {user}")
    assert code == 0, said
    assert (user, "password") in {(way["account"], way["sudo"]) for way in json.loads(said)}


def test_keys_that_people_keep_themselves_may_count_for_nothing(box: LiveBox, keys: Keys) -> None:
    own = public(box.workspace.root / IDENTITY)
    me = {"name": box.now.user, "keys": [own], "sudo": True}
    people = [entry("ann", keys), entry("bob", keys), me]
    strict = {"sshd_honour_own_keys": False, "sshd_settings": {"DenyUsers": "bob"}}
    # Whoever is not on the list has no key then, the account of the connection included.
    refused = up(box, people[:2], **strict, sshd_guard_seconds=5)
    assert refused.returncode == 1
    assert "Nobody who may become root" in refused.stderr
    assert gets_in(box, "zed", keys("zed"))

    provision(box, people, **strict)
    found = ways(box)
    assert {place for place, way in found.items() if way["by"] == "key"} == {
        ("ann", "ann@test"), (box.now.user, own.split(None, 2)[2]), ("bob", "bob@test"),
    }  # fmt: skip
    assert found["bob", "bob@test"]["state"] == "ignored"
    assert found["zed", "nothing"]["state"] == "unlisted"
    assert gets_in(box, "ann", keys("ann"))
    for user, name in (("zed", "zed"), ("ann", "bob"), ("bob", "bob")):
        assert not gets_in(box, user, keys(name))


def test_the_page_about_people_can_be_followed(
    box: LiveBox, keys: Keys, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "people.md").read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    set_variables(box, yaml.safe_dump({"people_list": [{"name": "ann"}]}))
    (home / ".ssh").mkdir()
    root = box.workspace.root
    shutil.copy(f"{keys('fresh')}.pub", root / "ann.pub")
    shutil.rmtree(root / "keys", ignore_errors=True)
    monkeypatch.setenv("PATH", f"{Path(ROOST).parent}:{os.environ['PATH']}")
    # The page means the whole of it; here it is only about people.
    for block in blocks:
        script = block.replace("roost up", "roost up --tags people,sshd")
        done = process.run(["bash", "-ec", script], cwd=root, check=False, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    try:
        assert gets_in(box, "ann", certified(keys, "fresh", (root / "ann-cert.pub").read_text()))
    finally:
        (box.workspace.inventory / "group_vars" / "all" / "certificates.yml").unlink()


def authority(keys: Keys) -> dict[str, Any]:
    return {"people_ca_keys": [public(keys("ca"))]}


def gets_in_by_this_key_alone(box: LiveBox, user: str, identity: Path) -> bool:
    """Also for the account of the connection, whose own key the workspace's config would offer."""
    options = ["BatchMode=yes", "IdentityAgent=none", "StrictHostKeyChecking=no",
               "UserKnownHostsFile=/dev/null"]  # fmt: skip
    words = [word for option in options for word in ("-o", option)]
    argv = ["ssh", "-F", "none", *words, "-i", identity, "-p", str(box.now.port),
            f"{user}@{box.now.host}", "id -un"]  # fmt: skip
    return process.run(argv, check=False).stdout == f"{user}\n"


def certified(keys: Keys, name: str, text: str) -> Path:
    """A key of its own that has the certificate beside it, as a person keeps it."""
    path = Path(shutil.copy(keys(name), keys(name).with_name(f"{name}-certified")))
    path.with_name(f"{path.name}-cert.pub").write_text(text)
    return path


def signed(keys: Keys, name: str, *options: str, ca: str = "ca") -> str:
    """A certificate as ssh-keygen makes it, for what ``roost people sign`` refuses to make."""
    public_half = Path(shutil.copy(f"{keys(name)}.pub", keys(name).with_name("to-sign.pub")))
    process.run(["ssh-keygen", "-q", "-s", keys(ca), "-I", "test", *options, public_half])
    return public_half.with_name("to-sign-cert.pub").read_text()


def test_certificates_let_people_in_and_no_longer(box: LiveBox, keys: Keys) -> None:
    own = public(box.workspace.root / IDENTITY)
    user = box.now.user
    team: list[dict[str, Any]] = [{"name": "ann", "sudo": True}, {"name": "bob"},
                                  entry("eve", keys)]  # fmt: skip
    provision(box, team, **authority(keys))

    def sign(name: str, *more: str) -> process.Completed:
        return roost(box, "people", "sign", name, "--ca", str(keys("ca")), *more)

    made = sign("ann", "--key", f"{keys('card')}.pub", "--valid", "10m")
    assert made.returncode == 0, made.stderr
    card = certified(keys, "card", made.stdout)
    assert login(box, "ann", card, "sudo -n id -u").stdout == "0\n"
    serial = re.search(r"serial (\d+)", made.stderr)
    assert serial and f"(serial {serial[1]})" in sh(box, "journalctl -q --no-pager")
    found = ways(box)["ann", "ca@test"]
    assert (found["by"], found["state"], found["note"]) == ("certificate", "listed", "for ann")

    # The key alone was never listed; nobody else's account opens, root's and the login user's
    # neither, whatever the certificate says.
    assert not gets_in(box, "ann", keys("card"))
    assert not gets_in(box, "bob", card)
    for principal in (user, "root", "zed"):
        text = signed(keys, "wide", "-n", f"{principal},bob")
        wide = certified(keys, "wide", text)
        assert not gets_in_by_this_key_alone(box, principal, wide), principal
        assert gets_in_by_this_key_alone(box, "bob", wide)
    for name, text in {
        "expired": signed(keys, "other", "-n", "ann", "-V", "-2h:-1h"),
        "not yet": signed(keys, "other", "-n", "ann", "-V", "+1h:+2h"),
        "no principal": signed(keys, "other"),
        "a host's": signed(keys, "other", "-n", "ann", "-h"),
        "a stranger's": signed(keys, "other", "-n", "ann", ca="stranger"),
    }.items():
        assert not gets_in(box, "ann", certified(keys, "other", text)), name
    assert gets_in(box, "ann", certified(keys, "other", signed(keys, "other", "-n", "ann")))

    # Revoked: the card, with its certificate; and a key that is listed besides.
    revoked = [public(keys("card")), public(keys("eve"))]
    provision(box, team, **authority(keys), people_revoked_keys=revoked)
    assert not gets_in(box, "ann", card)
    assert not gets_in(box, "eve", keys("eve"))
    assert gets_in(box, "ann", certified(keys, "other", signed(keys, "other", "-n", "ann")))
    assert ways(box)["eve", "eve@test"]["note"] == "revoked"
    assert sign("ann", "--key", f"{keys('card')}.pub").returncode == 2
    # Whoever revokes the key that they are logged in with is not locked out by it.
    locked = up(box, team, **authority(keys), people_revoked_keys=[own],
                sshd_guard_seconds=5)  # fmt: skip
    assert locked.returncode == 1
    assert "the former configuration is back and works" in locked.stderr
    assert gets_in(box, user, box.workspace.root / IDENTITY)

    # Ann leaves; her certificate is good for another ten minutes, and for nothing.
    left = certified(keys, "other", signed(keys, "other", "-n", "ann"))
    team[0]["state"] = "absent"
    provision(box, team, **authority(keys))
    assert not gets_in(box, "ann", left)
    assert sh(box, "ls /etc/ssh/authorized_principals.d").split() == ["bob", "eve"]
    assert sign("ann", "--key", f"{keys('other')}.pub").returncode == 2

    # The authority goes: no certificate counts, and the keys still do.
    provision(box, team)
    assert not gets_in(box, "bob", certified(keys, "wide", signed(keys, "wide", "-n", "bob")))
    assert gets_in(box, "eve", keys("eve"))
    leftovers = "/etc/ssh/roost_* /etc/ssh/authorized_principals.d"
    assert sh(box, f"ls -d {leftovers}", check=False) == ""
