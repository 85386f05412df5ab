"""Which engine is taken, what is asked of it, and what its failures mean."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from roost import process
from roost.errors import ProcessError, ProcessTimeoutError, SandboxError
from roost.sandbox import advice, boxes
from roost.sandbox.boxes import Private
from roost.sandbox.engine import Engine, find_engine
from roost.sandbox.image import Image
from roost.sandbox.releases import parse

Program = Callable[[str, str], Path]
IMAGE = Image("localhost/roost-box:debian-12-0123456789ab", parse("debian:12"))
PODMAN = """
case "$1" in
--version) echo "podman version 4.3.1" ;;
info) cat <<'JSON'
{info}
JSON
;;
esac
"""
DOCKER = """
case "$1" in
--version) echo "Docker version 28.2.2, build e6534b4" ;;
info) {info} ;;
esac
"""


def podman(rootless: bool = False, cgroups: str = "v1", runtime: str = "crun", **more: Any) -> str:
    host = {
        "security": {"rootless": rootless},
        "cgroupVersion": cgroups,
        "ociRuntime": {"name": runtime},
        **more,
    }
    return PODMAN.replace("{info}", json.dumps({"host": host}))


def docker(info: str) -> str:
    return DOCKER.replace("{info}", info)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment in which only the programs of the test are found."""
    path = str(tmp_path / "bin")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "cat").symlink_to("/bin/cat")
    monkeypatch.setenv("PATH", f"{path}:{tools}")
    return {"PATH": path}


def test_podman_comes_first(program: Program, path: dict[str, str]) -> None:
    program("podman", podman())
    program("docker", docker("echo 28.2.2 2"))
    engine = find_engine(path)
    assert (engine.kind, engine.direct, engine.cgroups) == ("podman", True, "v1")


def test_a_docker_client_without_a_daemon_is_no_engine(
    program: Program, path: dict[str, str]
) -> None:
    program("docker", docker("echo ' '; echo 'Cannot connect to the Docker daemon' >&2; exit 1"))
    with pytest.raises(SandboxError) as caught:
        find_engine(path)
    assert "podman is not installed" in str(caught.value.why)
    assert "docker does not work (Cannot connect to the Docker daemon)" in str(caught.value.why)
    assert "podman runc crun netavark aardvark-dns iptables" in str(caught.value.fix)


def test_a_daemon_that_does_not_answer_is_no_engine_though_its_client_is_content(
    program: Program, path: dict[str, str]
) -> None:
    program("docker", docker("echo"))
    with pytest.raises(SandboxError, match="none that works"):
        find_engine(path)


def test_the_user_chooses_the_engine(program: Program, path: dict[str, str]) -> None:
    program("podman", podman())
    chosen = program("docker", docker("echo 28.2.2 2"))
    engine = find_engine({**path, "ROOST_ENGINE": str(chosen)})
    assert (engine.kind, engine.direct, engine.cgroups) == ("docker", False, "v2")
    with pytest.raises(SandboxError) as caught:
        find_engine({**path, "ROOST_ENGINE": "nerdctl"})
    assert caught.value.why == "nerdctl is not installed"


def test_podman_under_dockers_name_is_podman(program: Program, path: dict[str, str]) -> None:
    program("docker", podman())
    assert find_engine(path).kind == "podman"


@pytest.mark.parametrize(
    ("info", "runc", "expected"),
    [
        (podman(cgroups="v1"), True, "runc"),
        (podman(cgroups="v1"), False, ""),
        (podman(cgroups="v2"), True, ""),
        (podman(cgroups="v1", runtime="runc"), True, ""),
        (podman(cgroups="v1", serviceIsRemote=True), True, ""),
    ],
)
def test_runc_is_asked_for_where_crun_refuses(
    info: str, runc: bool, expected: str, program: Program, path: dict[str, str]
) -> None:
    program("podman", info)
    if runc:
        program("runc", "exit 0")
    engine = find_engine(path)
    assert engine.runtime == expected
    assert engine.argv("ps") == ["podman", *(["--runtime", expected] if expected else []), "ps"]


@pytest.mark.parametrize("more", [{"rootless": True}, {"serviceIsRemote": True}])
def test_containers_that_this_side_cannot_reach_publish_their_port(
    more: dict[str, Any], program: Program, path: dict[str, str]
) -> None:
    program("podman", podman(**more))
    assert not find_engine(path).direct


class Recorder:
    """Stands in for ``process.run``: remembers what was run, answers what it is told to."""

    def __init__(self, answers: dict[str, str] | None = None) -> None:
        self.calls: list[list[str]] = []
        self.answers = answers or {}

    def __call__(self, argv: Sequence[str], **kwargs: Any) -> process.Completed:
        self.calls.append(list(argv))
        return process.Completed(tuple(argv), 0, self.answers.get(argv[1], ""), "")


def created(kind: str, *, direct: bool, private: Private | None = None) -> list[str]:
    network = json.dumps([{"subnets": [{"subnet": "10.88.0.0/16"}]}])
    recorder = Recorder({"network": network})
    engine = Engine(kind, kind, direct=direct, cgroups="v2", run=recorder)
    boxes.create(engine, "/state/sandbox/default", "gpu1", IMAGE, groups=["a"], private=private)
    return recorder.calls[-1]


def test_a_box_keeps_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = created("podman", direct=True), created("podman", direct=True)
    assert first == second
    address = first[first.index("--ip") + 1]
    octets = [int(word) for word in address.split(".")]
    assert octets[:2] == [10, 88] and octets[2] >= 128
    hardware = first[first.index("--mac-address") + 1]
    assert hardware == "02:00:" + ":".join(f"{octet:02x}" for octet in octets)


def test_a_box_of_a_rootless_engine_publishes_its_port_on_the_loopback() -> None:
    argv = created("podman", direct=False)
    assert argv[argv.index("--publish") + 1] == "127.0.0.1::22"
    assert "--ip" not in argv and "--systemd=always" in argv


def test_docker_gets_less_than_all_privileges() -> None:
    argv = created("docker", direct=False)
    assert "--cap-add=SYS_ADMIN" in argv and "--privileged" not in argv
    assert "--ulimit" not in argv and "--systemd=always" not in argv
    assert argv[-3:-1] == ["sh", "-c"] and argv[-1].endswith("exec /sbin/init")


def test_a_private_box_has_no_network_of_its_own() -> None:
    argv = created("podman", direct=True, private=Private("gate", "10.99.0.2"))
    assert argv[argv.index("--network") + 1] == "none"
    assert "--publish" not in argv and "roost.sandbox.via=gate" in argv


def test_a_container_that_does_not_start_is_removed() -> None:
    calls: list[list[str]] = []

    def fail(argv: Sequence[str], **kwargs: Any) -> process.Completed:
        calls.append(list(argv))
        if argv[1] == "run":
            raise ProcessError("failed", returncode=126, stderr="setrlimit `RLIMIT_NPROC`: no")
        return process.Completed(tuple(argv), 0, "", "")

    engine = Engine("podman", "podman", direct=False, cgroups="v2", run=fail)
    with pytest.raises(SandboxError, match="higher resource limits"):
        boxes.create(engine, "/state", "gpu1", IMAGE)
    assert calls[-1][1] == "rm" and calls[-1][-1] == boxes.container_name("/state", "gpu1")


@pytest.mark.parametrize(
    ("hard", "nproc", "nofile"),
    [
        ((96365, 20000), 32768, 20000),
        ((4096, 1024), 4096, 1024),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 32768, 1048576),
    ],
)
def test_no_more_is_asked_for_than_may_be_had(
    hard: tuple[int, int], nproc: int, nofile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {resource.RLIMIT_NPROC: hard[0], resource.RLIMIT_NOFILE: hard[1]}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (0, limits[which]))
    engine = Engine("podman", "podman", direct=True, cgroups="v1")
    assert engine.limits() == [
        "--ulimit", f"nproc={nproc}:{nproc}", "--ulimit", f"nofile={nofile}:{nofile}",
    ]  # fmt: skip


# What engines really say, in their own words.
SAID = [
    ("Error: OCI runtime error: crun: cgroups in hybrid mode not supported, drop all controllers "
     "from cgroup v1 unless you want to use cgroup v1", "install -y runc"),
    ("Error: OCI runtime error: runc: runc create failed: unable to start container process: "
     "error during container init: error setting rlimits for container: setrlimit `RLIMIT_NPROC`: "
     "Operation not permitted", "raise the hard limits"),
    ('Error: netavark: code: 3, msg: iptables: No such file or directory; exec: "iptables": '
     "executable file not found in $PATH", "install -y iptables"),
    ('Error: could not find "netavark" in one of {[/usr/local/libexec/podman]}.', "netavark"),
    ("Error: could not find slirp4netns, the network namespace can't be configured: exec: "
     '"slirp4netns": executable file not found in $PATH', "slirp4netns passt"),
    ('Error: cannot set up namespace using "/usr/bin/newuidmap": exit status 1', "uidmap"),
    ("Error: writing blob: no space left on device", "down --purge"),
    ("permission denied while trying to connect to the Docker daemon socket at "
     "unix:///var/run/docker.sock", "group docker"),
    ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon "
     "running?", "systemctl start docker"),
    ("Error: crun: mount `proc` to `proc`: Operation not permitted: OCI permission denied",
     "on the machine itself"),
    ("Error: something new", "podman info"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "mends"), SAID)
def test_a_failure_comes_with_what_mends_it(said: str, mends: str) -> None:
    error = ProcessError("podman failed", returncode=125, stderr=said + "\n")
    explained = advice.explain(error, "podman", "run")
    assert mends in str(explained.fix)
    assert said.rsplit(maxsplit=1)[-1] in str(explained.why)


def test_an_engine_that_hangs_is_named() -> None:
    error = ProcessTimeoutError("podman did not end within 60 s")
    explained = advice.explain(error, "podman", "ps")
    assert "did not end within 60 s" in explained.what


def test_how_to_install_an_engine_depends_on_the_system() -> None:
    assert advice.install_engine("linux", 0).startswith("apt-get install")
    assert advice.install_engine("linux", 1000).startswith("sudo apt-get install")
    assert advice.install_engine("darwin", 501).startswith("brew install podman")
