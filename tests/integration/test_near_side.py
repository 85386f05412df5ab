"""A person with a lived-in ``~/.ssh``, from the first ``add`` to ``undo``, through two gateways.

The person is a fresh Unix account on a box that plays the laptop: OpenSSH takes the home from
the password database, so nothing less shows what ssh, scp, rsync and sftp really do.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from boxes import LiveBox, exec_in, private_network, reboot, start_boxes
from roost import process

pytestmark = [pytest.mark.box, pytest.mark.timeout(1800)]

DRIVER = Path(__file__).parent / "terminal_driver.py"
BOXES = ("gate", "inner", "deep")
CONFIG = (
    "# kept by hand since 2009\r\n"
    "IgnoreUnknown UseKeychain\r\n"
    "UseKeychain yes\r\n"
    "Host github.com\r\n\tUser=git\r\n"
    "Host work old-work\r\n  HostName work.example.com\r\n  Port 2222\r\n"
    'Match host probe exec "test -d /tmp"\r\n  User prober\r\n'
    "Host *.corp !bastion.corp\r\n  ProxyJump bastion.corp\r\n"
    "Host *\r\n  ServerAliveInterval 60\r\n  User someone-else\r\n  # the end"
)
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Ask who we are
      raw: id -un
      register: who
      changed_when: false
    - name: Make sure of it
      assert: {that: "who.stdout | trim == 'bob'"}
"""


def password(name: str) -> str:
    return f"secret of {name}"


class Laptop:
    """The box that the person sits at."""

    def __init__(self, box: LiveBox) -> None:
        self.box = box

    def run(self, script: str, *, check: bool = True) -> process.Completed:
        """Run a shell script as the person, in a fresh log-in."""
        words = ["su", "-", "ann", "-c", f"export PATH=/opt/roost-cli/bin:$PATH\n{script}"]
        return exec_in(self.box, words, check=check, timeout=900)

    def answer(self, dialogue: list[tuple[str, str]], command: str) -> process.Completed:
        """Run a command on a terminal, and answer what it asks."""
        driver = f"python3 /opt/terminal_driver.py {shlex.quote(json.dumps(dialogue))}"
        return self.run(f"cd ~/work; {driver} {command}", check=False)

    def ssh_folder(self) -> str:
        """Every file of ``~/.ssh`` with its mode, owner and content, and the folder's own."""
        return self.run(
            "cd ~/.ssh && stat -c '%n %a %U %F' . * && find . -type f | sort | xargs sha256sum"
        ).stdout


@pytest.fixture(scope="module")
def laptop(wheel: Path) -> Iterator[Laptop]:
    with start_boxes("laptop", "gate") as boxes:
        inner = private_network(boxes["gate"], "inner", internet=True)
        deep = private_network(inner, "deep", internet=True)
        it = boxes["laptop"]
        with ThreadPoolExecutor() as pool:
            far = [pool.submit(furnish, box) for box in (boxes["gate"], inner, deep)]
            for done in (pool.submit(furnish_laptop, it, wheel), *far):
                done.result()
        yield Laptop(it)


@pytest.fixture(scope="module")
def addresses(laptop: Laptop) -> dict[str, str]:
    found = {box.name: box.host for box in laptop.box.sandbox.boxes()}
    return {name: found[name] for name in BOXES}


def furnish(box: LiveBox) -> None:
    install(box, "rsync")
    exec_in(box, ["useradd", "--create-home", "--shell", "/bin/bash", "bob"])
    exec_in(box, ["chpasswd"], input=f"bob:{password(box.name)}\n")


def furnish_laptop(box: LiveBox, wheel: Path) -> None:
    install(box, "python3-venv", "openssh-client", "rsync")
    for file in (wheel, DRIVER):
        box.sandbox.engine("cp", str(file), f"{box.now.container}:/opt/{file.name}")
    script = (
        "python3 -m venv /opt/roost-cli && PIP_CERT=/etc/ssl/certs/ca-certificates.crt"
        f" /opt/roost-cli/bin/pip install --quiet /opt/{wheel.name}"
    )
    exec_in(box, ["sh", "-c", script], timeout=900)
    exec_in(box, ["useradd", "--create-home", "--shell", "/bin/bash", "ann"])


def install(box: LiveBox, *packages: str) -> None:
    words = "apt-get update -qq && apt-get install -qq --yes --no-install-recommends "
    exec_in(box, ["sh", "-c", f"{words} {' '.join(packages)} >/dev/null"], timeout=900)


def fingerprint(laptop: Laptop, name: str) -> str:
    box = LiveBox(laptop.box.sandbox, name)
    words = ["ssh-keygen", "-l", "-f", "/etc/ssh/ssh_host_ed25519_key.pub"]
    return exec_in(box, words).stdout.split()[1]


def test_from_the_first_add_to_undo(laptop: Laptop, addresses: dict[str, str]) -> None:
    script = (
        "mkdir -m 700 ~/.ssh; cd ~/.ssh; ssh-keygen -q -t ed25519 -N '' -C ann -f id_ed25519;"
        " printf 'old.example.com ssh-ed25519 AAAA\\n' >known_hosts; chmod 644 known_hosts;"
        f" printf %s {shlex.quote(CONFIG)} >config.real; chmod 640 config.real;"
        " ln -s config.real config; roost init ~/work >/dev/null"
    )
    laptop.run(script)
    before = laptop.ssh_folder()
    answers = "for h in github.com work probe x.corp nobody 192.0.2.1; do ssh -G $h; done"
    answered = laptop.run(answers).stdout

    # Three boxes, the second behind the first, the third behind the second; each by a person who
    # reads the fingerprint, says yes, and types the password once.
    via = ""
    for name in BOXES:
        dialogue = [
            (r"is it the right box\?.*\[y/N\]", "y"),
            (r"bob@\S+'s password: ", password(name)),
        ]
        if name == "gate":
            dialogue.append((r"add this line.*\n.*Include.*\n?.*\[y/N\]|\[y/N\]", "y"))
        added = laptop.answer(dialogue, f"roost add {name} bob@{addresses[name]} {via}")
        assert added.returncode == 0, added.stdout + added.stderr
        assert fingerprint(laptop, name) in added.stdout
        assert added.stdout.count("password:") == 1
        assert password(name) not in added.stdout
        via = f"--via {name}"

    # From a terminal or an editor, in any folder: the box by its name.
    for name in BOXES:
        shown = laptop.run(
            f"cd /; ssh {name} 'id -un; hostname'; echo hello >/tmp/f-{name};"
            f" scp -q /tmp/f-{name} {name}:scp; rsync -a /tmp/f-{name} {name}:rsync;"
            f" echo 'put /tmp/f-{name} sftp' | sftp -q -b - {name} >/dev/null;"
            f" ssh {name} 'cat scp rsync sftp'"
        )
        assert shown.stdout == f"bob\n{name}\n" + "hello\n" * 3, shown.stderr
    # Through the gateways: seen from the last box, the log-in comes from the one before.
    came_from = laptop.run("ssh deep 'echo $SSH_CONNECTION'").stdout.split()[0]
    assert came_from.rpartition(".")[0] == addresses["deep"].rpartition(".")[0]

    # Ansible reaches them by the same file, from roost and by itself.
    laptop.run(f"cd ~/work; printf %s {shlex.quote(PLAY)} >playbooks/site.yml")
    up = laptop.run("cd ~/work; roost up", check=False)
    assert up.returncode == 0, up.stdout + up.stderr
    plain = laptop.run("cd ~/work; ansible all -m raw -a 'cat scp'", check=False)
    assert plain.stdout.count("hello") == len(BOXES), plain.stdout + plain.stderr
    doctor = laptop.run(f"cd ~/work; roost doctor --json {' '.join(BOXES)}", check=False)
    findings = {f["subject"]: f["level"] for f in json.loads(doctor.stdout)}
    assert [findings[name] for name in (*BOXES, "Include")] == ["ok"] * 4, doctor.stdout

    # Whoever is not a box of ours is answered as before.
    assert laptop.run(answers).stdout == answered

    refused = laptop.run("cd ~/work; roost remove gate", check=False)
    assert refused.returncode == 2
    assert "inner would be cut off" in refused.stderr
    taken = laptop.run("cd ~/work; roost add work me@192.0.2.1", check=False)
    assert taken.returncode == 2
    assert "config:7 defines 'work' already" in taken.stderr
    for name in reversed(BOXES):
        laptop.run(f"cd ~/work; roost remove {name} --take-key")
        assert "user someone-else\n" in laptop.run(f"ssh -G {name}").stdout
        far = LiveBox(laptop.box.sandbox, name)
        assert exec_in(far, ["cat", "/home/bob/.ssh/authorized_keys"]).stdout == ""
    laptop.run("cd ~/work; roost ssh-config undo")
    assert laptop.ssh_folder() == before
    laptop.run(f"printf %s {shlex.quote(CONFIG)} | cmp - ~/.ssh/config")
    assert laptop.run("ls -A ~/.config/roost 2>/dev/null || true").stdout == ""


# Asks through the forward, for a minute at most: an SSH server speaks first.
BANNER = """
import socket, sys, time
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        with socket.create_connection(("127.0.0.1", 2222), timeout=5) as link:
            if link.recv(4) == b"SSH-":
                sys.exit("it answers")
    except OSError:
        time.sleep(0.1)
"""


# What of the paths on standard input can be read, listed, changed or connected to.
TOUCH = """
import json, os, socket, stat, sys
touched = []
for path in sys.stdin.read().split():
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            socket.socket(socket.AF_UNIX).connect(path)
            touched.append(path)
    except OSError:
        continue
    touched += [f"{path} {mode}" for mode in (os.R_OK, os.W_OK) if os.access(path, mode)]
print(json.dumps(touched))
"""


def add_gate(laptop: Laptop, addresses: dict[str, str]) -> None:
    """A key, a workspace, and the gate in it."""
    laptop.run(
        "[ -e ~/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519;"
        " roost init ~/work >/dev/null"
    )
    dialogue = [(r"\[y/N\]", "y"), (r"bob@\S+'s password: ", password("gate")), (r"\[y/N\]", "n")]
    added = laptop.answer(dialogue, f"roost add gate bob@{addresses['gate']}")
    assert added.returncode == 0, added.stdout + added.stderr


def test_tunnels_are_there_again_after_a_login(laptop: Laptop, addresses: dict[str, str]) -> None:
    """The person's service manager starts the supervisor, which knows what was open."""
    add_gate(laptop, addresses)
    opened = laptop.run(
        "cd ~/work; roost tunnel open gate 2222:localhost:22 && roost tunnel autostart",
        check=False,
    )
    assert opened.returncode == 0, opened.stdout + opened.stderr

    reboot(laptop.box)

    # Nothing of roost is called here: the log-in alone brings the tunnel back.
    ask = f"python3 -c {shlex.quote(BANNER)}"
    shown = laptop.run(f"{ask}; systemctl --user is-active roost-tunnels.service", check=False)
    assert "it answers" in shown.stderr, shown.stdout + shown.stderr
    assert shown.stdout == "active\n"
    laptop.run(
        "cd ~/work && roost tunnel close gate && roost tunnel autostart --off"
        " && roost remove gate --take-key"
        " && ! systemctl --user list-unit-files 'roost*' --no-legend | grep ."
    )


def test_another_user_of_the_laptop_gets_at_nothing(
    laptop: Laptop, addresses: dict[str, str]
) -> None:
    """Neither sockets nor files nor ports."""
    install(laptop.box, "curl")
    # Their run-time folder would go with their last log-out.
    people = "id ben || useradd --create-home --shell /bin/bash ben; loginctl enable-linger ann"
    exec_in(laptop.box, ["sh", "-c", people])
    add_gate(laptop, addresses)
    opened = laptop.run(
        "cd ~/work; roost tunnel open gate ~/own.sock:localhost:22 2222:localhost:22"
        " && roost proxy gate --domain corp.example --json",
        check=False,
    )
    assert opened.returncode == 0, opened.stdout + opened.stderr

    # What keeps others out is what roost makes; homes are open on many systems.
    runtime = laptop.run("echo ${XDG_RUNTIME_DIR:-/tmp/roost-$(id -u)}").stdout.strip()
    folders = f"/home/ann /home/ann/.local /home/ann/.local/state {runtime}"
    exec_in(laptop.box, ["sh", "-c", f"chmod 755 {folders}"])
    find = f"find /home/ann {runtime} -path '*/tunnels/*' -o -name own.sock"
    things = exec_in(laptop.box, ["sh", "-c", find]).stdout.split()
    assert {"supervisor.sock", "own.sock", "wishes.json", "ports.json"} <= {
        Path(thing).name for thing in things
    }

    def ben(command: str, **more: str) -> process.Completed:
        return exec_in(laptop.box, ["su", "-", "ben", "-c", command], check=False, **more)

    touched = ben(f"python3 -c {shlex.quote(TOUCH)}", input="\n".join(things))
    assert touched.stdout == "[]\n", touched.stderr

    script = "curl -sS --noproxy '*' http://127.0.0.1:8158/proxy.pac"
    proxied = "curl -sS --socks5-hostname 127.0.0.1:8157 --http0.9 --max-time 60 localhost:22"
    port = "curl -sS --noproxy '*' --http0.9 --max-time 60 http://127.0.0.1:2222/"
    for command, shown in ((script, "corp.example"), (proxied, "SSH-2.0"), (port, "SSH-2.0")):
        assert shown in laptop.run(command, check=False).stdout, command
        refused = ben(command)
        # curl(1): nothing is said, the other end hung up, or the proxy is none.
        assert (refused.returncode in {52, 56, 97}, refused.stdout) == (command != script, "")
        assert shown in laptop.run(command, check=False).stdout, command
    laptop.run("cd ~/work && roost tunnel close gate && roost remove gate --take-key")
