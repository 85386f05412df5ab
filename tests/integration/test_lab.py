"""``roost lab`` against a real JupyterLab on its Unix socket."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import workbench
from cli import ROOST, roost, root
from tunnel_rig import carriers, supervisors, tunnels, wait_for, way

from boxes import LiveBox
from roost import lab, process
from roost.browser import open_secret
from roost.errors import ExitCode, RoostError
from roost.notebook import NotebookServer
from roost.paths import Paths
from roost.tunnels import Tunnels

__all__ = ["tunnels"]
pytestmark = pytest.mark.box


@pytest.fixture(scope="module")
def box(shared_box: Callable[..., LiveBox]) -> LiveBox:
    return shared_box("workbench-debian-12", workbench.provision, os="debian:12")


@pytest.fixture(scope="module")
def other(shared_box: Callable[..., LiveBox]) -> LiveBox:
    return shared_box("workbench-debian-13", workbench.provision, os="debian:13")


def connect(box: LiveBox) -> lab.Lab:
    reach = way(box)
    return lab.connect(
        reach.box,
        reach.config,
        paths=Paths.from_environment(os.environ),
        environ=dict(os.environ),
        fleet=reach.fleet,
    )


def test_prints_an_address_that_opens_it(box: LiveBox, tunnels: Tunnels) -> None:
    done = roost(box, "lab", box.name, "--print-url")

    found = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/lab\?token=(\w+)\n", done.stdout)
    assert found, done.stderr
    assert NotebookServer(found[1], found[2]).status()["kernels"] >= 0
    with NotebookServer(found[1], found[2]).kernel() as kernel:
        assert kernel.execute("6 * 7").result == "42"


def test_starts_a_server_that_is_stopped(box: LiveBox, tunnels: Tunnels) -> None:
    workbench.root(box, "systemctl stop roost-jupyter@debian")

    found = connect(box)

    assert NotebookServer(f"http://127.0.0.1:{found.port}", found.token).status()


def test_the_port_is_the_same_as_ever(box: LiveBox, tunnels: Tunnels) -> None:
    first = connect(box).port
    again = connect(box).port
    tunnels.close([s.id for s in tunnels.list()])
    later = connect(box).port
    tunnels.close([s.id for s in tunnels.list()])
    with socket.create_server(("127.0.0.1", first)):
        taken = connect(box)

    assert first == again == later
    assert taken.port != first
    assert f"port {first} is taken by" in taken.note
    assert f"process {os.getpid()}" in taken.note


def test_several_at_once_each_on_a_port_of_its_own(
    box: LiveBox, other: LiveBox, tunnels: Tunnels
) -> None:
    release = "import platform; platform.freedesktop_os_release()['VERSION_ID']"
    opened = {"12": connect(box), "13": connect(other)}
    for version, found in opened.items():
        with NotebookServer(f"http://127.0.0.1:{found.port}", found.token).kernel() as kernel:
            assert kernel.execute(release).result == repr(version)
    assert [s.label for s in tunnels.list()] == ["lab", "lab"]

    tunnels.close([s.id for s in tunnels.list()])
    # In the other order: each gets its own port again, not the first that is free.
    later = {"13": connect(other), "12": connect(box)}

    assert {version: found.port for version, found in later.items()} == {
        version: found.port for version, found in opened.items()
    }
    assert opened["12"].port != opened["13"].port


def test_the_token_is_nowhere_to_be_seen(box: LiveBox, tunnels: Tunnels, tmp_path: Path) -> None:
    """Not in an argument of any process, nor in a file on this side, while the browser starts."""
    token = workbench.token_of(box, "debian")
    seen, go_on = tmp_path / "seen", tmp_path / "go-on"
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\necho "$@" >{seen}.new; mv {seen}.new {seen}\n'
        f"while [ ! -e {go_on} ]; do sleep 0.05; done\n"
        f'curl -s -o /dev/null -w "%{{redirect_url}}" "$1" >{tmp_path}/led-to\n'
    )
    browser.chmod(0o700)
    environ = {**os.environ, "BROWSER": str(browser)}
    command = [ROOST, "-w", root(box), "lab", box.name]

    with process.start(command, env=environ, stderr=subprocess.STDOUT) as running:
        wait_for(seen.exists)
        arguments = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if _readable(p)]
        go_on.touch()
        said, _ = running.communicate(timeout=60)

    assert running.returncode == 0, said
    wait_for(lambda: token in (tmp_path / "led-to").read_text())
    assert not any(token.encode() in a for a in arguments)
    assert token not in said
    assert token not in seen.read_text()
    home, runtime = Path(os.environ["HOME"]), Path(os.environ["XDG_RUNTIME_DIR"])
    for file in [*home.rglob("*"), *runtime.rglob("*")]:
        assert not file.is_file() or token.encode() not in file.read_bytes(), file


def _readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def test_the_page_leads_nobody_else_on(tmp_path: Path) -> None:
    """Another user of this machine reads the address from the process list, and asks first."""
    if os.getuid() != 0:
        pytest.fail("needs root, to be somebody else")
    stranger, owner = tmp_path / "stranger", tmp_path / "owner"
    curl = 'curl -s -o /dev/null -w "%{http_code} %{redirect_url}" "$1"'
    browser = tmp_path / "browser"
    browser.write_text(
        "#!/bin/sh\n"
        f"setpriv --reuid=65534 --regid=65534 --clear-groups {curl} >{stranger}\n"
        f"{curl} >{owner}.new; mv {owner}.new {owner}\n"
    )
    browser.chmod(0o700)

    open_secret("http://127.0.0.1:1/lab?token=secret", {**os.environ, "BROWSER": str(browser)})

    wait_for(owner.exists)
    assert stranger.read_text().split() == ["404"]
    assert owner.read_text().split() == ["303", "http://127.0.0.1:1/lab?token=secret"]


def test_the_port_opens_nothing_to_anybody_else(box: LiveBox, tunnels: Tunnels) -> None:
    """Not even with the token; and nothing to anybody without it."""
    if os.getuid() != 0:
        pytest.fail("needs root, to be somebody else")
    found = connect(box)
    stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

    def asked(path: str, *more: str, prefix: Sequence[str] = ()) -> str:
        curl = [*prefix, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *more]
        return process.run([*curl, f"http://127.0.0.1:{found.port}{path}"], check=False).stdout

    # Whoever asks for a page is led to the question for the token.
    pages = dict.fromkeys(("/lab", "/files/notebook.ipynb"), "302")
    refused = dict.fromkeys(("/api/contents", "/api/kernels", "/api/terminals"), "403") | pages
    for path, code in refused.items():
        assert asked(path) == code, path
        assert asked(path, "-H", "Authorization: token wrong") == code, path
        right = ("-H", f"Authorization: token {found.token}")
        assert asked(path, *right) in {"200", "404"}, path
        assert asked(path, *right, prefix=stranger) == "000", path


def test_a_kernel_computes_on_while_the_connection_is_cut(box: LiveBox, tunnels: Tunnels) -> None:
    found = connect(box)
    server = NotebookServer(f"http://127.0.0.1:{found.port}", found.token)
    with server.kernel() as kernel:
        kernel.execute(
            "import threading, time\n"
            "ticks = []\n"
            "def tick():\n"
            "    while True: ticks.append(time.time()); time.sleep(0.1)\n"
            "threading.Thread(target=tick, daemon=True).start()"
        )
        # Only this connection is cut: others use the box, too.
        [carrier] = carriers(tunnels)
        os.kill(carrier, signal.SIGSTOP)
        began = time.time()
        wait_for(lambda: carrier not in carriers(tunnels))
        ended = time.time()
        server.wait_until_ready(timeout=60)
        inside = kernel.execute(f"sum({began} < t < {ended} for t in ticks)").result

    assert int(inside) > (ended - began) * 2


def test_output_goes_on_after_a_short_cut(box: LiveBox, tunnels: Tunnels) -> None:
    """The same WebSocket: a second without the network loses no line."""
    found = connect(box)
    with NotebookServer(f"http://127.0.0.1:{found.port}", found.token).kernel() as kernel:
        [carrier] = carriers(tunnels)

        def cut() -> None:
            time.sleep(1)  # until lines come
            os.kill(carrier, signal.SIGSTOP)
            time.sleep(1)  # the fault itself
            os.kill(carrier, signal.SIGCONT)

        fault = threading.Thread(target=cut)
        fault.start()
        done = kernel.execute("import time\nfor i in range(40): print(i); time.sleep(0.1)")
        fault.join()

    assert done.text.split() == [str(i) for i in range(40)]
    assert carriers(tunnels) == [carrier]


def test_no_jupyterlab_on_the_box(
    sandbox_factory: Callable[..., dict[str, LiveBox]], tunnels: Tunnels
) -> None:
    bare = sandbox_factory("bare")["bare"]

    with pytest.raises(RoostError, match="no JupyterLab on bare") as missing:
        connect(bare)
    done = roost(bare, "lab", "bare")

    assert "roost up bare" in str(missing.value.fix)
    assert done.returncode == ExitCode.FAILED
    assert not supervisors(tunnels)
