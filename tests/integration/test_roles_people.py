"""The role people on a real box: who gets in, who no longer does, and what is refused."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from roles import Outcome, apply, start, wait_for
from test_roles_base import LEAN, sh

from boxes import LiveBox, exec_in
from roost import process

pytestmark = pytest.mark.box

KEYS = "/etc/ssh/authorized_keys.d"


@pytest.fixture
def peopled(shared_box: Callable[..., LiveBox]) -> LiveBox:
    """A box with the base, and with an sshd that reads the key files of the role."""

    def provision(box: LiveBox) -> None:
        done = apply(box, ["base", "sshd"], **LEAN)
        assert done.returncode == 0, done.text

    return shared_box("peopled", provision)


@pytest.fixture
def key(tmp_path: Path) -> Callable[[str], Path]:
    """Make a key pair; the public half lies beside the path, with the ending ``.pub``."""

    def make(name: str, *options: str) -> Path:
        path = tmp_path / name
        process.run(["ssh-keygen", "-q", *(options or ("-t", "ed25519")), "-N", "",
                     "-C", f"{name}@test", "-f", path])  # fmt: skip
        return path

    return make


def public(path: Path) -> str:
    return Path(f"{path}.pub").read_text("utf-8").strip()


def people(box: LiveBox, *entries: dict[str, Any], **more: Any) -> Outcome:
    return apply(box, ["people"], people_list=list(entries), **more)


def login(box: LiveBox, user: str, identity: Path, command: str = "id -un") -> process.Completed:
    """Log in over ssh as ``user`` with exactly that key."""
    return process.run(
        ["ssh", "-F", box.workspace.ssh_config, "-S", "none", "-o", "BatchMode=yes",
         "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", f"User={user}",
         "-o", f"IdentityFile={identity}", box.name, command],
        check=False,
    )  # fmt: skip


def gets_in(box: LiveBox, user: str, identity: Path) -> bool:
    # The box's own identity stands in the config too: whoever came in must be the right one.
    return login(box, user, identity).stdout == f"{user}\n"


def test_a_team_gets_in_by_its_keys(peopled: LiveBox, key: Callable[..., Path]) -> None:
    ann, forced, bob, zoe, long = (key(n) for n in ("ann", "forced", "bob", "zoe", "long"))
    longest = "u" + "-9" * 15 + "x"
    team = [
        {"name": "ann", "full_name": "Ann Lee", "sudo": True, "groups": ["video"],
         "keys": [public(ann), {"key": public(forced), "options":
                                'restrict,command="echo \\"one, two\\"",from="0.0.0.0/0,::/0"'}]},
        {"name": "bob", "keys": [{"file": f"{bob}.pub"}], "shell": "/bin/sh", "sudo": "password"},
        {"name": "zoe-2", "keys": [public(zoe)], "boxes": ["elsewhere", peopled.name]},
        {"name": longest, "keys": [public(long)], "until": "2999-12-31"},
        {"name": "far", "keys": [public(zoe)], "boxes": ["elsewhere"]},
    ]  # fmt: skip
    check = people(peopled, *team)
    assert check.returncode == 0, check.text
    assert people(peopled, *team).changed == []

    assert login(peopled, "ann", ann, "sudo -n id -u").stdout == "0\n"
    assert login(peopled, "ann", forced, "id").stdout == "one, two\n"
    assert login(peopled, "bob", bob, "echo $0").stdout == "/bin/sh\n" or gets_in(
        peopled, "bob", bob
    )
    assert login(peopled, "bob", bob, "sudo -n id").returncode != 0
    assert "(ALL : ALL) ALL" in sh(peopled, "sudo -l -U bob")
    assert gets_in(peopled, "zoe-2", zoe)
    assert gets_in(peopled, longest, long)
    assert not gets_in(peopled, "bob", ann)
    assert sh(peopled, "getent passwd far", check=False) == ""
    assert "Ann Lee:/home/ann:/bin/bash" in sh(peopled, "getent passwd ann")
    assert "video" in sh(peopled, "id -nG ann")
    listing = sh(peopled, f"stat -c '%n %U %G %a' {KEYS} {KEYS}/ann /etc/sudoers.d/roost-people")
    assert listing.splitlines() == [
        f"{KEYS} root root 755", f"{KEYS}/ann root root 644",
        "/etc/sudoers.d/roost-people root root 440",
    ]  # fmt: skip
    expiry = datetime.date(3000, 1, 1) - datetime.date(1970, 1, 1)
    assert f":{expiry.days}:" in sh(peopled, f"getent shadow {longest}")


def test_check_changes_nothing_and_foretells(peopled: LiveBox, key: Callable[..., Path]) -> None:
    entry = {"name": "carl", "keys": [public(key("carl"))]}
    others = {"people_unlisted": "keep"}
    done = apply(peopled, ["people"], "--check", people_list=[entry], **others)
    assert done.returncode == 0, done.text
    assert "Make or adopt the accounts" in done.changed
    assert sh(peopled, "getent passwd carl", check=False) == ""
    assert sh(peopled, f"ls {KEYS}/carl", check=False) == ""


def test_an_account_that_is_there_is_adopted(peopled: LiveBox, key: Callable[..., Path]) -> None:
    sh(
        peopled,
        "useradd -u 1777 -d /srv/dora -m -s /bin/sh -c 'Old Name' dora && "
        "install -D -o dora -g dora -m 600 /etc/hostname /srv/dora/.ssh/authorized_keys",
    )
    before = sh(peopled, "getent passwd dora; find /srv/dora -printf '%p %T@ %U\\n'; id dora")
    identity = key("dora")
    assert people(peopled, {"name": "dora", "keys": [public(identity)]}).returncode == 0
    assert gets_in(peopled, "dora", identity)
    after = sh(peopled, "getent passwd dora; find /srv/dora -printf '%p %T@ %U\\n'; id dora")
    assert after == before


def test_somebody_who_leaves_keeps_nothing(peopled: LiveBox, key: Callable[..., Path]) -> None:
    eve, own = key("eve"), key("own")
    entry = {"name": "eve", "keys": [public(eve)], "sudo": True}
    assert people(peopled, entry).returncode == 0
    home = {"input": public(own)}
    assert login(peopled, "eve", eve, "true").returncode == 0
    exec_in(
        peopled,
        [
            "sh",
            "-c",
            "install -d -o eve -m 700 /home/eve/.ssh;"
            "cat > /home/eve/.ssh/authorized_keys; chown eve /home/eve/.ssh/*;"
            "mkdir -p /var/spool/cron/crontabs; "
            "echo '* * * * * true' > /var/spool/cron/crontabs/eve",
        ],
        **home,
    )
    assert gets_in(peopled, "eve", own)
    sh(
        peopled,
        "printf '[Service]\\nUser=%%i\\nExecStart=/bin/sleep 1000\\n[Install]\\n"
        "WantedBy=multi-user.target\\n' > /etc/systemd/system/roost-test@.service;"
        "systemctl daemon-reload; systemctl enable --now roost-test@eve.service;"
        "loginctl enable-linger eve",
    )
    login(peopled, "eve", eve, "setsid -f sleep 1001 >/dev/null 2>&1 </dev/null")
    assert sh(peopled, "pgrep -u eve -x sleep").count("\n") == 2

    gone = {**entry, "state": "absent", "home": "archive"}
    check = apply(peopled, ["people"], "--check", people_list=[gone])
    assert check.returncode == 0, check.text
    assert gets_in(peopled, "eve", eve)
    done = people(peopled, gone)
    assert done.returncode == 0, done.text
    assert not gets_in(peopled, "eve", eve)
    assert not gets_in(peopled, "eve", own)
    assert sh(peopled, "pgrep -u eve", check=False) == ""
    assert sh(peopled, "systemctl is-enabled roost-test@eve", check=False) == "disabled\n"
    assert sh(peopled, "ls /var/lib/systemd/linger /var/spool/cron/crontabs") == (
        "/var/lib/systemd/linger:\n\n/var/spool/cron/crontabs:\n"
    )
    assert "eve" not in sh(peopled, "cat /etc/sudoers.d/roost-people")
    assert sh(peopled, f"ls -d {KEYS}/eve /home/eve", check=False) == ""
    archive = sh(peopled, "stat -c '%a %n' /var/backups/roost/eve-*.tar.gz").split()
    assert archive[0] == "600"
    assert "eve/.ssh/authorized_keys" in sh(peopled, f"tar tf {archive[1]}")
    assert people(peopled, gone).changed == []

    assert people(peopled, entry).returncode == 0
    assert gets_in(peopled, "eve", eve)


@pytest.mark.parametrize("how", ["until", "unlisted", "boxes"])
def test_other_ways_to_leave(peopled: LiveBox, key: Callable[..., Path], how: str) -> None:
    name = f"fred-{how}"
    identity = key(name)
    entry = {"name": name, "keys": [public(identity)]}
    assert people(peopled, entry).returncode == 0
    assert gets_in(peopled, name, identity)
    later = {"until": [{**entry, "until": "2020-01-01"}], "unlisted": [],
             "boxes": [{**entry, "boxes": ["elsewhere"]}]}[how]  # fmt: skip
    assert people(peopled, *later, people_unlisted="keep").returncode == 0
    assert gets_in(peopled, name, identity) is (how == "unlisted")
    assert people(peopled, *later).returncode == 0
    assert not gets_in(peopled, name, identity)
    assert people(peopled, *later).changed == []
    assert sh(peopled, f"ls -d /home/{name}") == f"/home/{name}\n"


def test_the_account_of_the_connection_cannot_be_removed(peopled: LiveBox) -> None:
    user = peopled.now.user
    done = people(peopled, {"name": user, "state": "absent"})
    assert done.returncode == 2
    assert "this run is logged in as that account" in done.failed[0]


def test_a_departure_that_was_cut_off_is_finished(
    peopled: LiveBox, key: Callable[..., Path]
) -> None:
    identity = key("gus")
    entry = {"name": "gus", "keys": [public(identity)]}
    assert people(peopled, entry).returncode == 0
    # A process that a signal cannot end at once: the module gives up before the key file goes.
    sh(peopled, "printf '#!/bin/sh\\nexit 1\\n' > /usr/local/bin/pkill; chmod +x /usr/local/bin/*")
    sh(peopled, "runuser -u gus -- setsid -f sleep 1002 >/dev/null 2>&1 </dev/null")
    try:
        cut = people(peopled)
        assert cut.returncode == 2
        assert "processes of gus do not end" in cut.failed[0]
        # The account is closed already, although the key is still there.
        assert not gets_in(peopled, "gus", identity)
    finally:
        sh(peopled, "rm /usr/local/bin/pkill")
    done = people(peopled)
    assert done.returncode == 0, done.text
    assert sh(peopled, f"pgrep -u gus; ls {KEYS}/gus", check=False) == ""


def test_lists_that_are_refused(peopled: LiveBox, key: Callable[..., Path]) -> None:
    before = sh(peopled, f"cat /etc/passwd /etc/shadow {KEYS}/* 2>/dev/null", check=False)
    short = key("short", "-t", "rsa", "-b", "1024")
    good = public(key("good"))
    done = people(
        peopled,
        {"name": "hal", "keys": [good, good[:40]]},
        {"name": "ida", "keys": [public(short)]},
        {"name": "www-data", "keys": [good]},
        {"name": "jon", "keys": [good], "groups": ["no-such"]},
        {"name": "kim", "keys": [good]},
        {"name": "kim", "keys": [good]},
    )
    assert done.returncode == 2
    (said,) = done.failed
    for part in (
        "hal: key 2 is refused: it is malformed", "ida: key 1 is refused: RSA with 1024 bits",
        "www-data: it is a system account", "jon: the box has no group 'no-such'",
        "kim: the name stands in the list more than once", "Nothing was changed",
    ):  # fmt: skip
        assert part in said
    after = sh(peopled, f"cat /etc/passwd /etc/shadow {KEYS}/* 2>/dev/null", check=False)
    assert after == before


@pytest.mark.parametrize("form", ["text", "file", "without its first line"])
def test_a_private_key_is_refused_and_never_repeated(
    peopled: LiveBox, key: Callable[..., Path], form: str
) -> None:
    private = key("mistake")
    text = private.read_text("utf-8")
    secret = text.splitlines()[2]
    entry: Any = {"text": text, "file": {"file": str(private)},
                  "without its first line": "".join(text.splitlines()[1:-1])}[form]  # fmt: skip
    done = apply(
        peopled, ["people"], "-vvv", "--diff", people_list=[{"name": "lea", "keys": [entry]}]
    )
    assert done.returncode == 2
    assert "people_list holds a private key" in done.failed[0]
    assert secret not in done.text
    assert exec_in(peopled, ["grep", "-rF", secret, "/var/log", "/etc"], check=False).stdout == ""
    assert secret not in sh(peopled, "journalctl --no-pager")


def test_two_runs_at_once_end_in_the_same_state(
    peopled: LiveBox, key: Callable[..., Path], tmp_path: Path
) -> None:
    entries = [{"name": f"pat{n}", "keys": [public(key(f"pat{n}"))]} for n in range(3)]
    runs = [start(peopled, ["people"], tmp_path / f"log{n}", people_list=entries) for n in range(2)]
    codes = [wait_for(lambda run=run: run.poll() is not None and [run.returncode], "the end", 600)
             for run in runs]  # fmt: skip
    assert codes == [[0], [0]], (tmp_path / "log0").read_text() + (tmp_path / "log1").read_text()
    assert people(peopled, *entries).changed == []


def test_undo_takes_keys_and_sudo_away(peopled: LiveBox, key: Callable[..., Path]) -> None:
    entry = {"name": "max", "keys": [public(key("max"))], "sudo": True}
    assert people(peopled, entry).returncode == 0
    undone = apply(peopled, ["people"], people_state="absent")
    assert undone.returncode == 0, undone.text
    assert sh(peopled, f"ls -d {KEYS} /etc/sudoers.d/roost-people", check=False) == ""
    assert sh(peopled, "getent passwd max") != ""
    assert apply(peopled, ["people"], people_state="absent").changed == []
