"""The role base on real boxes: from nothing, in trouble, and back."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from roles import apply, start, wait_for

from boxes import LiveBox, exec_in, ssh
from roost import process

pytestmark = pytest.mark.box

# Without the larger packages: these tests are about the base itself.
LEAN = {"base_memory_guard": "none", "base_unattended_upgrades": False}


def provision(box: LiveBox) -> None:
    done = apply(box, ["base"], **LEAN)
    assert done.returncode == 0, done.text


@pytest.fixture
def based(shared_box: Callable[..., LiveBox]) -> LiveBox:
    """A box with the lean base on it, shared by the tests of all roles."""
    return shared_box("based", provision)


def sh(box: LiveBox, script: str, check: bool = True) -> str:
    return exec_in(box, ["sh", "-c", script], check=check).stdout


def state_of(box: LiveBox) -> str:
    """Packages, and every file of the system's configuration with its time of change."""
    return sh(box, "dpkg -l; find /etc /usr/local -xdev -type f -printf '%p %T@\\n' | sort")


@pytest.mark.parametrize("box_os", ["debian:12", "debian:13"])
def test_from_a_bare_box_and_back(box: LiveBox) -> None:
    before = state_of(box)
    check = apply(box, ["base"], "--check")
    assert check.returncode == 0, check.text
    assert check.changed == ["Say that Python would be installed first"]
    assert state_of(box) == before

    first = apply(box, ["base"])
    assert first.returncode == 0, first.text
    for again in (apply(box, ["base"]), apply(box, ["base"], "--check")):
        assert (again.returncode, again.changed) == (0, []), again.text

    assert ssh(box, "echo $LANG").stdout == "C.UTF-8\n"
    assert "OOMPolicy=continue" in sh(box, "systemctl show ssh.service")
    # The limit applies to the slices of users who are logged in, so it is asked from within.
    limit = ssh(box, "systemctl show -P MemoryMax user-$(id -u).slice").stdout.strip()
    assert limit.isdigit() and int(limit) > 10**8
    periodic = sh(box, "apt-config dump APT::Periodic; apt-config dump Unattended-Upgrade")
    assert 'APT::Periodic::Unattended-Upgrade "1";' in periodic
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in periodic
    assert sh(box, "systemctl is-enabled earlyoom") == "enabled\n"
    # In a container the guard must not run: the memory that it would see is the host's.
    assert "ConditionVirtualization=!container" in sh(box, "systemctl cat earlyoom")
    line = sh(box, "systemctl show -P ExecStart earlyoom | sed 's/.*argv\\[\\]=//; s/ ; ign.*//'")
    guard = exec_in(box, ["timeout", "1", *line.split(), "--dryrun"], check=False)
    assert re.search(r"SIGTERM when mem( avail)? <=  5.00% and swap( free)? <= 100", guard.stderr)
    assert "Will avoid killing" in guard.stderr
    assert sh(box, "systemctl is-system-running") == "running\n"

    undone = apply(box, ["base"], base_state="absent")
    assert undone.returncode == 0, undone.text
    assert sh(box, "find /etc -iname '*roost*'") == ""
    assert sh(box, "systemctl is-enabled earlyoom", check=False) == "disabled\n"
    assert apply(box, ["base"], base_state="absent").changed == []
    # Last, since the guard would end other programs next: the machine never has 99 % free.
    the_guard_ends_what_eats_the_memory(box, line.replace("-m 5 ", "-m 99 "))


def the_guard_ends_what_eats_the_memory(box: LiveBox, guard: str) -> None:
    """Run the guard as the unit does, but as if memory were short at once."""
    # "tmux" and "sshd-session" are by far the largest: they are spared by their names.
    eat = "import time; x = b'x' * {} * 1000000; time.sleep(1000)"
    for name, size in (("tmux", 300), ("sshd-session", 300), ("hog", 200), ("next", 100)):
        start = f'cp /usr/bin/python3 /tmp/{name}; setsid -f /tmp/{name} -c "{eat.format(size)}"'
        ssh(box, f"{start} >/dev/null 2>&1 </dev/null")
    wait_for(lambda: large(box) == {"tmux", "sshd-session", "hog", "next"}, "the hogs")
    # Memory stays "short", so that it has to be stopped after the hog, which is quicker there.
    stop = '#!/bin/sh\\n[ "$EARLYOOM_NAME" = hog ] && pkill -x earlyoom\\n'
    sh(box, f"printf '{stop}' >/tmp/stop; chmod +x /tmp/stop")
    command = shlex.join([*guard.split(), "-N", "/tmp/stop"])
    exec_in(box, ["sh", "-c", f"exec timeout 60 {command} >/tmp/guard 2>&1"], check=False)
    assert large(box) == {"tmux", "sshd-session", "next"}, sh(box, "cat /tmp/guard")
    assert ssh(box, "id -u").returncode == 0


def large(box: LiveBox) -> set[str]:
    """The names of the programs that hold more than 90 MB."""
    lines = sh(box, "ps -eo rss=,comm=").splitlines()
    return {name for size, name in (line.split(None, 1) for line in lines) if int(size) > 90_000}


def test_unsupported_system_is_refused_before_anything_changes(based: LiveBox) -> None:
    sh(
        based,
        "cp --remove-destination /etc/os-release /tmp/release; "
        "rm /etc/os-release; "
        "printf 'ID=fedora\\nVERSION_ID=44\\nPRETTY_NAME=Fedora\\n' > /etc/os-release",
    )
    try:
        before = state_of(based)
        done = apply(based, ["base"], **LEAN)
        assert done.returncode == 2
        assert len(done.failed) == 1
        assert "runs Fedora, which is not supported" in done.failed[0]
        assert state_of(based) == before
    finally:
        sh(based, "ln -sf ../usr/lib/os-release /etc/os-release")


def test_too_little_room_is_refused_before_anything_changes(based: LiveBox) -> None:
    before = state_of(based)
    done = apply(based, ["base"], **LEAN, base_min_free_mb=10**9)
    assert done.returncode == 2
    assert "1000000000 MB are needed" in done.failed[0] and "Make room" in done.failed[0]
    assert state_of(based) == before


@pytest.fixture
def tiny_cache(based: LiveBox) -> Iterator[None]:
    """apt's folder for downloads on a file system of 100 kB, as if the disk were full."""
    inside = ["nsenter", "--target", str(based.now.pid), "--mount"]
    folder = "/var/cache/apt/archives"
    process.run([*inside, "mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", folder])
    try:
        sh(based, f"mkdir -p {folder}/partial")
        yield
    finally:
        process.run([*inside, "umount", folder])


@pytest.mark.usefixtures("tiny_cache")
def test_full_disk_is_one_clear_failure(based: LiveBox) -> None:
    done = apply(based, ["base"], **LEAN, base_packages=["gdb"])
    assert done.returncode == 2
    assert "the disk of the box is full" in done.failed[-1]
    assert sh(based, "dpkg -l gdb", check=False) == ""


def archives(box: LiveBox) -> set[str]:
    """Where apt would ask."""
    wanted = "apt-get indextargets --no-release-info --format '$(REPO_URI)'"
    return {uri.rstrip("/") for uri in sh(box, wanted).split()}


def test_unreachable_archive_is_one_clear_failure(based: LiveBox) -> None:
    sources = "grep -rv '^#' /etc/apt/sources.list /etc/apt/sources.list.d"
    before = sh(based, sources, check=False)
    security = {archive for archive in archives(based) if "security" in archive}
    assert security
    mirror = {"base_apt_mirror": "http://127.0.0.1:9/debian",
              "base_apt_security_mirror": "http://127.0.0.1:9/security",
              "base_apt_cache_valid_time": 0}  # fmt: skip
    try:
        done = apply(based, ["base"], **LEAN, **mirror)
        assert done.returncode == 2
        assert "the package archive cannot be reached from the box" in done.failed[-1]
        # Only the mirror is asked: the distribution's own sources are out of apt's sight.
        assert archives(based) == {"http://127.0.0.1:9/debian", "http://127.0.0.1:9/security"}
        # A mirror of the archive alone leaves security upgrades where they came from.
        del mirror["base_apt_security_mirror"]
        apply(based, ["base"], **LEAN, **mirror)
        assert archives(based) == {"http://127.0.0.1:9/debian", *security}
    finally:
        back = apply(based, ["base"], **LEAN)
    assert back.returncode == 0, back.text
    assert sh(based, sources, check=False) == before
    assert apply(based, ["base"], **LEAN).changed == []


@pytest.fixture
def held_lock(based: LiveBox) -> Iterator[Callable[[], None]]:
    """Hold dpkg's lock, as unattended-upgrades does; call the fixture's value to let it go."""
    sh(based, "touch /run/held")
    # F_SETLK as apt does it: a lock of flock(2) would not stand in its way.
    program = (
        "import fcntl, os, time\n"
        "f = open('/var/lib/dpkg/lock-frontend', 'w')\n"
        "fcntl.lockf(f, fcntl.LOCK_EX)\n"
        "open('/run/holding', 'w')\n"
        "while os.path.exists('/run/held'): time.sleep(0.1)\n"
    )
    holder = threading.Thread(target=exec_in, args=(based, ["python3", "-c", program]),
                              kwargs={"timeout": 120})  # fmt: skip
    holder.start()
    wait_for(lambda: sh(based, "ls /run/holding", check=False), "the lock")

    def release() -> None:
        sh(based, "rm -f /run/held /run/holding")

    yield release
    release()
    holder.join()


def test_a_held_lock_is_waited_for(
    based: LiveBox, held_lock: Callable[[], None], tmp_path: Path
) -> None:
    impatient = apply(based, ["base"], **LEAN, base_packages=["tree"], base_apt_lock_timeout=1)
    assert impatient.returncode == 2
    assert "another installation held the lock for longer" in impatient.failed[-1]
    log = tmp_path / "log"
    patient = start(based, ["base"], log, **LEAN, base_packages=["tree"])
    wait_for(lambda: sh(based, "pgrep -f Lock::Timeout", check=False), "apt's wait")
    assert patient.poll() is None
    held_lock()
    assert patient.wait(600) == 0, log.read_text()
    assert sh(based, "command -v tree") == "/usr/bin/tree\n"


def test_cloud_init_is_waited_for(based: LiveBox, tmp_path: Path) -> None:
    sh(based, "mkdir /run/cloud-init; printf '#!/bin/sh\\n' > /usr/bin/cloud-init;"
              "chmod +x /usr/bin/cloud-init")  # fmt: skip
    try:
        log = tmp_path / "log"
        run = start(based, ["base"], log, **LEAN)
        wait_for(lambda: sh(based, "pgrep -x sleep", check=False), "the wait")
        assert "Read what the box said" not in log.read_text()
        sh(based, "touch /run/cloud-init/result.json")
        assert run.wait(600) == 0, log.read_text()
    finally:
        sh(based, "rm -r /run/cloud-init /usr/bin/cloud-init")


def test_own_certificates_are_trusted_and_no_longer(based: LiveBox, tmp_path: Path) -> None:
    process.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                 "-subj", "/CN=roost test CA", "-keyout", tmp_path / "key",
                 "-out", tmp_path / "ca.pem"])  # fmt: skip
    pem = (tmp_path / "ca.pem").read_text()
    exec_in(based, ["sh", "-c", "cat > /tmp/ca.pem"], input=pem)
    verify = "openssl verify -CAfile /etc/ssl/certs/ca-certificates.crt /tmp/ca.pem"

    done = apply(based, ["base"], **LEAN, base_ca_certificates=[str(tmp_path / "ca.pem")])
    assert done.returncode == 0, done.text
    assert "/tmp/ca.pem: OK" in sh(based, verify)
    # The text itself instead of the file is the same certificate.
    assert apply(based, ["base"], **LEAN, base_ca_certificates=[pem]).changed == []
    assert apply(based, ["base"], **LEAN).returncode == 0
    assert exec_in(based, ["sh", "-c", verify], check=False).returncode != 0
    wrong = apply(based, ["base"], **LEAN, base_ca_certificates=[str(tmp_path / "key")])
    assert "holds no PEM certificate" in wrong.failed[0]
    assert "PRIVATE" not in wrong.text
