"""Commands on a box by ssh: whatever the login shell is, whatever the paths are called."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import roost

from boxes import LiveBox, exec_in, start_boxes
from roost import process, ssh
from roost.errors import ProcessError
from roost.inventory import load
from roost.model import Box, Fleet
from roost.paths import Paths
from roost.ssh_config import Settings, render
from roost.ssh_failure import HostKeyError, RefusedKeyError

pytestmark = pytest.mark.box

SHELLS = ("/bin/sh", "/bin/bash", "/usr/bin/fish", "/usr/bin/zsh", "/usr/bin/tcsh")
WORDS = [
    "",
    " ",
    "a b",
    "it's",
    '"',
    "\\",
    "\\\\n",
    "$HOME",
    "`id`",
    "!!",
    "é",
    "a\nb",
    "*",
    ";",
    "-n",
]
SCRIPT = """\
set -eu
# A script as roost sends it: quotes, backslashes, line feeds, exclamation marks.
text='it'"'"'s "quoted" \\ $HOME ! `no`'
printf '%s\\n' "$text"
if [ -n "${SSH_CONNECTION:-}" ]; then echo "by ssh"; fi
"""


@pytest.fixture(scope="module")
def shelled() -> Iterator[LiveBox]:
    with start_boxes("shelled") as boxes:
        script = "apt-get update -qq && apt-get install -qq --yes --no-install-recommends "
        exec_in(boxes["shelled"], ["sh", "-c", f"{script} fish zsh tcsh >/dev/null"], timeout=600)
        yield boxes["shelled"]


@pytest.fixture
def reach(shelled: LiveBox, paths: Paths) -> Iterator[tuple[Path, Box, Fleet]]:
    workspace = shelled.workspace
    fleet = load(workspace, paths=paths, environ=os.environ)
    config = ssh.ensure_config(workspace.root, fleet, paths, user_config=False)
    yield config, fleet.box("shelled"), fleet
    ssh.disconnect(config, "shelled")


@pytest.mark.parametrize("shell", SHELLS)
def test_any_login_shell(shelled: LiveBox, reach: tuple[Path, Box, Fleet], shell: str) -> None:
    config, box, fleet = reach
    exec_in(shelled, ["chsh", "-s", shell, shelled.now.user])
    said = ssh.run(config, box, ["printf", "<%s>", *WORDS], fleet=fleet).stdout
    assert said == "".join(f"<{word}>" for word in WORDS)
    said = ssh.run(config, box, SCRIPT, fleet=fleet).stdout
    assert said == 'it\'s "quoted" \\ $HOME ! `no`\nby ssh\n'
    assert ssh.run(config, box, "cat; exit 0", fleet=fleet, input="x\ny").stdout == "x\ny"
    with pytest.raises(ProcessError) as caught:
        ssh.run(config, box, "echo 'it hurts' >&2; exit 7", fleet=fleet)
    assert (caught.value.returncode, caught.value.why) == (7, "it hurts")
    # Without that, the login shell reads the command, as with ssh itself.
    assert roost(shelled, "ssh", "shelled", "--", "echo", "$SHELL").stdout == f"{shell}\n"


def test_the_second_connection_goes_through_the_first(reach: tuple[Path, Box, Fleet]) -> None:
    config, box, fleet = reach
    for _ in range(2):
        ssh.run(config, box, "true", fleet=fleet)
    master = process.run(ssh.command(config, box.name, options=["-O", "check"]), check=False)
    assert "Master running" in master.stderr
    first, second = (ssh.run(config, box, "echo $SSH_CONNECTION").stdout for _ in range(2))
    assert first == second
    ssh.disconnect(config, box.name)
    assert ssh.run(config, box, "echo $SSH_CONNECTION").stdout != first


def test_awkward_paths_really_work(
    shelled: LiveBox, reach: tuple[Path, Box, Fleet], tmp_path: Path
) -> None:
    _, box, _ = reach
    odd = tmp_path / 'a %d "b" it\'s #1 é'
    odd.mkdir()
    shutil.copy(box.identity, odd / "my %h key")
    shutil.copy(shelled.workspace.known_hosts, odd / "known hosts")
    (odd / "c").mkdir(mode=0o700)
    moved = Box(box.name, box.host, box.port, box.user, identity=str(odd / "my %h key"))
    config = odd / "ssh config"
    socket = Path(f"/tmp/roost %t {os.getpid()}")
    socket.mkdir(mode=0o700)
    try:
        chosen = Settings(odd / "known hosts", socket)
        config.write_text(render(Fleet(boxes=(moved,)), chosen))
        assert ssh.run(config, moved, "echo through").stdout == "through\n"
        assert len(list(socket.iterdir())) == 1
        ssh.disconnect(config, moved.name)
    finally:
        shutil.rmtree(socket)


def test_a_box_that_refuses_and_one_that_nobody_knows(
    reach: tuple[Path, Box, Fleet], tmp_path: Path
) -> None:
    _, box, _ = reach
    config, pins = tmp_path / "config", tmp_path / "pins"
    stranger = Box("stranger", box.host, box.port, "nobody", identity=box.identity)
    config.write_text(render(Fleet(boxes=(stranger,)), Settings(pins)))
    with pytest.raises(HostKeyError, match="is not pinned"):
        ssh.run(config, stranger, "true")
    pins.write_text((Path(box.identity).parent / "known_hosts").read_text())
    with pytest.raises(RefusedKeyError, match=r"refuses the key .* for nobody"):
        ssh.run(config, stranger, "true")
