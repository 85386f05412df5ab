"""The role tmux, asked of the tmux that runs on real boxes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from roles import wait_for
from workbench import as_person, play, provision, root, ssh_argv
from workplace import Terminal

from boxes import LiveBox, exec_in
from roost import process

pytestmark = pytest.mark.box


@pytest.fixture(params=["debian:12", "debian:13"])
def bench(request: pytest.FixtureRequest, shared_box: Callable[..., LiveBox]) -> LiveBox:
    """The workbench on both releases: tmux 3.3a and 3.5a."""
    return shared_box(f"workbench-{request.param.replace(':', '-')}", provision, os=request.param)


@pytest.fixture
def box12(shared_box: Callable[..., LiveBox]) -> LiveBox:
    """The workbench on Debian 12, where one release says it all."""
    return shared_box("workbench-debian-12", provision, os="debian:12")


def shown(box: LiveBox, config: str, *commands: str) -> str:
    """What a tmux server of its own says that was started with ``config``."""
    words = " \\; ".join(["start-server", *commands])
    return as_person(box, "ann", f"tmux -L shown-{os.getpid()} -f {config} {words}").stdout


def options(box: LiveBox, config: str) -> dict[str, str]:
    text = shown(box, config, "show -g", "show -s", "show -gw")
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


@contextmanager
def client(box: LiveBox, person: str, command: str, *ssh: str) -> Iterator[Client]:
    """A terminal on the box over ssh, as wide as a person's."""
    argv = [*ssh_argv(box, person, "-tt", *ssh), box.name, f"stty cols 120 rows 30; {command}"]
    env = {**os.environ, "TERM": "xterm-256color"}
    child = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env
    )
    try:
        assert child.stdout is not None
        os.set_blocking(child.stdout.fileno(), False)
        yield Client(child)
    finally:
        child.terminate()
        child.communicate()


class Client:
    """The near end of a terminal: keys go in, what is drawn comes out."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child
        self.drawn = b""

    def keys(self, text: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(text.encode())
        self.child.stdin.flush()

    def shows(self, pattern: str) -> None:
        """Wait until the terminal has been sent ``pattern``."""
        seen = f"{pattern} on the screen"
        wait_for(lambda: re.search(pattern.encode(), self._read()), seen, seconds=90)

    def _read(self) -> bytes:
        assert self.child.stdout is not None
        self.drawn += self.child.stdout.read() or b""
        return self.drawn


def test_the_choices_reach_the_tmux_that_runs(bench: LiveBox) -> None:
    now = options(bench, "/etc/tmux.conf")
    wanted = {
        "prefix": "C-b",
        "prefix2": "C-a",
        "mouse": "on",
        "history-limit": "50000",
        "base-index": "1",
        "pane-base-index": "1",
        "renumber-windows": "on",
        "escape-time": "10",
        "focus-events": "on",
        "aggressive-resize": "on",
        "display-time": "2000",
        "set-titles": "on",
        "set-titles-string": '"#h: #S #W"',
        "default-terminal": "tmux-256color",
        "set-clipboard": "on",
        "mode-keys": "emacs",
        "status-keys": "emacs",
        "status": "on",
    }
    assert {name: now.get(name) for name in wanted} == wanted
    features = [value for name, value in now.items() if name.startswith("terminal-features")]
    assert any(re.fullmatch(r'"?xterm\*:RGB"?', value) for value in features), features
    keys = shown(bench, "/etc/tmux.conf", "list-keys -T prefix")
    for key, split in (("-", "-v"), (r"\\?\|", "-h"), (r'\\?"', "-v"), (r"\\?%", "-h")):
        assert re.search(rf"prefix +{key} +split-window {split} -c .*pane_current_path", keys), keys
    assert re.search(r"prefix +C-a +send-prefix -2", keys)


# As awkward as it gets: what tmux, and what YAML and JSON, would take for more than itself.
WORDS = "a$HOME \"b'#{c};\\"


def test_every_choice_can_be_another(box12: LiveBox) -> None:
    path = "/etc/tmux-alternative.conf"
    done = play(
        box12,
        ["tmux"],
        tmux_config_path=path,
        tmux_prefix="C-t",
        tmux_prefix2="",
        tmux_keys="vi",
        tmux_splits=False,
        tmux_base_index=0,
        tmux_mouse=False,
        tmux_history_limit=1234,
        tmux_escape_time=77,
        tmux_terminal="screen-256color",
        tmux_true_color=[],
        tmux_clipboard=False,
        tmux_status=False,
        tmux_agent=False,
        tmux_options={"set-titles": False, "display-time": 9, "word-separators": WORDS},
        tmux_extra="set-option -g display-panes-time 4321",
    )
    assert done.returncode == 0, done.text
    now = options(box12, path)
    wanted = {
        "prefix": "C-t",
        "prefix2": "None",
        "mouse": "off",
        "history-limit": "1234",
        "base-index": "0",
        "pane-base-index": "0",
        "escape-time": "77",
        "default-terminal": "screen-256color",
        "set-clipboard": "off",
        "mode-keys": "vi",
        "status-keys": "vi",
        "status": "off",
        "set-titles": "off",
        "display-time": "9",
        "renumber-windows": "off",
        "display-panes-time": "4321",
    }
    assert {name: now.get(name) for name in wanted} == wanted
    assert "SSH_AUTH_SOCK" in shown(box12, path, "show -g update-environment")
    assert "pane_current_path" not in shown(box12, path, "list-keys -T prefix")
    assert shown(box12, path, "show -gv word-separators") == f"{WORDS}\n"


def test_a_mistake_in_own_lines_is_refused_by_tmux_itself(box12: LiveBox) -> None:
    path = "/etc/tmux-mistake.conf"
    done = play(box12, ["tmux"], tmux_config_path=path, tmux_extra="set -g no-such-option 1")
    assert done.returncode == 2
    assert "no-such-option" in done.failed[0]
    assert "absent" in root(box12, f"test -e {path} || echo absent")


def test_a_persons_own_file_wins(box12: LiveBox) -> None:
    script = """
        echo 'set -g history-limit 77' >~/.tmux.conf
        tmux -L own start-server \\; show -g history-limit \\; show -g prefix2
        rm ~/.tmux.conf
    """
    assert as_person(box12, "bob", script).stdout.split() == [
        "history-limit", "77", "prefix2", "C-a"
    ]  # fmt: skip


def test_an_admins_file_is_kept_and_put_back(box12: LiveBox) -> None:
    path = "/etc/tmux-admin.conf"
    root(box12, f"echo 'set -g status-left ADMIN' >{path}")
    here = {"tmux_config_path": path, "tmux_survive_logout": True}
    assert play(box12, ["tmux"], **here).returncode == 0
    assert options(box12, path)["prefix2"] == "C-a"
    assert play(box12, ["tmux"], **here).changed == []

    undone = play(box12, ["tmux"], **here, tmux_state="absent")
    assert undone.returncode == 0, undone.text
    assert root(box12, f"cat {path}") == "set -g status-left ADMIN\n"
    again = play(box12, ["tmux"], **here, tmux_state="absent")
    assert (again.returncode, again.changed) == (0, []), again.text
    assert play(box12, ["tmux"]).returncode == 0  # the other tests' configuration is back


def test_splits_keep_the_folder_by_either_prefix(bench: LiveBox) -> None:
    with client(bench, "ann", "cd /usr/share && tmux -L keys new -s k") as terminal:
        terminal.shows("load [0-9.]+  mem [0-9.]+/[0-9]+G")  # the status line is up
        terminal.keys("\x01|")
        panes = "tmux -L keys list-panes -s -t k -F '#{pane_current_path} #{pane_index}'"
        wait_for(
            lambda: as_person(bench, "ann", panes).stdout == "/usr/share 1\n/usr/share 2\n",
            "a split by C-a |",
        )
        terminal.keys("\x02-")
        wait_for(
            lambda: as_person(bench, "ann", panes).stdout.count("/usr/share") == 3,
            "a split by C-b -",
        )
        as_person(bench, "ann", "tmux -L keys kill-server")


@pytest.fixture
def near(bench: LiveBox, tmp_path: Path) -> Iterator[Terminal]:
    """A terminal on this side in which ann has attached to a tmux on the box."""
    tmux = ["tmux", "-u", "-S", str(tmp_path / "near"), "-f", "/dev/null"]
    argv = [*ssh_argv(bench, "ann", "-tt"), bench.name, "tmux -u -L look new -s look"]
    process.run([*tmux, "new-session", "-d", "-x", "100", "-y", "24", "--", *argv])
    try:
        yield Terminal(tmux)
    finally:
        process.run([*tmux, "kill-server"], check=False)
        as_person(bench, "ann", "tmux -L look kill-server", check=False)


def test_what_a_person_sees(bench: LiveBox, near: Terminal) -> None:
    """The screen of a real terminal: status line, colours, the wheel, the copy mode's keys."""
    near.shows(" mem ")
    # tmux names a window half a second after its program has become another one.
    screen = near.shows(" bash* ")
    status = screen.splitlines()[-1]
    line = r" look +1 bash\* +load [0-9.]+  mem [0-9.]+/[0-9]+G  +box"
    assert re.fullmatch(line, status.rstrip()), status
    near.type("-l", "printf '\\033[38;2;10;200;30mgreen\\033[0m\\n'; seq 200\r")
    near.shows("\n200\n")
    capture = [*near.tmux, "capture-pane", "-p", "-e"]
    for step, first in ((0, "179"), (5, "174"), (10, "169")):
        near.type("-l", "\x1b[<64;10;10M")  # the wheel, as a terminal reports it
        assert re.search(rf"^{first}\b", near.shows(f"[{step}/"), re.M)
    near.type("-l", "\x1b<")  # to the beginning of the history, by Emacs' key
    near.shows("green")
    assert re.search(r"\x1b\[38;2;10;200;30m(\x1b\[49m)?green", process.run(capture).stdout)
    near.type("-l", "q")
    gpu = "#!/bin/sh\necho 37, 2048, 24576\necho 0, 10, 24576\n"
    exec_in(bench, ["tee", "/usr/local/bin/nvidia-smi"], input=gpu)
    try:
        exec_in(bench, ["chmod", "755", "/usr/local/bin/nvidia-smi"])
        near.shows("  gpu0 37% 2.0/24G  gpu1 0% 0.0/24G  box")
    finally:
        exec_in(bench, ["rm", "/usr/local/bin/nvidia-smi"])


def test_a_program_on_the_box_fills_the_clipboard_of_the_near_side(bench: LiveBox) -> None:
    with client(bench, "ann", "tmux -L clip new -s c") as terminal:
        terminal.shows("load")
        terminal.keys("printf '\\033]52;c;cm9vc3Q=\\a'\r")
        terminal.shows("\x1b\\]52;c?;cm9vc3Q=")
        as_person(bench, "ann", "tmux -L clip kill-server")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Callable[[], dict[str, str]]]:
    """Start an ssh agent with a key; each call another one."""
    started = []

    def start() -> dict[str, str]:
        number = len(started)
        key, sock = tmp_path / f"key{number}", tmp_path / f"agent{number}"
        process.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"key{number}", "-f", key]
        )
        started.append(process.start(["ssh-agent", "-D", "-a", sock], new_session=True))
        wait_for(sock.exists, "the agent")
        env = {**os.environ, "SSH_AUTH_SOCK": str(sock)}
        process.run(["ssh-add", "-q", key], env=env)
        return env

    yield start
    for child in started:
        child.terminate()
        child.communicate()


def test_the_agent_stays_reachable_in_old_windows(
    bench: LiveBox, agent: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = process.run([*ssh_argv(bench, "ann", "-G"), bench.name]).stdout
    key = re.search(r"^identityfile (.*)$", identity, re.MULTILINE)
    assert key is not None
    forward = ("-A", "-o", "IdentitiesOnly=yes", "-i", key[1])

    def listed() -> str:
        ask = "ssh-add -l >/tmp/ann-keys 2>&1; mv /tmp/ann-keys /tmp/ann-done"
        as_person(bench, "ann", f"rm -f /tmp/ann-done; tmux -L agent send-keys -t a '{ask}' Enter")
        done = "cat /tmp/ann-done"
        wait_for(lambda: exec_in(bench, ["sh", "-c", done], check=False).stdout, "ssh-add")
        return root(bench, done)

    monkeypatch.setattr(os, "environ", os.environ | agent())
    with client(bench, "ann", "tmux -L agent new -s a", *forward) as terminal:
        terminal.shows("load")
        assert "key0" in listed()
    monkeypatch.setattr(os, "environ", os.environ | agent())
    with client(bench, "ann", "tmux -L agent attach -t a", *forward) as terminal:
        terminal.shows("load")
        wait_for(lambda: "key1" in listed(), "the agent of the second connection")
    as_person(bench, "ann", "tmux -L agent kill-server")


def test_sessions_survive_the_last_logout(box12: LiveBox) -> None:
    # What a hardened box says, and what ours has to win over.
    hardened = "[Login]\nKillUserProcesses=yes\nRemoveIPC=yes\n"
    exec_in(box12, ["tee", "/etc/systemd/logind.conf"], input=hardened)
    root(box12, "rm -f /etc/systemd/logind.conf.d/roost-*; useradd --create-home eve")
    done = play(box12, ["tmux", "jupyter"])
    assert done.returncode == 0, done.text
    service = "org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager"
    for name in ("KillUserProcesses", "RemoveIPC"):
        # logind reads its files anew on a signal, a moment later.
        ask = f"busctl get-property {service} {name}"
        wait_for(lambda ask=ask: root(box12, ask).strip() == "b false", f"{name}=no")

    script = "install -d -o eve -m 0700 ~eve/.ssh && install -o eve ~debian/.ssh/auth* ~eve/.ssh/"
    root(box12, script)
    process.run([*ssh_argv(box12, "eve"), box12.name, "tmux -L stay new -d -s s 'sleep 600'"])
    state = "loginctl show-user eve -P State 2>/dev/null || echo gone"
    wait_for(lambda: root(box12, state).strip() in {"closing", "gone"}, "eve's logout")
    assert as_person(box12, "eve", "tmux -L stay ls").stdout.startswith("s: 1 windows")
    as_person(box12, "eve", "tmux -L stay kill-server")


# Laid out like people's tmux configurations: settings, a file beside it with more, and a shell
# script in its comments that the file runs from itself.
OF_THE_REPOSITORY = """\
# : <<'SETTINGS'
set -g history-limit 4242
if-shell '[ -n "$TMUX_CONF_LOCAL" ]' 'source-file "$TMUX_CONF_LOCAL"'
run 'cut -c3- "$TMUX_CONF" | sh -s apply'
# SETTINGS
# apply() {
#     tmux set -g status-right BY-ITSELF
# }
# "$@"
"""


def repository(folder: Path) -> str:
    """A git repository with a tmux configuration; its commit."""
    folder.mkdir()
    (folder / ".tmux.conf").write_text(OF_THE_REPOSITORY)
    (folder / ".tmux.conf.local").write_text("set -g status-left REPOSITORY\n")
    git = ["git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@example.org"]
    process.run([*git, "init", "-q"])
    process.run([*git, "add", "."])
    process.run([*git, "commit", "-q", "-m", "first"])
    return process.run([*git, "rev-parse", "HEAD"]).stdout.strip()


@pytest.mark.parametrize("carry", [True, False], ids=["carried over", "fetched on the box"])
def test_a_configuration_from_a_repository(box12: LiveBox, tmp_path: Path, carry: bool) -> None:
    commit = repository(tmp_path / "dotfiles")
    where = str(tmp_path / "dotfiles")
    if not carry:
        root(box12, "rm -rf /srv/dotfiles; mkdir -p /srv/dotfiles")
        argv = [*ssh_argv(box12, "debian"), box12.name, "sudo tar -C /srv/dotfiles -x -z"]
        with subprocess.Popen(
            ["tar", "-C", where, "-c", "-z", ".git"], stdout=subprocess.PIPE
        ) as tar:
            subprocess.run(argv, stdin=tar.stdout, check=True)
        root(box12, "chown -R root:root /srv/dotfiles")
        where = "/srv/dotfiles"
    path = f"/etc/tmux-repository-{carry}.conf"
    wanted = {
        "tmux_config_path": path,
        "tmux_repository": where,
        "tmux_repository_version": commit,
        "tmux_repository_carry": carry,
    }
    done = play(box12, ["tmux"], **wanted)
    assert done.returncode == 0, done.text
    assert play(box12, ["tmux"], **wanted).changed == []
    now = options(box12, path)
    assert (now["history-limit"], now["status-left"]) == ("4242", "REPOSITORY")
    assert now["status-right"] == "BY-ITSELF"
    # A person's own settings stand in for those of the repository, or for all of it.
    own = "echo 'set -g status-left BOB' >~/.tmux.conf.local; "
    say = f"tmux -L repo -f {path} start-server \\; show -g status-left \\; show -g history-limit; "
    assert as_person(box12, "bob", own + say).stdout.split() == [
        "status-left", "BOB", "history-limit", "4242"
    ]  # fmt: skip
    own = "mv ~/.tmux.conf.local ~/.tmux.conf; "
    assert "4242" not in as_person(box12, "bob", own + say + "rm ~/.tmux.conf").stdout


def test_a_branch_is_refused(box12: LiveBox) -> None:
    done = play(box12, ["tmux"], tmux_repository="/srv/x", tmux_repository_version="main")
    assert done.returncode == 2
    assert "full hash" in done.failed[0]
