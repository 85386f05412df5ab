"""``rmate`` on a box that two people use, each with an editor on a machine of their own."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cli import provision_with, roost
from tunnel_rig import tunnels, wait_for, way

from boxes import LiveBox, exec_in, start_boxes
from rmate_editor import Editor
from roost import process, rmate, ssh
from roost.errors import UsageError
from roost.forwards import Allow
from roost.model import Box, Forward, ForwardKind
from roost.ssh_config import Settings, render
from roost.tunnels import Purpose, Tunnels

__all__ = ["tunnels"]
pytestmark = pytest.mark.box

PEOPLE = ("ann", "bob")
# Their homes are open to all: what keeps the others out is the socket alone.
MAKE_PEOPLE = """
for name in ann bob; do
    useradd --create-home --shell /bin/sh $name
    chmod 755 /home/$name
    mkdir -m 700 /home/$name/.ssh
    cp /home/{user}/.ssh/authorized_keys /home/$name/.ssh/
    chown -R $name: /home/$name/.ssh
    echo "$name's text" >/home/$name/notes
    chown $name: /home/$name/notes
done
# In a container a login waits for the end of the one before, which systemd is slow to notice.
mkdir -p /var/lib/systemd/linger
touch /var/lib/systemd/linger/ann /var/lib/systemd/linger/bob
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[LiveBox]:
    with start_boxes("box") as boxes:
        box = boxes["box"]
        provision_with(box, "rmate")
        exec_in(box, ["sh", "-euc", MAKE_PEOPLE.replace("{user}", box.now.user)])
        yield box


@dataclass
class Person:
    """Somebody with an editor on this side and a login on the box."""

    box: Box
    config: Path
    editor: Editor
    port: int

    def edit(self) -> subprocess.Popen[str]:
        words = ssh.command(self.config, self.box.name, "rmate", "--wait", "notes")
        return process.start(words)

    def run(self, script: str) -> process.Completed:
        return ssh.run(self.config, self.box, script, check=False)


@pytest.fixture
def people(shared: LiveBox, tmp_path: Path) -> Iterator[dict[str, Person]]:
    reach = way(shared)
    with ExitStack() as stack:
        found = {}
        for name in PEOPLE:
            config = tmp_path / name
            box = replace(reach.box, user=name)
            fleet = replace(reach.fleet, boxes=(box,))
            config.write_text(render(fleet, Settings(shared.workspace.known_hosts)))
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            listener.settimeout(60)
            found[name] = Person(box, config, Editor(listener), listener.getsockname()[1])
        yield found


def open_for(person: Person, client: Tunnels) -> Forward:
    forward = rmate.forward(person.config, person.box, port=person.port)
    client.open(person.box, person.config, [forward], purpose=Purpose(rmate.LABEL))
    return forward


def test_each_edits_in_their_own_editor(people: dict[str, Person], tunnels: Tunnels) -> None:
    sockets = {name: open_for(person, tunnels).listen for name, person in people.items()}
    assert sockets == {name: f"/home/{name}/.rmate.sock" for name in PEOPLE}

    for name, person in people.items():
        with person.edit() as running:
            person.editor.accept()
            fields, data = person.editor.opened[0]
            assert (fields["real-path"], data) == (
                f"/home/{name}/notes",
                f"{name}'s text\n".encode(),
            )
            person.editor.save(fields["token"], b"changed by %s\n" % name.encode())
            person.editor.close(fields["token"])
            assert running.wait(60) == 0, running.communicate()
    for name, person in people.items():
        assert person.run("cat notes").stdout == f"changed by {name}\n"


def test_nobody_reaches_the_socket_of_another(people: dict[str, Person], tunnels: Tunnels) -> None:
    path = open_for(people["ann"], tunnels).listen
    program = f"import socket; socket.socket(socket.AF_UNIX).connect('{path}'); print('in')"

    def ask(name: str) -> process.Completed:
        asked = people[name].run(f'python3 -c "{program}"')
        assert name == "ann" or not asked.stdout
        return asked

    # The tunnel may be cut and come back in between, as on any machine with little time.
    wait_for(lambda: ask("ann").stdout == "in\n")
    wait_for(lambda: "PermissionError" in ask("bob").stderr)


def test_who_has_no_socket_is_not_led_to_the_editor_of_another(
    people: dict[str, Person], tunnels: Tunnels
) -> None:
    """Ann forwards a port, as one does by hand; bob, who has nothing, calls rmate."""
    ann, bob = people["ann"], people["bob"]
    by_hand = Forward(ForwardKind.REMOTE, "52698", f"127.0.0.1:{ann.port}")
    tunnels.open(ann.box, ann.config, [by_hand], allow=Allow(shared=True))

    with bob.edit() as refused:
        link, _ = ann.editor.listener.accept()
        with link:
            link.sendall(b"An Editor 1.0\n")
            link.settimeout(60)
            assert link.recv(100) == b""
        _, said = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert "somebody else" in said
    with ann.edit() as running:
        ann.editor.accept()
        ann.editor.close(ann.editor.opened[0][0]["token"])
        assert running.wait(60) == 0


def test_one_word_on_the_command_line(shared: LiveBox, tunnels: Tunnels) -> None:
    spec = f"R:/home/{shared.now.user}/.rmate.sock:127.0.0.1:{rmate.EDITOR_PORT}"

    opened = roost(shared, "tunnel", "open", "box", "rmate")
    assert (opened.returncode, opened.stdout) == (0, f"{spec}\n"), opened.stderr
    if process.run(["ss", "-Hltn", f"sport = :{rmate.EDITOR_PORT}"]).stdout == "":
        assert "start its rmate server" in opened.stderr
    assert [s.label for s in tunnels.list()] == ["rmate"]
    exec_in(shared, ["test", "-S", f"/home/{shared.now.user}/.rmate.sock"])
    closed = roost(shared, "tunnel", "close", "box", "rmate")
    assert spec in closed.stderr
    assert not tunnels.list()
    assert roost(shared, "tunnel", "close", "box", "rmate").returncode == 0


@pytest.mark.parametrize("named", ["relative", "~/with:colon"])
def test_a_setting_that_is_no_path_is_refused(shared: LiveBox, named: str) -> None:
    reach = way(shared)
    box = replace(reach.box, vars={**reach.box.vars, "rmate_socket": named})
    with pytest.raises(UsageError, match="no path of a socket"):
        rmate.forward(reach.config, box)
