"""Files to and from a real box: rsync, scp where there is none, and an rsync that knows less."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli import ROOST, roost, root
from workplace import as_root, as_user, equip, home, login_shell, terminal, until

from boxes import LiveBox, private_network

pytestmark = pytest.mark.box

NAMES = ["plain", "a b", "ü ∑", "it's", 'say "hi"', "-dash", "$HOME", "a*b?[c]", "back\\slash",
         "semi;colon", "co:lon", "new\nline", "#hash", "~tilde"]  # fmt: skip


@pytest.fixture
def bench(shared_box: Callable[..., LiveBox]) -> LiveBox:
    box = shared_box("jobs", prepare=equip)
    as_user(box, "rm -rf ~/in ~/'my data'")
    return box


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    for name in NAMES:
        (top / "dir " / name).mkdir(parents=True)
        (top / "dir " / name / name).write_text(name, "utf-8")
    (top / "run").write_text("#!/bin/sh\n", "utf-8")
    (top / "run").chmod(0o755)
    (top / "link").symlink_to("run")
    return top


def contents(folder: Path) -> dict[str, str]:
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = f"{stat.S_IMODE(path.stat().st_mode):o} {path.read_text('utf-8')}"
    return found


def files_on(box: LiveBox, folder: str) -> set[str]:
    listed = as_user(box, f"cd '{folder}' && find . -type f -printf '%P\\0'").stdout
    return set(listed.split("\0")) - {""}


@pytest.mark.parametrize("shell", ["/bin/bash", "/usr/bin/fish"])
def test_names_of_every_kind_there_and_back(
    bench: LiveBox, tree: Path, tmp_path: Path, shell: str
) -> None:
    login_shell(bench, shell)
    try:
        there = roost(bench, "push", "box", f"{tree}/", "~/my data/in here/")
        assert (there.returncode, there.stdout) == (0, ""), there.stderr
        assert files_on(bench, "my data/in here") == {
            *(f"dir /{name}/{name}" for name in NAMES),
            "run",
        }
        back = roost(bench, "pull", "box", "my data/in here/", f"{tmp_path}/back")
        assert back.returncode == 0, back.stderr
        assert contents(tmp_path / "back") == contents(tree)
    finally:
        login_shell(bench, "/bin/bash")


def test_relative_names_that_look_like_something_else(
    bench: LiveBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-n", "box:file", "a b"):
        Path(name).write_text(name, "utf-8")
    done = roost(bench, "push", "box", "--", "-n", "box:file", "a b", "in/")
    assert done.returncode == 2
    done = roost(bench, "push", "box", "./-n", "box:file", "a b", "in/")
    assert done.returncode == 0, done.stderr
    assert files_on(bench, "in") == {"-n", "box:file", "a b"}
    done = roost(bench, "pull", "box", "in/*f*", "in/a b", "back/")
    assert done.returncode == 0, done.stderr
    assert set(contents(tmp_path / "back")) == {"box:file", "a b"}


def test_delete_shows_what_would_go_and_asks(bench: LiveBox, tree: Path, tmp_path: Path) -> None:
    roost(bench, "push", "box", f"{tree}/", "in/")
    (tree / "run").unlink()
    (tree / "new").write_text("new", "utf-8")
    words = ["sync", "--delete", "box", str(tree), "in"]
    dry = roost(bench, *words, "-n")
    assert dry.stdout.splitlines() == ["delete run", "copy new"], dry.stderr
    refused = roost(bench, *words)
    assert refused.returncode == 2
    assert "delete run" in refused.stderr and "nobody is here to ask" in refused.stderr
    assert {"run"} <= files_on(bench, "in") and "new" not in files_on(bench, "in")
    for answer, code, left in (("n", 1, True), ("y", 0, False)):
        with terminal(tmp_path, "-w", root(bench), *words) as screen:
            screen.shows("Delete 1 files? [y/N]")
            screen.type(answer, "Enter")
            screen.shows(f"exit {code}")
        assert ("run" in files_on(bench, "in")) is left
    assert "new" in files_on(bench, "in")
    (tree / "new").unlink()
    assert roost(bench, *words, "-y").returncode == 0
    assert "new" not in files_on(bench, "in")


def test_ignore_existing_exclude_and_what_git_ignores(bench: LiveBox, tmp_path: Path) -> None:
    top = tmp_path / "project"
    (top / "sub").mkdir(parents=True)
    rules = {".gitignore": "*.log\n!keep.log\n/build/\n", "sub/.gitignore": "secret*\n"}
    files = ["a.py", "a.log", "keep.log", "build/x", "sub/secret [1]", "sub/b.py", "sub/build/y"]
    for name in files:
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_text("1", "utf-8")
    for name, text in rules.items():
        (top / name).write_text(text, "utf-8")
    subprocess.run(["git", "init", "-q", top], check=True)
    done = roost(bench, "push", "--gitignore", "--exclude", ".git", "box", str(top), "in/")
    assert done.returncode == 0, done.stderr
    wanted = {"a.py", "keep.log", "sub/b.py", "sub/build/y", *rules}
    assert files_on(bench, "in/project") == wanted
    (top / "a.py").write_text("22", "utf-8")
    roost(bench, "push", "--ignore-existing", "box", f"{top}/a.py", "in/project/")
    assert as_user(bench, "cat ~/in/project/a.py").stdout == "1"
    roost(bench, "push", "box", f"{top}/a.py", "in/project/")
    assert as_user(bench, "cat ~/in/project/a.py").stdout == "22"


def test_watch_pushes_each_change_and_outlives_a_lost_box(bench: LiveBox, tree: Path) -> None:
    words = [str(ROOST), "-w", str(root(bench)), "sync", "--watch", "box", str(tree), "in"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as child:
        try:
            until(lambda: "run" in as_user(bench, "ls ~/in || true").stdout, "the first push")
            (tree / "later").write_text("later", "utf-8")
            until(lambda: "later" in as_user(bench, "ls ~/in").stdout, "the change has arrived")
            as_root(bench, "systemctl", "stop", "ssh")
            as_root(bench, "pkill", "-9", "-f", r"^sshd.*: \w+[ @]", check=False)
            (tree / "offline").write_text("offline", "utf-8")
            assert child.stderr
            for line in child.stderr:
                if "trying again" in line:
                    break
            as_root(bench, "systemctl", "start", "ssh")
            until(lambda: "offline" in as_user(bench, "ls ~/in").stdout, "it has caught up")
            # A laptop that sleeps: all of it stands still, and the connection is gone at the end.
            child.send_signal(signal.SIGSTOP)
            as_root(bench, "pkill", "-9", "-f", r"^sshd.*: \w+[ @]", check=False)
            (tree / "asleep").write_text("asleep", "utf-8")
            child.send_signal(signal.SIGCONT)
            until(lambda: "asleep" in as_user(bench, "ls ~/in").stdout, "it has woken up")
        finally:
            as_root(bench, "systemctl", "start", "ssh")
            child.terminate()


def test_a_file_of_which_half_has_arrived_is_not_sent_again(bench: LiveBox, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(30_000_000))
    half = big.read_bytes()[:29_000_000]
    as_user(bench, "mkdir -p ~/in/.rsync-partial")
    # What an interrupted transfer leaves behind.
    folder = f"{home(bench)}/in/.rsync-partial"
    (tmp_path / "half").write_bytes(half)
    container = bench.now.container
    bench.sandbox.engine("cp", f"{tmp_path}/half", f"{container}:{folder}/big")
    as_root(bench, "chown", "-R", bench.now.user, folder)
    before = received(bench)
    assert roost(bench, "push", "box", str(big), "in/").returncode == 0
    assert received(bench) - before < 5_000_000
    sums = as_user(bench, "sha256sum < ~/in/big; ls -A ~/in").stdout.split()
    import hashlib

    assert sums[0] == hashlib.sha256(big.read_bytes()).hexdigest()
    assert ".rsync-partial" not in sums


def received(box: LiveBox) -> int:
    lines = as_root(box, "cat", "/proc/net/dev").stdout.splitlines()
    return next(int(s.split()[1]) for s in lines if s.strip().startswith("eth0:"))


@contextmanager
def without_rsync(box: LiveBox) -> Iterator[None]:
    as_root(box, "mv", "/usr/bin/rsync", "/usr/bin/rsync.away")
    try:
        yield
    finally:
        as_root(box, "mv", "/usr/bin/rsync.away", "/usr/bin/rsync")


def test_without_rsync_there_scp_copies_and_says_so(
    bench: LiveBox, tree: Path, tmp_path: Path
) -> None:
    with without_rsync(bench):
        done = roost(bench, "push", "box", f"{tree}/dir ", "my data/")
        assert done.returncode == 0, done.stderr
        assert "no rsync on box or here: copying by scp" in done.stderr
        assert files_on(bench, "my data/dir ") == {f"{name}/{name}" for name in NAMES}
        (tmp_path / "back").mkdir()
        back = roost(bench, "pull", "box", "my data/dir ", f"{tmp_path}/back")
        assert back.returncode == 0, back.stderr
        assert set(contents(tmp_path / "back" / "dir ")) == {f"{n}/{n}" for n in NAMES}
        refused = roost(bench, "push", "--ignore-existing", "box", f"{tree}/run", "in")
        assert refused.returncode == 2
        assert "sudo apt-get install rsync" in refused.stderr


def test_an_rsync_that_knows_less(
    bench: LiveBox, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for openrsync: it refuses the options that openrsync does not have."""
    fake = tmp_path / "bin" / "rsync"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\n"
        'case "$1" in --version) echo "openrsync: protocol version 29"; exit;; esac\n'
        'for w; do case "$w" in -s|-8|--info*|--no-inc*|--mkpath) exit 99;; esac; done\n'
        'exec /usr/bin/rsync --old-args --protocol=29 "$@"\n',
        "utf-8",
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    done = roost(bench, "push", "box", f"{tree}/dir ", "my data/")
    assert done.returncode == 0, done.stderr
    assert files_on(bench, "my data/dir ") == {f"{name}/{name}" for name in NAMES}
    back = roost(bench, "pull", "box", "my data/dir ", f"{tmp_path}/back/")
    assert back.returncode == 0, back.stderr
    assert set(contents(tmp_path / "back" / "dir ")) == {f"{n}/{n}" for n in NAMES}


def test_through_a_gateway(
    sandbox_factory: Callable[..., dict[str, LiveBox]], tree: Path, tmp_path: Path
) -> None:
    gate = sandbox_factory("gate")["gate"]
    inner = private_network(gate, internet=True)
    equip(inner)
    assert roost(gate, "push", "inner", f"{tree}/", "in/").returncode == 0
    assert "run" in files_on(inner, "in")
    back = roost(gate, "pull", "inner", "in/", f"{tmp_path}/back/")
    assert back.returncode == 0, back.stderr
    assert contents(tmp_path / "back") == contents(tree)
    with without_rsync(inner):
        done = roost(gate, "push", "inner", f"{tree}/dir ", "plainly/")
        assert done.returncode == 0, done.stderr
        assert files_on(inner, "plainly/dir ") == {f"{name}/{name}" for name in NAMES}


def test_errors_in_words(bench: LiveBox, tmp_path: Path) -> None:
    cases = {
        ("push", "box", "/no/such", "x"): (2, "there is no /no/such here"),
        ("sync", "box", "/etc/passwd", "x"): (2, "is no folder here"),
        ("push", "nobox", "/etc/passwd", "x"): (2, "no box or group is called 'nobox'"),
        ("pull", "box", "no such", str(tmp_path)): (1, "No such file or directory"),
        ("push", "box", "/etc/passwd", "/root/x"): (1, "Permission denied"),
    }
    for words, (code, text) in cases.items():
        done = roost(bench, *words)
        assert (done.returncode, done.stdout) == (code, ""), words
        assert text in done.stderr and "Traceback" not in done.stderr, done.stderr
