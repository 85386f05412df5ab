"""Background jobs on a real box: real ssh, real tmux, every login shell that people use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from cli import ROOST, roost, root
from workplace import (
    Terminal,
    as_root,
    as_user,
    equip,
    home,
    login_shell,
    output_of,
    runner_of,
    sha256,
    terminal,
    until,
    way,
    with_all_rights,
)

from boxes import LiveBox
from roost import jobs, ssh
from roost.job_model import Keep

pytestmark = pytest.mark.box

NASTY = [
    "a b", "", " ", "$HOME", "`id`", "$(id)", "*", "?", "'", '"', "\\", "\\n", "new\nline", "tab\t",
    "!x", "é ∑ ✓", "-n", "--", "a;b", "a&b|c", "~", "{a,b}", "(x)", "#no", "%self", "^caret",
    "=zsh", "ends with \\", "<in >out", "\x07bell", "\udcff",
]  # fmt: skip


@pytest.fixture(scope="module")
def bench(shared_box: Callable[..., LiveBox]) -> LiveBox:
    return shared_box("jobs", prepare=equip)


def listed(box: LiveBox, name: str) -> dict[str, object]:
    every = json.loads(roost(box, "jobs", "--json").stdout)
    return next(job for job in every if job["name"] == name)


@pytest.mark.parametrize("shell", ["/bin/bash", "/usr/bin/zsh", "/usr/bin/fish", "/bin/dash"])
def test_arguments_arrive_as_they_are_under_any_login_shell(bench: LiveBox, shell: str) -> None:
    login_shell(bench, shell)
    try:
        script = "import sys, json; print(json.dumps(sys.argv[1:]))"
        words = ["python3", "-c", script, *NASTY]
        done = roost(bench, "run", "box", "-n", "args", "--env", "K=a 'b' $c", "--", *words)
        assert done.stdout == "args\n", done.stderr
        assert roost(bench, "wait", "box", "args").returncode == 0
        assert json.loads(roost(bench, "logs", "box", "args").stdout) == NASTY
        assert listed(bench, "args")["argv"] == [*words[:-1], "\ufffd"]
        env = ["run", "box", "-n", "env", "--env", "K=a 'b' $c", "--", "printenv", "K", "SHELL"]
        roost(bench, *env)
        roost(bench, "wait", "box", "env")
        assert roost(bench, "logs", "box", "env").stdout == f"a 'b' $c\n{shell}\n"
    finally:
        login_shell(bench, "/bin/bash")


def test_a_job_keeps_its_command_its_times_its_code_and_what_it_used(bench: LiveBox) -> None:
    as_user(bench, "mkdir -p ~/'my data'")
    spend = "import time; x = [0] * 5_000_000\nwhile time.process_time() < 0.3: pass\nexit(7)"
    roost(bench, "run", "box", "-n", "kept", "--dir", "my data", "--", "python3", "-c", spend)
    waited = roost(bench, "wait", "box", "kept")
    assert waited.returncode == 7
    assert waited.stderr == "kept failed (7)\n"
    job = listed(bench, "kept")
    assert job["dir"] == f"{home(bench)}/my data"
    assert (job["state"], job["code"], job["signal"]) == ("failed", 7, None)
    start, end = float(str(job["start"])), float(str(job["end"]))
    assert float(str(job["created"])) <= start <= end <= time.time() + 60
    assert float(str(job["cpu_user"])) + float(str(job["cpu_system"])) >= 0.3
    assert int(str(job["max_rss_kib"])) > 40_000


def test_the_log_holds_every_byte_of_binary_output(bench: LiveBox) -> None:
    # Without chance sequences that ask the terminal something: it answers, and the answer is
    # echoed into the log, as anything is that is typed there.
    make = r"head -c 3000000 /dev/urandom | tr '\033' ."
    as_user(bench, make + r" > ~/blob; printf '\033[1mx\r\ny\033[0m\r' >> ~/blob")
    blob = as_user(bench, "sha256sum < ~/blob").stdout.split()[0]
    roost(bench, "run", "box", "-n", "blob", "--", "cat", "blob")
    assert roost(bench, "wait", "box", "blob").returncode == 0
    assert sha256(output_of(bench, "logs", "--raw", "box", "blob")) == blob
    assert roost(bench, "logs", "box", "blob").returncode == 0


def test_a_hundred_megabytes(bench: LiveBox) -> None:
    script = "i=0; while [ $i -lt 50 ]; do seq -f '%099.0f' 20000; i=$((i + 1)); done; echo last"
    roost(bench, "run", "box", "-n", "much", "--", "sh", "-c", script)
    assert roost(bench, "wait", "box", "much").returncode == 0
    whole = output_of(bench, "logs", "--raw", "box", "much")
    block = b"".join(b"%099d\n" % n for n in range(1, 20001))
    assert sha256(whole) == sha256(block * 50 + b"last\n")
    assert roost(bench, "logs", "--tail", "2", "box", "much").stdout == f"{20000:099d}\nlast\n"


def test_progress_bars_are_shown_as_a_terminal_shows_them(bench: LiveBox) -> None:
    draw = (
        "printf 'begin\\n'; for p in 10 50 100; do printf '\\r%3d%%|' $p; done; printf '\\nend\\n'"
    )
    roost(bench, "run", "box", "-n", "bar", "--", "sh", "-c", draw)
    roost(bench, "wait", "box", "bar")
    assert roost(bench, "logs", "box", "bar").stdout == "begin\n100%|\nend\n"
    raw = b"begin\n\r 10%|\r 50%|\r100%|\nend\n"
    assert output_of(bench, "logs", "--raw", "box", "bar") == raw


def test_a_command_that_is_not_there_says_so_at_once(bench: LiveBox) -> None:
    done = roost(bench, "run", "box", "--", "no-such-program", "x")
    assert done.returncode == 1
    assert "no-such-program: command not found" in done.stderr
    assert listed(bench, "no-such-program")["code"] == 127


def test_what_cannot_be_is_refused_in_words(bench: LiveBox) -> None:
    cases = {
        ("run", "box", "-n", "a b", "--", "true"): (2, "'a b' cannot be the name of a job"),
        ("run", "box", "-n", "a.b", "--", "true"): (2, "'a.b' cannot be the name of a job"),
        ("run", "box", "--"): (2, "there is no command to run"),
        ("run", "box", "python", "x.py"): (2, "after --: roost run ... -- python ..."),
        ("run", "box", "--dir", "nowhere", "--", "true"): (1, "there is no folder"),
        ("run", "box", "--venv", "none", "--", "true"): (1, "no virtual environment none"),
        ("run", "box", "--env", "=x", "--", "true"): (2, "no variable is named"),
        ("run", "nobox", "--", "true"): (2, "no box or group is called 'nobox'"),
        ("logs", "box", "nojob"): (1, "no job is called nojob"),
        ("wait", "box", "nojob"): (1, "no job is called nojob"),
        ("stop", "box", "nojob"): (1, "no job is called nojob"),
        ("jobs", "box", "--", "x"): (2, "takes nothing after --"),
        ("shell", "box", "a:b"): (2, "'a:b' cannot be the name of a session"),
        ("logs", "box", "args", "--since", "soon"): (2, "'soon' is no time"),
    }
    for words, (code, text) in cases.items():
        done = roost(bench, *words)
        assert (done.returncode, done.stdout) == (code, ""), words
        assert text in done.stderr, words


def test_a_name_is_one_job_at_a_time_and_earlier_runs_are_kept(bench: LiveBox) -> None:
    for text in ("first", "second"):
        roost(bench, "run", "box", "-n", "twice", "--", "sh", "-c", f"echo {text}; read stop")
        refused = roost(bench, "run", "box", "-n", "twice", "--", "true")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "a job called twice has not ended yet" in refused.stderr
        roost(bench, "stop", "box", "twice")
    assert roost(bench, "logs", "box", "twice").stdout == "second\n"
    assert roost(bench, "logs", "box", "twice.1").stdout == "first\n"
    assert roost(bench, "jobs", "box").stdout.count("twice") == 1
    assert "twice.1" in roost(bench, "jobs", "--all", "box").stdout
    names = [roost(bench, "run", "box", "--", "sleep", "99").stdout.strip() for _ in range(2)]
    assert names == ["sleep", "sleep-2"]
    for name in names:
        roost(bench, "stop", "box", name)


def test_a_virtual_environment_and_the_login_environment(bench: LiveBox) -> None:
    as_user(bench, "mkdir -p ~/.venvs/lab/bin && ln -sf /usr/bin/python3 ~/.venvs/lab/bin/python")
    as_user(bench, "echo 'export FROM_PROFILE=yes; echo noise' >> ~/.profile")
    as_user(bench, "cp ~/.bashrc ~/kept && sed -i '1i echo noise on every ssh' ~/.bashrc")
    script = "echo $VIRTUAL_ENV $FROM_PROFILE $ROOST_JOB; command -v python"
    done = roost(bench, "run", "box", "-n", "lab", "--venv", "lab", "--", "sh", "-c", script)
    push = roost(bench, "push", "box", "/etc/hostname", "x")
    as_user(bench, "mv ~/kept ~/.bashrc")
    assert "prints something even when no one logs in" in push.stderr
    assert done.stdout == "lab\n", done.stderr
    roost(bench, "wait", "box", "lab")
    venv = f"{home(bench)}/.venvs/lab"
    job = listed(bench, "lab")["id"]
    assert roost(bench, "logs", "box", "lab").stdout == f"{venv} yes {job}\n{venv}/bin/python\n"


def test_what_a_job_leaves_running_goes_on_and_is_named(bench: LiveBox) -> None:
    script = "(read x < ~/go; echo late) & (setsid sleep 500) & echo main; exit 5"
    as_user(bench, "mkfifo ~/go")
    roost(bench, "run", "box", "-n", "parent", "--", "sh", "-c", script)
    assert roost(bench, "wait", "box", "parent").returncode == 5
    assert "failed (5), 2 left running" in roost(bench, "jobs", "box").stdout
    as_user(bench, "echo > ~/go")
    remote = way(bench)
    until(lambda: "late" in jobs.log(remote, "parent"), "the late line is in the log")
    assert "sleep 500" in as_root(bench, "ps", "-eo", "args").stdout
    stopped = roost(bench, "stop", "box", "parent")
    assert stopped.returncode == 0, stopped.stderr
    assert "sleep 500" not in as_root(bench, "ps", "-eo", "args").stdout
    job = listed(bench, "parent")
    assert (job["state"], job["code"], job["left"]) == ("failed", 5, 0)


def test_stop_asks_first_and_kills_what_does_not_listen(bench: LiveBox) -> None:
    asked = "trap 'echo asked; exit 3' TERM; echo ready; while :; do read x; done"
    deaf = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 501' & echo ready; wait; sleep 502"
    remote = way(bench)
    for name, script in (("asked", asked), ("deaf", deaf)):
        roost(bench, "run", "box", "-n", name, "--", "sh", "-c", script)
        until(lambda n=name: "ready" in jobs.log(remote, n), "it is ready")
    assert roost(bench, "stop", "box", "asked").returncode == 0
    assert jobs.log(remote, "asked") == "ready\nasked\n"
    assert (jobs.state(remote, "asked").state, jobs.state(remote, "asked").code) == ("stopped", 3)
    assert roost(bench, "stop", "--grace", "0.3", "box", "deaf").returncode == 0
    assert jobs.state(remote, "deaf").signal == "SIGKILL"
    assert " 50" not in as_root(bench, "sh", "-c", "ps -eo args | grep '^sleep' || :").stdout
    again = roost(bench, "stop", "box", "deaf")
    assert (again.returncode, again.stderr) == (0, "deaf had ended already: stopped\n")


def test_a_job_that_is_killed_and_one_whose_session_is_ended(bench: LiveBox) -> None:
    remote = way(bench)
    roost(bench, "run", "box", "-n", "killed", "--", "sh", "-c", "kill -9 $$")
    waited = roost(bench, "wait", "box", "killed")
    assert (waited.returncode, waited.stderr) == (137, "killed failed (SIGKILL)\n")
    roost(bench, "run", "box", "-n", "ended", "--", "sleep", "503")
    as_user(bench, "tmux kill-session -t job-ended")
    until(lambda: jobs.state(remote, "ended").over, "it is over")
    assert "lost, its tmux session was ended" in roost(bench, "jobs", "box").stdout
    roost(bench, "run", "box", "-n", "orphan", "--", "sleep", "504")
    as_user(bench, f"kill -9 {runner_of(bench, 'orphan.1')}")
    until(lambda: jobs.state(remote, "orphan").over, "it is over")
    lost = listed(bench, "orphan")
    assert (lost["state"], lost["reason"]) == ("lost", "the process that kept its log was killed")


def test_attach_types_into_the_job_and_ctrl_c_leaves_it(bench: LiveBox, tmp_path: Path) -> None:
    script = 'while read line; do echo "got $line"; done'
    roost(bench, "run", "box", "-n", "talk", "--", "sh", "-c", script)
    for keys in (["hello", "Enter"], ["again", "Enter"]):
        with terminal(tmp_path, "-w", root(bench), "attach", "box", "talk") as screen:
            screen.shows("Ctrl-C leaves")
            screen.type(*keys)
            screen.shows(f"got {keys[0]}")
            # The second time in one bunch with other keys, as a slow line delivers them.
            screen.type(*(["all", "at", "once"] if keys[0] == "again" else []), "C-c")
            assert "talk goes on" in screen.shows("exit 0")
    assert listed(bench, "talk")["state"] == "running"
    roost(bench, "stop", "box", "talk")
    with terminal(tmp_path, "-w", root(bench), "attach", "box", "talk") as screen:
        assert "talk has ended: stopped" in screen.shows("exit 1")


def test_a_shell_is_made_or_attached_and_several_are_listed(bench: LiveBox, tmp_path: Path) -> None:
    def shell(*words: str) -> AbstractContextManager[Terminal]:
        return terminal(tmp_path, "-w", root(bench), "shell", "box", *words)

    as_user(bench, "tmux kill-server; rm -f ~/.local/state/roost/sessions.json", check=False)
    for text in ("main: a new session", "main: attached"):
        with shell() as screen:
            screen.shows("[main]")
            screen.type("echo $((40 + 2))", "Enter")
            screen.shows("\n42\n")
            screen.type("C-b", "d")
            assert text in screen.shows("exit 0")
    with shell("my desk") as screen:
        screen.shows("[my desk]")
        as_root(bench, "pkill", "-9", "-f", "^sshd.*: .*@pts")
        shown = screen.shows("exit 255")
        assert "[my desk]" not in shown, "tmux's screen is left behind"
        assert "the session goes on there" in shown
        assert "roost shell box 'my desk'" in shown
        modes = "#{mouse_any_flag}#{keypad_cursor_flag}#{keypad_flag}#{cursor_flag}#{alternate_on}"
        assert screen.asked(modes) == "00010"
    several = roost(bench, "shell", "box")
    assert several.returncode == 2
    assert "there are several sessions" in several.stderr
    assert [line.split()[0] for line in several.stdout.splitlines()] == ["SESSION", "main", "my"]
    listing = json.loads(roost(bench, "shell", "--list", "--json", "box").stdout)
    assert [(s["name"], s["attached"]) for s in listing] == [("main", 0), ("my desk", 0)]
    as_user(bench, "tmux kill-server")


def test_ctrl_c_leaves_a_log_and_a_wait_and_the_job_goes_on(bench: LiveBox) -> None:
    roost(bench, "run", "box", "-n", "going", "--", "sh", "-c", "echo line; sleep 505")
    for words in (("logs", "-f", "box", "going"), ("wait", "box", "going")):
        # A test run in the background of a shell has SIGINT ignored, and passes that on.
        argv = ["env", "--default-signal=INT", str(ROOST), "-w", str(root(bench)), *words]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            if words[0] == "logs":
                assert child.stdout and child.stdout.readline() == b"line\n"
            else:
                tasks = Path(f"/proc/{child.pid}/task/{child.pid}/children")
                until(lambda t=tasks: t.read_text().strip(), "ssh runs")
            child.send_signal(signal.SIGINT)
            said = child.communicate(timeout=30)[1].decode()
        assert child.returncode == 130
        assert "Traceback" not in said
    assert listed(bench, "going")["state"] == "running"
    roost(bench, "stop", "box", "going")


def test_a_log_since_a_time(bench: LiveBox) -> None:
    as_user(bench, "rm -f ~/tick; mkfifo ~/tick")
    script = "echo old; read x < ~/tick; echo new; echo newer"
    roost(bench, "run", "box", "-n", "since", "--", "sh", "-c", script)
    remote = way(bench)
    began = until(lambda: jobs.state(remote, "since").start, "it has started")
    until(lambda: time.time() > began + 3, "some time has passed")
    as_user(bench, "echo > ~/tick")
    roost(bench, "wait", "box", "since")
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(began + 2))
    assert roost(bench, "logs", "--since", at, "box", "since").stdout == "new\nnewer\n"
    assert roost(bench, "logs", "--since", "1h", "box", "since").stdout == "old\nnew\nnewer\n"
    later = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 3600))
    assert roost(bench, "logs", "--since", later, "box", "since").stdout == ""


def test_a_queue_runs_one_after_another_or_several_at_a_time(bench: LiveBox) -> None:
    remote = way(bench)
    as_user(bench, "rm -f ~/gate; mkfifo ~/gate")
    jobs.start(remote, ["sh", "-c", "read x < ~/gate"], name="first", queue=1)
    until(lambda: jobs.state(remote, "first").state == "running", "it is its turn")
    second = jobs.start(remote, ["sh", "-c", "sleep 506"], name="second", queue=0)
    third = jobs.start(remote, ["true"], name="third", queue=0)
    assert (second.state, third.state) == ("queued", "queued")
    assert "third.1" in as_user(bench, "TS_SOCKET=~/.local/state/roost/queue tsp").stdout
    assert jobs.stop(remote, "second").state == "stopped"
    as_user(bench, "echo > ~/gate")
    assert jobs.wait(remote, "third").code == 0
    assert jobs.state(remote, "first").end <= jobs.state(remote, "third").start  # type: ignore[operator]
    for name in ("pair1", "pair2"):
        jobs.start(remote, ["sleep", "507"], name=name, queue=2)
        until(lambda n=name: jobs.state(remote, n).state == "running", "it is its turn")
    assert jobs.start(remote, ["true"], name="behind", queue=0).state == "queued"
    # One that dies without a word gives its place up, too.
    as_user(bench, f"kill -9 {runner_of(bench, 'pair1.1')}")
    assert jobs.wait(remote, "behind").code == 0
    jobs.stop(remote, "pair2")
    jobs.start(remote, ["true"], name="reset", queue=1)


def test_old_jobs_are_pruned_by_age_and_by_size(bench: LiveBox) -> None:
    remote = way(bench)
    jobs.prune(remote, Keep(days=0))
    for name in ("aged", "big", "small", "busy"):
        script = {"big": "head -c 300000 /dev/zero", "busy": "sleep 508"}.get(name, "echo x")
        jobs.start(remote, ["sh", "-c", script], name=name)
        if name != "busy":
            jobs.wait(remote, name)
    edit = "import json, sys; p = sys.argv[1]; s = json.load(open(p)); s['end'] -= 40 * 86400"
    edit += "; json.dump(s, open(p, 'w'))"
    folder = f"{home(bench)}/.local/state/roost/jobs"
    as_root(bench, "python3", "-c", edit, f"{folder}/aged.1/state.json")
    assert jobs.prune(remote, Keep(days=30)) == ["aged.1"]
    others = sum(j.log_size for j in jobs.listing(remote, every_run=True)) - 300000
    gone = jobs.prune(remote, Keep(size=others + 10))
    assert "big.1" in gone
    left = {job.name for job in jobs.listing(remote)}
    assert "busy" in left and "big" not in left
    assert set(jobs.prune(remote, Keep(days=0))) >= {"small.1"}
    left = jobs.listing(remote, every_run=True)
    assert "busy" in {job.name for job in left}
    assert all(job.left or not job.over for job in left)
    jobs.stop(remote, "busy")


def test_two_hundred_jobs(bench: LiveBox) -> None:
    remote = way(bench)
    script = "echo $1; [ $1 -ne 77 ] || exit 9"

    def start(number: int) -> None:
        jobs.start(remote, ["sh", "-c", script, "sh", str(number)], name=f"n{number}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(start, range(200)))
    until(lambda: all(job.over for job in jobs.listing(remote)), "all have ended", seconds=120)
    codes = {job.name: job.code for job in jobs.listing(remote) if job.name.startswith("n")}
    assert codes == {f"n{n}": 9 if n == 77 else 0 for n in range(200)}
    for number in (0, 77, 199):
        assert jobs.log(remote, f"n{number}") == f"{number}\n"


def test_a_full_disk_holds_a_job_up_and_loses_nothing(bench: LiveBox) -> None:
    remote = way(bench)
    folder = f"{home(bench)}/.local/state/roost/jobs"
    owner = "uid=1000,gid=1000,mode=0700"
    with_all_rights(bench, "mount", "-t", "tmpfs", "-o", f"size=1M,{owner}", "tmpfs", folder)
    try:
        jobs.start(remote, ["seq", "300000"], name="disk")
        full = ["sh", "-c", f"df --output=avail {folder} | tail -1"]
        until(lambda: as_root(bench, *full).stdout.strip() == "0", "the disk is full")
        assert jobs.state(remote, "disk").state == "running"
        with_all_rights(bench, "mount", "-o", "remount,size=50M", folder)
        assert jobs.wait(remote, "disk").code == 0
        whole = output_of(bench, "logs", "--raw", "box", "disk")
        assert whole == b"".join(b"%d\n" % n for n in range(1, 300001))
    finally:
        with_all_rights(bench, "umount", "-l", folder)


def test_on_each_box_of_a_group(bench: LiveBox) -> None:
    """A second name for the same box makes the group."""
    box = way(bench).box
    twin = {"ansible_host": box.host, "ansible_user": box.user, "roost_identity": box.identity}
    twins = {"pair": {"hosts": {"box": {}, "twin": {**twin, "ansible_port": box.port}}}}
    more = bench.workspace.inventory / "twin.yml"
    more.write_text(json.dumps(twins), "utf-8")
    try:
        done = roost(bench, "run", "pair", "--", "sleep", "509")
        assert sorted(done.stdout.split()) == ["sleep", "sleep-2"], done.stderr
        assert "runs on box" in done.stderr and "runs on twin" in done.stderr
        every = json.loads(roost(bench, "jobs", "--json", "pair").stdout)
        assert {(j["box"], j["name"]) for j in every if j["state"] == "running"} == {
            (where, name) for where in ("box", "twin") for name in ("sleep", "sleep-2")
        }
        gone = {**twin, "ansible_host": "127.0.0.1", "ansible_port": 1}
        more.write_text(json.dumps({"pair": {"hosts": {"box": {}, "gone": gone}}}), "utf-8")
        partly = roost(bench, "jobs", "pair")
        assert partly.returncode == 4
        assert "sleep-2" in partly.stdout and "gone (127.0.0.1:1)" in partly.stderr
    finally:
        more.unlink()
        for name in ("sleep", "sleep-2"):
            roost(bench, "stop", "box", name)


def test_the_end_of_a_job_is_told(
    bench: LiveBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    tell = tmp_path / "notify-send"
    tell.write_text(f'#!/bin/sh\necho "$* $ROOST_JOB $ROOST_CODE" >> {told}\n', "utf-8")
    tell.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    as_user(bench, "rm -f ~/end; mkfifo ~/end")
    script = ["sh", "-c", "read x < ~/end; exit 6"]
    roost(bench, "run", "box", "-n", "told", "--notify", f"{tell} by command", "--", *script)
    assert not told.exists()
    as_user(bench, "echo > ~/end")
    until(told.exists, "the command was run")
    assert told.read_text("utf-8") == "by command told 6\n"
    told.unlink()
    assert roost(bench, "wait", "--notify", "desktop", "box", "told").returncode == 6
    assert told.read_text("utf-8").startswith("--app-name=roost -- told on box failed (6)")
    assert "\a" in roost(bench, "wait", "--notify", "bell", "box", "told").stderr
    refused = roost(bench, "run", "box", "--notify", "no-such-program", "--", "true")
    assert (refused.returncode, refused.stdout) == (2, "")


EATER = """
import os, signal, subprocess
def end(*_):
    # Memory is not filled here: the guard takes any that is not wholly free for too little.
    subprocess.run(["sudo", "systemctl", "stop", "earlyoom"])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
signal.signal(signal.SIGTERM, end)
held = b"x" * 100_000_000
print("has eaten", flush=True)
signal.pause()
"""


@pytest.mark.parametrize(
    ("name", "command", "said"),
    [
        ("eater", ["python3", "-c", EATER], "failed (SIGTERM), the memory guard ended it: "),
        (
            "script",
            ["sh", "-c", 'python3 -c "$1"; exit $?', "sh", EATER],
            "failed (143), the memory guard ended python3 meanwhile: ",
        ),
    ],
    ids=["the command", "a child of it"],
)
def test_the_memory_guard_is_named_where_it_ended_a_job(
    bench: LiveBox, name: str, command: list[str], said: str
) -> None:
    user = home(bench).rpartition("/")[2]
    as_root(bench, "usermod", "-aG", "systemd-journal", user)
    ssh.disconnect(way(bench).config, "box")
    as_user(bench, "tmux kill-server", check=False)
    guard(bench)
    roost(bench, "run", "box", "-n", name, "--", *command)
    until(lambda: "has eaten" in jobs.log(way(bench), name), "it holds memory")
    # It may be stopped again before its start is told.
    as_root(bench, "systemctl", "start", "--no-block", "earlyoom")
    waited = roost(bench, "wait", "box", name)
    assert waited.returncode == 143
    assert said + "the box was running out of memory" in waited.stderr
    assert said in roost(bench, "jobs", "box").stdout


def guard(box: LiveBox) -> None:
    """The real earlyoom in its own unit, which a container's rights are too few for as it is."""
    choice = "--prefer '^python3$' --avoid '^(init|systemd.*|dbus.*|sshd.*|tmux.*)$'"
    command = f"/usr/bin/earlyoom -r 0 -s 100 -m 99,1 {choice}"
    script = (
        "export DEBIAN_FRONTEND=noninteractive; apt-get -qq install earlyoom; "
        "systemctl stop earlyoom; printf '[Service]\\nExecStart=%s\\n' \"$1\" "
        "> /run/systemd/system/earlyoom.service; systemctl daemon-reload"
    )
    as_root(box, "sh", "-c", script, "sh", command)
