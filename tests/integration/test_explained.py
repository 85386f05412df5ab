"""The commonest failures of a run, each staged on a real box: named, with what to do.

Those that are not here are in test_up_trouble: a box that is down, refuses the key or shows
another host key; no Python, no route, a lock that is held, an operating system that is refused.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from cli import roost, set_playbook

from boxes import LiveBox, exec_in, start_boxes
from roost import process
from roost.inventory import ansible_program

pytestmark = pytest.mark.box

WANTED = ("python3", "python3-apt", "python3-venv", "openssl")
SUDOERS = "/etc/sudoers.d"
REPOSITORY = "/opt/archive"
HERE = f"echo 'deb [trusted=yes] file:{REPOSITORY} ./' >/etc/apt/sources.list.d/here.list"
TLS = f"""
cd {REPOSITORY}
openssl req -quiet -x509 -newkey rsa:2048 -nodes -keyout key -out crt -subj /CN=localhost \\
    -days 2 2>/dev/null || openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out crt \\
    -subj /CN=localhost -days 2 2>/dev/null
systemd-run --quiet --unit=tls openssl s_server -accept 8443 -key $PWD/key -cert $PWD/crt -www
"""


@pytest.fixture(scope="module")
def box() -> Iterator[LiveBox]:
    with start_boxes("box") as boxes:
        apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
        exec_in(boxes["box"], [*apt, "update"], timeout=300)
        exec_in(boxes["box"], [*apt, "install", "--no-install-recommends", *WANTED], timeout=300)
        exec_in(boxes["box"], ["mkdir", "-p", REPOSITORY, "/etc/apt/aside", "/mnt/small"])
        yield boxes["box"]


@pytest.fixture(scope="module")
def with_installers(box: LiveBox) -> None:
    """The box has a pip and a uv."""
    exec_in(box, ["python3", "-m", "venv", "/opt/venv"], timeout=120)
    certificates = "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"
    pip = ["/opt/venv/bin/pip", "--cert", certificates.partition("=")[2], "install", "-q", "uv"]
    exec_in(box, ["env", certificates, *pip], timeout=300)


@dataclass(frozen=True)
class Stage:
    """One failure.

    Attributes:
        task: the task that fails, as YAML.
        what: a pattern for what is said of it; likewise ``fix``.
        fix: what to do.
        before: a script that stages it, run as root; ``after`` takes it back.
        after: likewise.
        code: the exit code.
    """

    task: str
    what: str
    fix: str
    before: str = "true"
    after: str = "true"
    code: int = 1


def shell(command: str) -> str:
    return f"- ansible.builtin.command: {json.dumps({'argv': ['bash', '-c', command]})}"


def release(date: datetime.timedelta, until: datetime.timedelta) -> str:
    """A package archive on the box itself whose index is of that time."""
    now = datetime.datetime.now(datetime.UTC)
    lines = [f"{k}: {now + d:%a, %d %b %Y %H:%M:%S} UTC" for k, d in
             (("Date", date), ("Valid-Until", until))]  # fmt: skip
    text = "\n".join(["Origin: here", "Suite: here", *lines, "SHA256:", ""])
    return f"printf '%s' {shlex.quote(text)} >{REPOSITORY}/Release; {HERE}"


DAY = datetime.timedelta(days=1)
MODULE = "- {become: true, ansible.builtin.apt: {update_cache: true, update_cache_retries: 1}}"
UPDATE = shell("sudo apt-get -q -o APT::Update::Error-Mode=any -o Acquire::Retries=0 update")
ALONE = "mv /etc/apt/sources.list.d/* /etc/apt/sources.list /etc/apt/aside/ 2>/dev/null; true; "
BACK = (
    "rm -f /etc/apt/sources.list.d/here.list; mv /etc/apt/aside/sources.list /etc/apt/ 2>/dev/null;"
    " mv /etc/apt/aside/* /etc/apt/sources.list.d/ 2>/dev/null; true"
)
NOWHERE = "echo 'deb {} stable main' >/etc/apt/sources.list.d/here.list"
FILL = "- ansible.builtin.copy: {dest: /mnt/small/file, content: \"{{ 'x' * 400000 }}\"}"
LESS_SUDO = f"mv {SUDOERS} {SUDOERS}.aside; mkdir {SUDOERS}; gpasswd -d debian sudo; true; "
SUDO_BACK = f"rm -r {SUDOERS}; mv {SUDOERS}.aside {SUDOERS}"
ROOT_TASK = "- {become: true, ansible.builtin.command: id}"
INDEX = "http://127.0.0.1:9/simple"

STAGES = {
    "archive-unreachable": Stage(
        MODULE, "package archive cannot be reached", "base_apt_mirror",
        ALONE + NOWHERE.format("http://127.0.0.1:9/debian"), BACK,
    ),
    "archive-name-unknown": Stage(
        UPDATE, r"cannot resolve the name archive\.invalid", "DNS",
        ALONE + NOWHERE.format("http://archive.invalid/debian"), BACK,
    ),
    "archive-from-the-future": Stage(
        UPDATE, "its clock is wrong", "timedatectl", ALONE + release(DAY, 9 * DAY), BACK,
    ),
    "archive-expired": Stage(
        UPDATE, "has not been renewed", "base_apt_mirror", ALONE + release(-9 * DAY, -DAY), BACK,
    ),
    "archive-not-signed": Stage(
        UPDATE, "does not trust the signature", "sources.list.d",
        ALONE + release(-DAY, DAY) + "; sed -i 's/\\[.*\\] //' /etc/apt/sources.list.d/here.list",
        BACK,
    ),
    "no-such-package": Stage(
        "- {become: true, ansible.builtin.apt: {name: no-such-package}}",
        "no package no-such-package", "apt policy",
    ),
    "dpkg-interrupted": Stage(
        shell("sudo apt-get install --yes hello"), "cut off in the middle", "dpkg --configure -a",
        "touch /var/lib/dpkg/updates/0001", "rm /var/lib/dpkg/updates/0001",
    ),
    "no-space": Stage(FILL, "disk is full", "df -h"),
    "read-only": Stage(shell("touch /mnt/small/file"), "is read-only", "dmesg"),
    "not-writable": Stage(FILL, "/mnt/small cannot be written", "findmnt"),
    "sudo-password": Stage(
        ROOT_TASK, "sudo asks for a password", "--ask-become-pass",
        LESS_SUDO + f"echo 'debian ALL=(ALL) ALL' >{SUDOERS}/debian", SUDO_BACK,
    ),
    "no-sudo-right": Stage(
        "- {become: true, vars: {ansible_become_password: wrong}, ansible.builtin.command: id}",
        "sudo asks for a password", "--ask-become-pass", LESS_SUDO, SUDO_BACK,
    ),
    "certificate": Stage(
        "- ansible.builtin.get_url: {url: 'https://localhost:8443/', dest: /tmp/x}",
        "does not trust the certificate", "base_ca_certificates", TLS, "systemctl stop tls",
    ),
    "memory-python": Stage(
        shell("ulimit -v 500000; python3 -c 'bytearray(10**9)'"), "ran out of memory", "free -h",
    ),
    "memory-killed": Stage(
        shell("sh -c 'kill -9 $$'; exit $?"), "ran out of memory", "free -h",
    ),
    "pip-requirement": Stage(
        shell("/opt/venv/bin/pip install --no-index no-such-thing"), "have no solution", "correct",
    ),
    "uv-requirement": Stage(
        shell("echo 'no-such-thing>2' | /opt/venv/bin/uv pip compile --no-index -"),
        "have no solution", "correct",
    ),
    "pip-index": Stage(
        shell(f"/opt/venv/bin/pip install --retries 1 --index-url {INDEX} six"),
        "index of Python packages", "base_pypi_index",
    ),
    "uv-index": Stage(
        shell(f"echo six | /opt/venv/bin/uv pip compile --index-url {INDEX} -"),
        "index of Python packages", "base_pypi_index",
    ),
    "connection-lost": Stage(
        shell("sudo pkill -KILL -u debian sshd; sleep 30"), "connection broke off", "run it again",
        code=4,
    ),
}  # fmt: skip


@contextlib.contextmanager
def staged(box: LiveBox, name: str) -> Iterator[None]:
    options = {"no-space": "size=64k", "read-only": "ro", "not-writable": "ro"}.get(name)
    privileged = ["exec", "--privileged", box.now.container]
    if options:
        box.sandbox.engine(*privileged, "mount", "-t", "tmpfs", "-o", f"{options},mode=1777",
                           "tmpfs", "/mnt/small")  # fmt: skip
    try:
        exec_in(box, ["sh", "-c", STAGES[name].before])
        yield
    finally:
        exec_in(box, ["sh", "-c", STAGES[name].after])
        if options:
            box.sandbox.engine(*privileged, "umount", "/mnt/small")


# One of each kind; the others say the same in other words.
QUICK = ("archive-from-the-future", "sudo-password", "certificate", "memory-killed")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.long) for n in STAGES]
)
def test_what_fails_is_named_with_what_to_do(
    box: LiveBox, name: str, request: pytest.FixtureRequest
) -> None:
    if name.startswith(("pip-", "uv-")):
        request.getfixturevalue("with_installers")
    stage = STAGES[name]
    set_playbook(box, stage.task)
    with staged(box, name):
        done = roost(box, "up")
    assert done.returncode == stage.code, done.stderr
    said = re.sub(r"\s+", " ", done.stderr)
    assert re.search(rf"box: .*{stage.what}.* fix: .*{stage.fix}", said), done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("host", "port", "what"),
    [
        ("nowhere.invalid", 22, "name nowhere.invalid is not known"),
        ("127.0.0.1", 9, "no sshd listens on that port"),
    ],
)
def test_a_wrong_address_is_named(box: LiveBox, host: str, port: int, what: str) -> None:
    set_playbook(box, ROOT_TASK)
    folder = box.workspace.inventory / "host_vars"
    folder.mkdir(exist_ok=True)
    override = folder / f"{box.name}.yml"
    pins = box.workspace.known_hosts
    known = pins.read_text("utf-8")
    try:
        override.write_text(f"ansible_host: {host}\nansible_port: {port}\n", "utf-8")
        done = roost(box, "up")
    finally:
        override.unlink()
        pins.write_text(known, "utf-8")
    assert done.returncode == 4, done.stderr
    assert what in re.sub(r"\s+", " ", done.stderr)


def test_a_vault_without_its_password_is_named(box: LiveBox) -> None:
    set_playbook(box, ROOT_TASK)
    folder = box.workspace.inventory / "group_vars" / "all"
    password = box.workspace.root / "password"
    secret = folder / "secret.yml"
    try:
        password.write_text("right", "utf-8")
        secret.write_text("answer: 42\n", "utf-8")
        vault = [
            ansible_program("ansible-vault"),
            "encrypt",
            "--vault-password-file",
            password,
            secret,
        ]
        process.run(vault)
        for more in ({}, {"ANSIBLE_VAULT_PASSWORD_FILE": str(password)}):
            password.write_text("wrong", "utf-8")
            os.environ.update(more)
            done = roost(box, "up")
            assert done.returncode in {1, 2}, done.stderr
            assert "vault secrets" in done.stderr
            assert "fix: name the vault's password" in done.stderr
    finally:
        os.environ.pop("ANSIBLE_VAULT_PASSWORD_FILE", None)
        secret.unlink()
        password.unlink()
