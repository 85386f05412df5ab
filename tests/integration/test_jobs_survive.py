"""What jobs and sessions live through: the last logout, and what is said after a reboot."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import roost, root
from workplace import as_root, as_user, equip, terminal, until, way

from boxes import RELEASES, LiveBox, reboot
from roost import jobs, ssh

pytestmark = pytest.mark.box


# The box of the other tests of jobs, and one of every other release.
@pytest.fixture(params=[None, *RELEASES[1:]])
def bench(request: pytest.FixtureRequest, shared_box: Callable[..., LiveBox]) -> LiveBox:
    """The box, with no tmux server on it."""
    name = "jobs" if request.param is None else f"jobs-{request.param.replace(':', '-')}"
    box = shared_box(name, prepare=equip, os=request.param)
    as_user(box, "tmux kill-server 2>/dev/null; rm -rf ~/.local/state/roost")
    return box


def log_out(box: LiveBox) -> None:
    """End every login of the person, and wait until logind has closed them all."""
    # Other tests have shared connections of their own open, for some minutes.
    as_root(box, "pkill", "-f", r"^sshd.*: \w+[ @]", check=False)
    # systemd 257 counts the person's own manager as a session, too.
    script = "for s in $(loginctl list-sessions --no-legend | awk '{print $1}'); do "
    script += "[ $(loginctl show-session $s -P Class) = manager ] || "
    script += "loginctl show-session $s -P State; done; true"

    def gone() -> bool:
        return not set(as_root(box, "sh", "-c", script).stdout.split()) - {"closing"}

    until(gone, "the last session has ended")


def beats(box: LiveBox) -> int:
    return int(as_user(box, "wc -c < ~/beats").stdout)


BEAT = ["sh", "-c", "while :; do echo x >> ~/beats; sleep 0.1; done"]


def goes_on(box: LiveBox) -> None:
    before = beats(box)
    until(lambda: beats(box) > before + 4, "the job goes on")


def test_a_job_and_a_session_survive_the_last_logout(bench: LiveBox) -> None:
    remote = way(bench)
    jobs.start(remote, BEAT, name="beat")
    jobs.sessions(remote, make="desk")
    log_out(bench)
    goes_on(bench)
    assert jobs.state(remote, "beat").state == "running"
    assert [s["name"] for s in jobs.sessions(remote).sessions] == ["desk"]
    jobs.stop(remote, "beat")


def test_where_logind_kills_what_is_left_a_job_needs_lingering_and_survives(
    bench: LiveBox,
) -> None:
    conf = "/etc/systemd/logind.conf.d/test.conf"
    on = f"mkdir -p $(dirname {conf}) && printf '[Login]\\nKillUserProcesses=yes\\n' > {conf}"
    user = bench.now.user
    remote = way(bench)
    log_out(bench)
    as_root(bench, "sh", "-c", f"{on} && systemctl restart systemd-logind")
    try:
        refused = roost(bench, "run", "box", "-n", "beat", "--", *BEAT)
        assert refused.returncode == 1
        assert "sudo loginctl enable-linger" in refused.stderr
        assert jobs.listing(remote) == []
        # In one of those doomed sessions a plain tmux does die: the danger is real.
        ssh.run(remote.config, remote.box, "tmux new-session -d -s doomed")
        log_out(bench)
        until(lambda: not as_user(bench, "tmux ls", check=False).stdout, "tmux is killed")
        as_root(bench, "loginctl", "enable-linger", user)
        jobs.start(remote, BEAT, name="beat")
        log_out(bench)
        goes_on(bench)
        jobs.stop(remote, "beat")
    finally:
        as_root(bench, "sh", "-c", f"rm {conf}; loginctl disable-linger {user}")
        as_root(bench, "systemctl", "restart", "systemd-logind")


def test_after_a_reboot_a_job_reads_lost_and_the_shell_says_so(
    bench: LiveBox, tmp_path: Path
) -> None:
    remote = way(bench)
    jobs.start(remote, ["sh", "-c", "echo before; sleep 600"], name="running")
    jobs.start(remote, ["sh", "-c", "echo done; exit 4"], name="ended")
    jobs.wait(remote, "ended")
    jobs.start(remote, ["sh", "-c", "trap '' TERM HUP; sleep 600"], name="deaf")
    jobs.sessions(remote, make="desk")
    earlier = time.time()
    reboot(bench)
    for name in ("running", "deaf"):
        job = jobs.state(remote, name)
        assert (job.state, job.reason) == ("lost", "box rebooted"), name
        assert job.rebooted and earlier - 2 < job.rebooted < time.time() + 2
    assert jobs.log(remote, "running") == "before\n"
    assert jobs.state(remote, "ended").code == 4
    table = roost(bench, "jobs", "box").stdout
    assert "lost, box rebooted at " + time.strftime("%Y-%m-%d") in table
    assert "failed (4)" in table
    waited = roost(bench, "wait", "box", "running")
    assert waited.returncode != 0
    with terminal(tmp_path, "-w", root(bench), "shell", "box", "desk") as screen:
        screen.shows("[desk]")
        screen.type("C-b", "d")
        shown = screen.shows("exit 0")
        assert "desk: a new session" in shown
        assert "what ran in its sessions is gone (desk)" in shown.replace("\n", "")
    assert jobs.sessions(remote).lost == []
