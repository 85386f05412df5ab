"""The role jupyter on real boxes: cells compute, nobody else gets in, and nothing is lost."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cli import roost
from roles import wait_for
from websockets.sync.client import connect
from workbench import (
    PEOPLE,
    as_person,
    listeners,
    main_pid,
    play,
    provision,
    root,
    token_of,
    tunnel,
)

from boxes import LiveBox, exec_in
from roost import notebook
from roost.notebook import Kernel, NotebookServer, TokenRefusedError

pytestmark = [pytest.mark.box]

SOCKETS = "/run/roost-jupyter"


@pytest.fixture
def bench(shared_box: Callable[..., LiveBox]) -> LiveBox:
    return shared_box("workbench-debian-12", provision, os="debian:12")


def test_doctor_says_whether_notebooks_lose_nothing(bench: LiveBox) -> None:
    fine = roost(bench, "doctor", bench.name).stdout
    assert "ok       box notebooks: what cells print with nobody there is kept" in fine
    own = "c.KeeperExtension.pretend = {'pycrdt': '99.0'}\n"
    restart = "sudo -n systemctl restart roost-jupyter@debian.service"
    as_person(bench, "debian", "mkdir -p ~/.jupyter")
    exec_in(bench, ["tee", "/home/debian/.jupyter/jupyter_server_config.py"], input=own)
    try:
        as_person(bench, "debian", restart)
        with tunnel(bench, "debian") as server, server.kernel() as kernel:
            assert kernel.execute("6 * 7").result == "42"  # it serves all the same
        stock = roost(bench, "doctor", bench.name).stdout
        assert "warning  box notebooks: " in stock and "not tried with pycrdt 99.0" in stock
    finally:
        as_person(bench, "debian", f"rm -r ~/.jupyter; {restart}")


def test_second_run_and_check_find_nothing_to_do(bench: LiveBox) -> None:
    for words in ((), ("--check",)):
        again = play(bench, ["jupyter"], *words)
        assert (again.returncode, again.changed) == (0, []), again.text


def test_nobody_else_reaches_socket_token_kernels_or_process(bench: LiveBox) -> None:
    with tunnel(bench, "ann") as server, server.kernel() as kernel:
        pid = int(kernel.execute("import os; secret = 'only in memory'; os.getpid()").result)
        ipc = root(bench, f"ls {SOCKETS}/ann").split()
        assert len([name for name in ipc if "-ipc-" in name]) == 5
        attempts = [
            f"ls {SOCKETS}/ann",
            f"cat {SOCKETS}/ann/jupyter.sock",
            "cat /var/lib/roost-jupyter/ann/token",
            "ls /var/lib/roost-jupyter/ann",
            f"cat /proc/{pid}/environ",
            f"cat /proc/{main_pid(bench, 'ann')}/environ",
            f"cat /proc/{pid}/mem",
            "sudo -n systemctl restart roost-jupyter@ann.service",
            *(f"cat {SOCKETS}/ann/{name}" for name in ipc),
        ]
        for attempt in attempts:
            done = as_person(bench, "bob", attempt, check=False)
            assert done.returncode != 0 and done.stdout == "", attempt
        connecting = f"import socket; socket.socket(socket.AF_UNIX).connect('{SOCKETS}/ann/{{}}')"
        for name in ["jupyter.sock", *(n for n in ipc if "-ipc-" in n)]:
            done = as_person(bench, "bob", f'python3 -c "{connecting.format(name)}"', check=False)
            assert "PermissionError" in done.stderr, name
        # No secret is in anybody's argument list.
        assert token_of(bench, "ann") not in as_person(bench, "bob", "ps -eo args").stdout

        assert listeners(bench, main_pid(bench, "ann")) == []
        # ipykernel opens one loopback port, a pipe for the output of its child processes. It takes
        # messages that begin with 16 random bytes of its own, and gives nothing.
        ports = listeners(bench, pid)
        assert len(ports) <= 1 and all(port.startswith("0100007F:") for port in ports)
        for port in ports:
            number = int(port.split(":")[1], 16)
            talk = (
                "import socket; s = socket.create_connection(('127.0.0.1', %d)); s.settimeout(2); "
                "s.sendall(b'\\xff\\0\\0\\0\\0\\0\\0\\0\\1\\x7f'); print(len(s.recv(64)))"
            )
            as_person(bench, "bob", f'python3 -c "{talk % number}"', check=False)
        assert kernel.execute("secret").result == "'only in memory'"


def test_a_console_attaches_to_a_running_kernel(bench: LiveBox) -> None:
    trust = "export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"
    get = "uv pip install -q --python ~/console/bin/python jupyter-console"
    as_person(bench, "ann", f"{trust}; uv venv -q --clear ~/console && {get}")
    console = "~/console/bin/jupyter console --simple-prompt --existing"
    with tunnel(bench, "ann") as server, server.kernel() as kernel:
        kernel.execute("kept = 41")
        # JupyterLab's own terminals have that variable.
        ask = f"echo 'kept + 1' | JUPYTER_RUNTIME_DIR={SOCKETS}/ann {console}"
        assert "42" in as_person(bench, "ann", ask).stdout
        assert kernel.execute("kept").result == "41"
    as_person(bench, "ann", "rm -r ~/console")


def test_the_token_is_needed_all_the_same(bench: LiveBox) -> None:
    with tunnel(bench, "ann") as server, pytest.raises(TokenRefusedError):
        NotebookServer(server.base_url, token_of(bench, "bob")).status()
    for person in PEOPLE:
        assert re.fullmatch(r"[0-9a-f]{48}", token_of(bench, person))
    modes = f"stat -c '%a %U' {SOCKETS}/ann/jupyter.sock /var/lib/roost-jupyter/ann/token"
    assert root(bench, modes).split() == ["600", "ann", "600", "ann"]


def test_nobody_is_asked_about_news(bench: LiveBox) -> None:
    plugin = "@jupyterlab/apputils-extension:notification"
    with tunnel(bench, "ann") as server:
        said = server._request("GET", f"/lab/api/settings/{plugin}")
    assert said["schema"]["properties"]["fetchNews"]["default"] == "false"


def test_what_a_server_and_its_kernels_use_is_shown(bench: LiveBox) -> None:
    with tunnel(bench, "ann") as server:
        told = server._request("GET", "/api/metrics/v1")
        page = server._request("GET", "/lab/api/extensions")
    assert told["rss"] > 0 and told["cpu_percent"] >= 0
    shown = {e["name"]: e["enabled"] for e in page}
    assert shown["@jupyter-server/resource-usage"]


def test_a_terminal_works_and_leads_nobody_to_root(bench: LiveBox) -> None:
    with tunnel(bench, "debian") as server:
        name = server._request("POST", "/api/terminals")["name"]
        address = f"{server.base_url.replace('http', 'ws', 1)}/terminals/websocket/{name}"
        with connect(address, additional_headers=server._headers, proxy=None) as terminal:
            terminal.send(json.dumps(["stdin", "id -un; sudo -n id -u; echo over$((1+1))\r"]))
            shown, deadline = "", time.monotonic() + 20
            while "over2" not in shown:
                frame = json.loads(terminal.recv(timeout=deadline - time.monotonic()))
                shown += str(frame[1]) if frame[0] == "stdout" else ""
        server._request("DELETE", f"/api/terminals/{name}")
    assert "debian" in shown
    assert "no new privileges" in shown


@contextmanager
def running(server: NotebookServer, code: str) -> Iterator[Kernel]:
    """A kernel that works on ``code`` while the block runs."""
    with server.kernel() as kernel, server.connect(kernel.id, "test") as socket:
        message = notebook._execute_request(code, "test")
        socket.send(json.dumps(message))

        def busy() -> bool:
            states = {k["id"]: k["execution_state"] for k in server.running_kernels()}
            return states[kernel.id] == "busy"

        wait_for(busy, "a busy kernel")
        yield kernel


def changed_tasks(outcome: Any) -> set[str]:
    return set(outcome.changed)


def test_a_server_in_use_is_not_restarted_and_a_later_run_does_it(bench: LiveBox) -> None:
    files, services = "Place configuration, unit and limits", "Start what is missing"
    before = {person: main_pid(bench, person) for person in PEOPLE}
    setting = {"jupyter_environment": {"PROJECT_DATA": "/srv/data"}}
    with tunnel(bench, "ann") as server, running(server, "import time; time.sleep(600)"):
        done = play(bench, ["jupyter"], **setting)
        assert done.returncode == 0, done.text
        assert files in done.changed and any(t.startswith(services) for t in done.changed)
        assert "roost-jupyter@ann.service is to be restarted, and is in use" in done.text
        assert "1 kernels (1 busy)" in done.text
        assert main_pid(bench, "ann") == before["ann"]
        assert main_pid(bench, "bob") != before["bob"]
        # Still due, and still not done: nothing changes.
        assert play(bench, ["jupyter"], **setting, jupyter_restart="idle").changed == []
    done = play(bench, ["jupyter"], **setting)
    assert any(task.startswith(services) for task in done.changed)
    assert main_pid(bench, "ann") != before["ann"]
    with tunnel(bench, "ann") as server, server.kernel() as kernel:
        assert kernel.execute("import os; os.environ['PROJECT_DATA']").result == "'/srv/data'"
    assert play(bench, ["jupyter"]).returncode == 0


def test_an_upgrade_switches_at_once_and_can_be_taken_back(bench: LiveBox) -> None:
    current = "readlink /opt/roost/jupyter/current"
    first = root(bench, current)
    failing = play(bench, ["jupyter"], jupyter_extensions=["no-such-extension-of-anybody"])
    assert failing.returncode == 2
    assert "no-such-extension-of-anybody" in failing.text and "Traceback" not in failing.text
    assert root(bench, current) == first

    upgrade: dict[str, Any] = {"jupyter_extensions": ["six"]}
    with tunnel(bench, "ann") as server, server.kernel() as kernel:
        kernel.execute("kept = 41")
        assert play(bench, ["jupyter"], **upgrade).returncode == 0
        second = root(bench, current)
        assert second != first
        assert kernel.execute("kept + 1").result == "42"  # on the old release, undisturbed
    assert play(bench, ["jupyter"], **upgrade).returncode == 0
    assert second.strip() in root(bench, f"cat /proc/{main_pid(bench, 'ann')}/cmdline")
    back = play(bench, ["jupyter"], **upgrade, jupyter_rollback=True)
    assert back.returncode == 0, back.text
    assert root(bench, current) == first
    assert play(bench, ["jupyter"], **upgrade, jupyter_rollback=True).changed == []
    # A build that broke off is made anew, and what nobody uses any more goes.
    root(bench, f"rm /opt/roost/jupyter/{second.strip()}/roost-complete")
    assert play(bench, ["jupyter"]).returncode == 0
    assert root(bench, current) == first


def test_limits_of_all_and_of_one(bench: LiveBox) -> None:
    # The kernel of the test machine may not enforce them; what systemd was told is asked.
    limits: dict[str, Any] = {
        "jupyter_memory_max": "8G",
        "jupyter_cpu_quota": "400%",
        "jupyter_limits_people": {"ann": {"memory_max": "16G", "tasks_max": "2000"}},
        "jupyter_restart": "never",
    }

    def told(person: str) -> dict[str, str]:
        names = "MemoryMax,CPUQuotaPerSecUSec,TasksMax,OOMPolicy"
        lines = root(bench, f"systemctl show roost-jupyter@{person} -p {names}").split()
        return dict(line.split("=", 1) for line in lines)

    assert play(bench, ["jupyter"], **limits).returncode == 0
    assert told("ann") == {
        "MemoryMax": "17179869184",
        "CPUQuotaPerSecUSec": "4s",
        "TasksMax": "2000",
        "OOMPolicy": "continue",
    }
    assert (told("bob")["MemoryMax"], told("bob")["CPUQuotaPerSecUSec"]) == ("8589934592", "4s")
    assert play(bench, ["jupyter"]).returncode == 0
    assert told("ann")["MemoryMax"] == told("ann")["CPUQuotaPerSecUSec"] == "infinity"
    assert root(bench, "ls -d /etc/systemd/system/roost-jupyter@ann.service.d/* || true") == ""


def test_culling_ends_the_idle_kernel_and_never_the_busy_one(bench: LiveBox) -> None:
    # Not shorter: a kernel that has just started is idle until somebody connects to it.
    shortly = {"jupyter_cull_idle": 5, "jupyter_cull_connected": True}
    assert play(bench, ["jupyter"], **shortly).returncode == 0
    with tunnel(bench, "bob") as server, running(server, "while True: pass") as busy:
        # As the sidebar does that shows a kernel's memory; the answer's end is not the cell's.
        with server.connect(busy.id, "aside") as aside:
            ask = notebook._execute_request("", "aside")
            header = ask["header"] | {"msg_type": "usage_request"}
            aside.send(json.dumps(ask | {"header": header, "content": {}, "channel": "control"}))
            while "usage_reply" not in str(aside.recv(timeout=60)):
                pass
        with server.kernel() as idle:
            idle.execute("1")
            ids = lambda: {k["id"] for k in server.running_kernels()}  # noqa: E731
            wait_for(lambda: idle.id not in ids(), "the idle kernel culled")
        assert busy.id in ids()
    assert play(bench, ["jupyter"]).returncode == 0


def test_a_persons_own_settings_win_and_stay(bench: LiveBox) -> None:
    own = 'c.ServerApp.root_dir = "/home/ann/only-this"\nc.ServerApp.port = 8888\n'
    as_person(bench, "ann", "mkdir -p ~/.jupyter ~/only-this && touch ~/only-this/here.txt")
    exec_in(bench, ["tee", "/home/ann/.jupyter/jupyter_server_config.py"], input=own)
    # Their own server is theirs to restart, and nobody else's.
    as_person(bench, "ann", "sudo -n systemctl restart roost-jupyter@ann.service")
    with tunnel(bench, "ann") as server:
        names = [entry["name"] for entry in server._request("GET", "/api/contents")["content"]]
        assert names == ["here.txt"]
        assert listeners(bench, main_pid(bench, "ann")) == []
    assert root(bench, "cat /home/ann/.jupyter/jupyter_server_config.py") == own
    as_person(
        bench, "ann", "rm -r ~/.jupyter ~/only-this; sudo -n systemctl restart roost-jupyter@ann"
    )


def test_without_uv_pip_builds_the_release(shared_box: Callable[..., LiveBox]) -> None:
    box = shared_box("workbench-debian-13", provision, os="debian:13")
    by_pip: dict[str, Any] = {"jupyter_uv": "", "jupyter_extensions": ["six"]}
    done = play(box, ["jupyter"], **by_pip)
    assert done.returncode == 0, done.text
    assert "uv = " not in root(box, "cat /opt/roost/jupyter/current/pyvenv.cfg")
    assert play(box, ["jupyter"], **by_pip).changed == []
    current = root(box, "readlink /opt/roost/jupyter/current").strip()
    assert current in root(box, f"cat /proc/{main_pid(box, 'bob')}/cmdline")
    with tunnel(box, "bob") as server, server.kernel() as kernel:
        assert kernel.execute("6 * 7").result == "42"
        assert server._request("GET", "/api/keeper")["active"]
    assert play(box, ["jupyter"]).returncode == 0
