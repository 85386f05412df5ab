"""``roost doctor BOX``: what is broken on a real box is found, and mended where that is safe."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import workbench
from cli import roost, set_variables
from roles import wait_for

from boxes import LiveBox, exec_in
from roost import process

pytestmark = [pytest.mark.box, pytest.mark.long]

LEFT_OVER = "roost-jupyter@nobody-there.service"
KERNELS = "/home/debian/.local/share/jupyter/kernels"
# A package that is unpacked and not configured is what a cut-off installation leaves behind.
HALF_INSTALLED = """
mkdir -p /tmp/half/DEBIAN
printf 'Package: half\nVersion: 1\nArchitecture: all\nMaintainer: me <me@localhost>\n' \
    >/tmp/half/DEBIAN/control
printf 'Description: half installed\n' >>/tmp/half/DEBIAN/control
dpkg-deb --build /tmp/half /tmp/half.deb && dpkg --unpack /tmp/half.deb
"""
HOLD = """
import fcntl, sys
lock = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
open("/tmp/held", "w").close()
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def box(shared_box: Callable[..., LiveBox]) -> LiveBox:
    return shared_box("workbench-debian-12", workbench.provision, os="debian:12")


Said = dict[str, list[tuple[str, str, str]]]


def ask(box: LiveBox, *more: str) -> Said:
    """By subject: level, text and fix of all that is said of the box."""
    done = roost(box, "doctor", "--json", *more, box.name)
    found: Said = {}
    for one in json.loads(done.stdout):
        if one["subject"].startswith(box.name):
            subject = one["subject"].removeprefix(box.name).strip()
            found.setdefault(subject, []).append((one["level"], one["text"], one["fix"]))
    return found


def test_a_box_in_order(box: LiveBox) -> None:
    workbench.root(box, "systemctl start roost-jupyter@debian")
    found = ask(box)
    wrong = [one for said in found.values() for one in said if one[0] in {"error", "warning"}]
    assert wrong == []
    kernels = workbench.as_person(box, "debian", "roost-kernel list --json").stdout
    computed = {text.rpartition(" ")[2] for _, text, _ in found["kernel"]}
    assert computed >= {kernel["name"] for kernel in json.loads(kernels)} and computed
    assert {"clock", "sudo", "disk", "apt", "archive", "PyPI", "Jupyter", "tmux"} <= set(found)


@contextmanager
def spoilt(box: LiveBox) -> Iterator[None]:
    """Many things wrong at once."""
    dead = json.dumps({"argv": ["/home/debian/gone/bin/python"], "display_name": "gone"})
    script = f"""
    systemctl stop roost-jupyter@debian
    systemctl enable -q {LEFT_OVER}
    install -d -o debian -g debian {KERNELS}/gone
    printf '%s' '{dead}' >{KERNELS}/gone/kernel.json
    echo 'deb http://127.0.0.1:9/debian nowhere main' >/etc/apt/sources.list.d/nowhere.list
    touch /run/reboot-required
    {HALF_INSTALLED}
    """
    set_variables(box, "base_pypi_index: http://127.0.0.1:9/simple")
    try:
        workbench.root(box, script)
        with workbench.small_disk(box, "/srv", "4m"):
            exec_in(box, ["sh", "-c", "head -c 4m /dev/zero >/srv/fill"], check=False)
            yield
    finally:
        (box.workspace.inventory / "group_vars" / "all" / "test.yml").unlink()
        undo = f"""
        rm -rf {KERNELS}/gone /etc/apt/sources.list.d/nowhere.list /run/reboot-required /tmp/half*
        systemctl disable -q {LEFT_OVER}
        dpkg --purge half
        systemctl start roost-jupyter@debian
        """
        workbench.root(box, undo, check=False)


def test_what_is_broken_is_found_and_what_is_safe_is_mended(box: LiveBox) -> None:
    with spoilt(box):
        found = ask(box)
        levels = {name: {one[0] for one in said} for name, said in found.items()}
        assert levels["Jupyter"] == {"warning"}
        assert levels["units"] == {"warning"}
        assert levels["apt"] == {"error"}
        (archive,) = (one for one in found["archive"] if one[0] == "error")
        assert "127.0.0.1:9" in archive[1] and archive[2]
        assert levels["PyPI"] == {"error"}
        (kernel,) = (one for one in found["kernel"] if one[0] == "error")
        assert kernel[2] == f"roost kernel remove {box.name} gone"
        assert any("/srv is almost full" in one[1] for one in found["disk"])
        assert any("reboot" in one[1] for one in found["system"])

        done = roost(box, "doctor", "--fix", box.name)
        assert done.returncode == 1  # the archive, the kernel and the disk are nobody's to guess
        for command in ("restart roost-jupyter@debian", f"disable --now {LEFT_OVER}", "dpkg"):
            assert command in done.stderr
        left = ask(box)
        for name in ("Jupyter", "units", "apt"):
            assert {one[0] for one in left[name]} == {"ok"}, left[name]
        assert workbench.root(box, "dpkg-query -W -f '${Status}' half") == "install ok installed"
        again = roost(box, "doctor", "--fix", box.name)
        assert "nothing that could be mended" in again.stderr


def test_who_holds_the_lock_is_named_and_left_in_peace(box: LiveBox) -> None:
    words = ["exec", "--interactive", box.now.container, "python3", "-c", HOLD]
    with process.start(box.sandbox.engine.argv(*words), stdin=subprocess.PIPE) as holder:
        wait_for(lambda: workbench.root(box, "ls /tmp/held", check=False), "the lock")
        ((level, text, fix),) = ask(box)["apt"]
        assert level == "warning" and "/var/lib/dpkg/lock-frontend" in text and "python3" in text
        assert "wait" in fix
        workbench.root(box, "rm /tmp/held")
        holder.communicate("")
    assert {one[0] for one in ask(box)["apt"]} == {"ok"}


def test_bare_and_gone_boxes(sandbox_factory: Callable[..., dict[str, LiveBox]]) -> None:
    boxes = sandbox_factory("bare", "gone")
    gone = boxes["gone"]
    gone.sandbox.engine("stop", "--time", "1", gone.now.container)
    done = roost(boxes["bare"], "doctor", "--json", "bare", "gone")
    assert done.returncode == 1
    found = {one["subject"]: one for one in json.loads(done.stdout)}
    assert found["bare"]["level"] == "ok"
    assert (
        found["bare Python"]["level"] == "error" and found["bare Python"]["fix"] == "roost up bare"
    )
    assert found["gone"]["level"] == "error" and found["gone"]["fix"]
