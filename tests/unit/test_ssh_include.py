"""The one line in a user's ssh config: what is written, and what is never lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from faults import LIVED_IN, child, contents, fresh, user_config
from hypothesis import given
from hypothesis import strategies as st
from ssh_corpus import shape

from roost import ssh_probe
from roost.errors import InventoryError, RoostError
from roost.include_line import decode, is_effective, position, with_line, without_line
from roost.paths import Paths
from roost.ssh_include import ConfigChangesError, ReadOnlyConfigError, UserConfig

HERE = Path(__file__).parent
HOSTS = "Host gpu1\n    HostName 192.0.2.1\n"


@pytest.fixture
def config(home: Path) -> Path:
    (home / ".ssh").mkdir(mode=0o700)
    return home / ".ssh" / "config"


@pytest.fixture
def user(config: Path, paths: Paths) -> UserConfig:
    return UserConfig(config, paths)


def install(user: UserConfig, workspace: str = "/a") -> bool:
    user.write(Path(workspace), HOSTS)
    return user.install()


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below ``folder`` with its mode and bytes."""
    found = (p for p in sorted(folder.rglob("*")) if not p.is_dir())
    return {str(p.relative_to(folder)): (p.stat().st_mode, p.read_bytes()) for p in found}


@pytest.mark.parametrize("number", range(100))
def test_the_corpus_survives_byte_for_byte(
    user: UserConfig, config: Path, tmp_path: Path, number: int
) -> None:
    included = tmp_path / "included"
    included.mkdir()
    before = shape(number, included)
    config.write_bytes(before)
    config.chmod(0o640 if number % 2 else 0o600)
    mode = config.stat().st_mode
    names = [n for n in ssh_probe.names(config) if n != "gpu1"]
    answers = {name: ssh_probe.answer(config, name) for name in names}

    assert install(user)
    after = config.read_bytes()
    newline = b"\r\n" if before.split(b"\n")[0].endswith(b"\r") else b"\n"
    assert after == user.line.encode() + newline + before
    assert config.stat().st_mode == mode
    assert {name: ssh_probe.answer(config, name) for name in names} == answers
    if not any(answer.startswith("exit") for answer in answers.values()):
        assert ssh_probe.settings(config, "gpu1")["hostname"] == "192.0.2.1"

    assert not install(user)
    assert config.read_bytes() == after
    assert user.undo()
    assert (config.read_bytes(), config.stat().st_mode) == (before, mode)
    assert not user.undo()
    assert [p.name for p in config.parent.iterdir()] == ["config"]
    assert not user.folder.exists()


def test_the_corpus_is_what_it_says(tmp_path: Path) -> None:
    """The corpus has every shape that it is for, and most of it is valid."""
    made = [shape(number, tmp_path) for number in range(100)]
    assert len(set(made)) > 90
    for sign in (b"\r\n", b"\t", b"=", b"Match host", b"exec", b"Include", b"\xff", b"# ", b'"'):
        assert any(sign in one for one in made), sign
    assert any(one and not one.endswith(b"\n") for one in made)
    assert b"" in made


def test_ten_megabytes(user: UserConfig, config: Path) -> None:
    block = b"Host h%d\n  HostName 192.0.2.1\n" + b"  # " + b"x" * 50000 + b"\n"
    before = b"".join(block % number for number in range(200))
    assert len(before) > 10_000_000
    config.write_bytes(before)
    assert install(user)
    assert user.undo()
    assert config.read_bytes() == before


@given(text=st.binary(max_size=400), line=st.just("Include /r/*.conf"))
def test_the_line_goes_in_and_comes_out_of_any_bytes(text: bytes, line: str) -> None:
    there = with_line(text, line)
    assert is_effective(decode(there), line)
    assert without_line(there, line) == text
    assert with_line(there, line) == there
    assert position(decode(there), line) == 1


@given(
    lines=st.lists(
        st.sampled_from(
            [
                b"Host a",
                b"  User b",
                b"Include /r/*.conf",
                b"\tInclude /r/*.conf ",
                b"# x",
                b"",
                b"\xff",
            ]
        ),
        max_size=8,
    ),
    newline=st.sampled_from([b"\n", b"\r\n"]),
    last=st.booleans(),
)
def test_of_our_line_there_is_only_ever_one(lines: list[bytes], newline: bytes, last: bool) -> None:
    text = newline.join(lines) + (newline if last else b"")
    there = with_line(text, "Include /r/*.conf")
    assert [one.strip() for one in there.split(b"\n")].count(b"Include /r/*.conf") == 1
    kept = b"".join(one for one in text.splitlines(True) if one.strip() != b"Include /r/*.conf")
    assert there.split(b"\n", 1)[1] == kept


def test_a_missing_config_and_folder_come_and_go(home: Path, paths: Paths) -> None:
    user = UserConfig(home / ".ssh" / "config", paths)
    assert install(user)
    assert (home / ".ssh").stat().st_mode & 0o777 == 0o700
    assert user.config.stat().st_mode & 0o777 == 0o600
    assert ssh_probe.settings(user.config, "gpu1")["hostname"] == "192.0.2.1"
    assert user.undo()
    assert not (home / ".ssh").exists()


def test_an_empty_config_stays_one(user: UserConfig, config: Path) -> None:
    config.touch(mode=0o644)
    assert install(user)
    assert ssh_probe.settings(config, "gpu1")["hostname"] == "192.0.2.1"
    assert user.undo()
    assert (config.read_bytes(), config.stat().st_mode & 0o777) == (b"", 0o644)


def test_what_was_edited_meanwhile_stays(user: UserConfig, config: Path) -> None:
    config.write_bytes(LIVED_IN)
    install(user)
    config.write_bytes(config.read_bytes() + b"\r\nHost new\r\n Port 9\r\n")
    assert user.undo()
    assert config.read_bytes() == LIVED_IN + b"\r\nHost new\r\n Port 9\r\n"


def test_a_line_that_was_moved_down_goes_back_to_the_top(user: UserConfig, config: Path) -> None:
    config.write_bytes(LIVED_IN)
    install(user)
    config.write_bytes(b"Host *\n  User before\n" + config.read_bytes())
    assert not user.state().effective
    assert install(user)
    assert config.read_bytes() == user.line.encode() + b"\nHost *\n  User before\n" + LIVED_IN
    assert user.undo()
    assert config.read_bytes() == b"Host *\n  User before\n" + LIVED_IN


def test_symlinks_are_followed_and_stay(user: UserConfig, config: Path, tmp_path: Path) -> None:
    dotfiles = tmp_path / "dotfiles"
    dotfiles.mkdir()
    (dotfiles / "real").write_bytes(LIVED_IN)
    (dotfiles / "hop").symlink_to("real")
    config.symlink_to(dotfiles / "hop")
    assert install(user)
    assert config.is_symlink()
    assert (dotfiles / "hop").is_symlink()
    assert (dotfiles / "real").read_bytes() == user.line.encode() + b"\r\n" + LIVED_IN
    assert user.undo()
    assert (dotfiles / "real").read_bytes() == LIVED_IN
    assert sorted(p.name for p in dotfiles.iterdir()) == ["hop", "real"]


def test_a_write_protected_config_is_left_alone(user: UserConfig, config: Path) -> None:
    config.symlink_to("/nix/store/0-home-manager/config")
    with pytest.raises(ReadOnlyConfigError) as caught:
        install(user)
    assert caught.value.fix is not None
    assert user.line in caught.value.fix
    assert user.file_for(Path("/a")).read_text() == HOSTS


def test_hosts_that_would_change_stop_everything(user: UserConfig, config: Path) -> None:
    config.write_bytes(LIVED_IN)
    user.write(Path("/a"), HOSTS + "Host *\n    Port 99\n")
    with pytest.raises(ConfigChangesError) as caught:
        user.install()
    assert caught.value.differences["old"] == ["-port 22", "+port 99"]
    assert set(ssh_probe.STRANGERS) <= set(caught.value.differences)
    assert tree(config.parent) == {"config": (config.stat().st_mode, LIVED_IN)}


def test_hosts_that_ssh_does_not_take_are_not_written(user: UserConfig) -> None:
    install(user)
    with pytest.raises(InventoryError) as caught:
        user.write(Path("/a"), HOSTS + "    NoSuchOption yes\n")
    assert "nosuchoption" in (caught.value.why or "").lower()
    assert user.file_for(Path("/a")).read_text() == HOSTS
    assert len(list(user.folder.iterdir())) == 1


def test_somebody_else_writes_at_the_same_moment(
    user: UserConfig, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_bytes(LIVED_IN)

    def meanwhile(*_: object) -> dict[str, list[str]]:
        config.write_bytes(b"Host theirs\n")
        return {}

    monkeypatch.setattr(ssh_probe, "compare", meanwhile)
    with pytest.raises(RoostError, match="changed by something else"):
        install(user)
    assert config.read_bytes() == b"Host theirs\n"


def test_two_writers_at_once(user: UserConfig, config: Path, paths: Paths) -> None:
    config.write_bytes(LIVED_IN)
    problems: list[BaseException] = []

    def one(number: int) -> None:
        try:
            mine = UserConfig(config, paths)
            mine.write(Path(f"/workspace-{number}"), f"Host box{number}\n    Port {number + 1}\n")
            mine.install()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert config.read_bytes() == user.line.encode() + b"\r\n" + LIVED_IN
    for number in range(6):
        assert ssh_probe.settings(config, f"box{number}")["port"] == str(number + 1)
    assert user.undo()
    assert config.read_bytes() == LIVED_IN


# --- a writer that dies, or has no room, at every change that it makes -------------------------


@pytest.mark.parametrize("action", ["install", "undo"])
@pytest.mark.parametrize("has_config", ["yes", "no"])
@pytest.mark.parametrize("mode", ["before", "half", "after", "full"])
def test_a_writer_that_is_stopped_anywhere_loses_nothing(
    mode: str, has_config: str, action: str, tmp_path: Path
) -> None:
    argv = [sys.executable, HERE / "faults.py", "every", mode, has_config, action, tmp_path]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 8, "too few changes were counted: is the list in faults.py whole?"


# Every system call of Linux by which a process changes a file system, and the one that may.
SYSTEM_CALLS = (
    "write,pwrite64,writev,fsync,fdatasync,ftruncate,truncate,rename,renameat,renameat2,unlink,"
    "unlinkat,link,linkat,symlink,symlinkat,mkdir,mkdirat,rmdir,chmod,fchmod,fchmodat,chown,fchown,"
    "fchownat,lchown,setxattr,fsetxattr,lsetxattr,removexattr,fremovexattr,utimensat,creat,"
    "copy_file_range,sendfile,fallocate,openat"
)


def traced(expression: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``faults.py`` under strace; its report is the standard error."""
    argv = ["strace", "--quiet=all", "-e", expression, sys.executable, HERE / "faults.py", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def system_calls(report: str) -> list[tuple[str, int]]:
    """The calls that changed something: their names, and which of that name it was."""
    found: list[tuple[str, int]] = []
    counted: dict[str, int] = {}
    for name, rest in re.findall(r"^(\w+)\((.*)", report, re.M):
        counted[name] = counted.get(name, 0) + 1
        if name != "openat" or re.search("O_CREAT|O_WRONLY|O_RDWR", rest):
            found.append((name, counted[name]))
    return found


@pytest.mark.parametrize("action", ["install", "undo"])
def test_a_writer_that_is_killed_at_every_system_call_loses_nothing(
    action: str, tmp_path: Path
) -> None:
    """Killed by the kernel's tracer, whatever Python calls: nothing depends on a list of ours."""

    def begin(name: str) -> tuple[Path, Path]:
        config, state = fresh(tmp_path / name, LIVED_IN)
        if action == "undo":
            child("none", 0, config, state, "install")
        return config, state

    config, state = begin("once")
    calls = system_calls(traced(f"trace={SYSTEM_CALLS}", "once", config, state, action).stderr)
    assert ("fsync", 1) in calls
    assert len(calls) > 8
    for name, number in calls:
        config, state = begin(f"{name}-{number}")
        complete = with_line(LIVED_IN, user_config(config, state).line)
        kill = f"inject={name}:signal=KILL:when={number}"
        done = traced(kill, "once", config, state, action)
        assert done.returncode == -signal.SIGKILL, (name, number, done.stderr)
        assert contents(config) in (LIVED_IN, complete), (name, number)
        child("none", 0, config, state, action)
        assert contents(config) == (complete if action == "install" else LIVED_IN), (name, number)
        assert [p.name for p in config.parent.iterdir()] == ["config"], (name, number)


def in_own_mounts(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script whose mounts nobody else sees, and which end with it."""
    sudo = [] if os.getuid() == 0 else ["sudo", "-n"]
    return subprocess.run(
        [*sudo, "unshare", "--mount", "--propagation", "private", "sh", "-euc", script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    faults = f"{sys.executable} {HERE / 'faults.py'} once {tmp_path}/disk/config"
    done = in_own_mounts(
        f"""
        mkdir {tmp_path}/disk {tmp_path}/roost
        mount -t tmpfs -o size=32k none {tmp_path}/disk
        printf 'Host mine\\n  Port 7\\n' >{tmp_path}/disk/config
        cp {tmp_path}/disk/config {tmp_path}/before
        dd if=/dev/zero of={tmp_path}/disk/filler bs=1k 2>/dev/null || true
        {faults} {tmp_path}/roost install
        cmp {tmp_path}/disk/config {tmp_path}/before
        ls -A {tmp_path}/disk
        rm {tmp_path}/disk/filler
        {faults} {tmp_path}/roost install
        head -n 1 {tmp_path}/disk/config
        {faults} {tmp_path}/roost undo
        cmp {tmp_path}/disk/config {tmp_path}/before
        """
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "No space left on device" in lines[0]
    assert lines[1:3] == ["config", "filler"]
    assert any(line.startswith("Include ") for line in lines)


def test_a_read_only_home(tmp_path: Path) -> None:
    faults = f"{sys.executable} {HERE / 'faults.py'} once {tmp_path}/ssh/config"
    done = in_own_mounts(
        f"""
        mkdir {tmp_path}/ssh {tmp_path}/roost
        printf 'Host mine\\n' >{tmp_path}/ssh/config
        mount --bind {tmp_path}/ssh {tmp_path}/ssh
        mount -o remount,ro,bind {tmp_path}/ssh
        {faults} {tmp_path}/roost install
        ls -A {tmp_path}/ssh; cat {tmp_path}/roost/config/ssh/*.conf
        """
    )
    assert done.returncode == 0, done.stderr
    assert "is not ours to write" in done.stdout
    assert "HostName 192.0.2.1" in done.stdout
    assert (tmp_path / "ssh" / "config").read_text() == "Host mine\n"
