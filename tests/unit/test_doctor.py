"""What the doctor says about machines that are not this one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from roost import process
from roost.cli.main import main
from roost.doctor import examine
from roost.doctor_facts import Facts, Key, gather
from roost.errors import ExitCode
from roost.model import Fleet
from roost.paths import Paths
from roost.workspace import Workspace

HEALTHY = Facts()
ME = Path("/home/me")
KEY = Key(ME / ".ssh/id_ed25519", 0o600, True, "256 SHA256:x me@here (ED25519)")


def levels(facts: Facts) -> set[tuple[str, str]]:
    return {(f.subject, f.level) for f in examine(facts) if f.level != "ok"}


def test_a_healthy_machine_has_nothing_to_mend() -> None:
    assert levels(HEALTHY) == set()
    assert levels(replace(HEALTHY, keys=(KEY,))) == set()
    assert len(examine(HEALTHY)) >= 5


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"ssh": ""}, ("ssh", "error")),
        ({"ssh": "OpenSSH_8.6p1, LibreSSL 3.3.6"}, ("ssh", "error")),
        ({"key_types": ("ssh-ed25519",)}, ("ssh", "note")),
        ({"rsync": ""}, ("rsync", "error")),
        ({"rsync": "openrsync: protocol version 29"}, ("rsync", "warning")),
        ({"rsync": "rsync  version 2.6.9  protocol version 29"}, ("rsync", "warning")),
        ({"python": (3, 10, 4)}, ("python", "error")),
        ({"ansible": "2.18.3"}, ("ansible", "error")),
        ({"ansible": ""}, ("ansible", "error")),
        ({"encoding": "ansi_x3.4-1968"}, ("locale", "error")),
        ({"home": (Path("/tmp/x"), ME)}, ("home", "warning")),
        ({"folder": 0o777}, ("~/.ssh", "error")),
        ({"config": 0o664}, ("~/.ssh/config", "error")),
        ({"keys": (replace(KEY, mode=0o644),)}, ("key", "error")),
        ({"keys": (replace(KEY, has_public=False, kind=""),)}, ("key", "note")),
        ({"keys": (replace(KEY, kind="1024 SHA256:x (RSA)"),)}, ("key", "warning")),
        ({"keys": (replace(KEY, kind="1024 SHA256:x (DSA)"),)}, ("key", "warning")),
        ({"agent": None}, ("agent", "note")),
        ({"agent": -1}, ("agent", "warning")),
        ({"agent": 9}, ("agent", "warning")),
        ({"control_dir": None}, ("control path", "warning")),
        ({"doors": False}, ("tunnels", "note")),
        ({"workspace": (ME / "w", 0o777)}, ("workspace", "warning")),
        ({"kernel": "5.15.0-microsoft-standard-WSL2"}, ("WSL", "note")),
        ({"kernel": "4.4.0-Microsoft", "workspace": (Path("/mnt/c/w"), 0o755)}, ("WSL", "warning")),
        ({"kernel": "4.4.0-Microsoft", "home": (Path("/mnt/c/me"),) * 2}, ("WSL", "error")),
        ({"platform": "darwin"}, ("macOS", "note")),
    ],
)
def test_each_trouble_is_found_and_mended(
    changes: dict[str, object], found: tuple[str, str]
) -> None:
    facts = replace(HEALTHY, **changes)  # type: ignore[arg-type]
    assert found in levels(facts)
    for finding in examine(facts):
        if finding.level in {"error", "warning"}:
            assert finding.fix, finding


def test_this_machine_is_looked_at(paths: Paths, home: Path, tmp_path: Path) -> None:
    folder = home / ".ssh"
    folder.mkdir(mode=0o700)
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "mine"])
    (folder / "mine").chmod(0o640)
    (folder / "config").touch(mode=0o600)
    environ = dict(os.environ) | {"SSH_AUTH_SOCK": str(tmp_path / "nobody-listens")}
    facts = gather(paths, environ, home, None)
    assert facts.ssh.startswith("OpenSSH_")
    assert "version" in facts.rsync
    assert facts.ansible.startswith("2.")
    assert facts.agent == -1
    assert (facts.folder, facts.config) == (0o700, 0o600)
    (key,) = facts.keys
    assert (key.path.name, key.mode, key.has_public) == ("mine", 0o640, True)
    assert "(ED25519)" in key.kind
    fixes = [f.fix for f in examine(facts) if f.subject == "key"]
    process.run(fixes[0].split())
    assert ("key", "error") not in levels(gather(paths, environ, home, None))


def test_an_agent_is_asked(paths: Paths, home: Path, tmp_path: Path) -> None:
    socket = tmp_path / "a"
    with process.start(["ssh-agent", "-D", "-a", socket]) as agent:
        try:
            environ = dict(os.environ) | {"SSH_AUTH_SOCK": str(socket)}
            key = tmp_path / "key"
            process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
            while not socket.exists():
                assert agent.poll() is None
            assert gather(paths, environ, home, None).agent == 0
            process.run(["ssh-add", "-q", key], env=environ)
            assert gather(paths, environ, home, None).agent == 1
        finally:
            agent.terminate()


def test_the_verb_names_what_is_missing_and_changes_nothing(
    load: Callable[..., Fleet],
    workspace: Workspace,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    load("all: {hosts: {gpu1: {ansible_host: 192.0.2.1}}}\n")
    (home / ".ssh").mkdir(mode=0o755)
    (home / ".ssh" / "config").write_text("Host *\n")
    before = _everything(home) | _everything(workspace.root)

    code = main(["-w", str(workspace.root), "doctor", "--json"])

    found = {(f["subject"], f["level"]): f for f in json.loads(capsys.readouterr().out)}
    assert found["host key", "warning"]["fix"] == "roost add gpu1"
    assert found["workspace", "ok"]["text"].endswith(": 1 box")
    levels = [level for _, level in found]
    assert (code == ExitCode.FAILED) is ("error" in levels)
    order = ["error", "warning", "note", "ok"]
    assert levels == sorted(levels, key=order.index)
    after = _everything(home) | _everything(workspace.root)
    made = {p.relative_to(workspace.root).parts[0] for p in after.keys() - before.keys()
            if p.is_relative_to(workspace.root)}  # fmt: skip
    assert made <= {".roost"}
    assert {p: data for p, data in after.items() if p in before} == before


def test_the_way_to_a_box_is_a_finding(
    load: Callable[..., Fleet], workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    load(
        "all: {hosts: {misspelt: {ansible_host: nowhere.invalid},"
        " shut: {ansible_host: 127.0.0.1, ansible_port: 9}}}\n"
    )
    code = main(["-w", str(workspace.root), "doctor", "--json", "misspelt", "shut"])
    assert code == ExitCode.FAILED
    found = {f["subject"]: f for f in json.loads(capsys.readouterr().out) if f["level"] == "error"}
    assert "has a name that nobody knows" in found["misspelt"]["text"]
    assert "refuses the connection" in found["shut"]["text"]
    assert "ansible_host" in found["misspelt"]["fix"] and "ansible_port" in found["shut"]["fix"]


def _everything(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
