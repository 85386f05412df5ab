"""``roost status`` beside what the box itself says."""

from __future__ import annotations

import json
from collections.abc import Callable

import pexpect
import pytest
from cli import ROOST, roost, root

from boxes import LiveBox, exec_in, ssh

pytestmark = pytest.mark.box


def test_a_box_and_one_that_is_gone(sandbox_factory: Callable[..., dict[str, LiveBox]]) -> None:
    boxes = sandbox_factory("here", "gone")
    here, gone = boxes["here"], boxes["gone"]
    gone.sandbox.engine("stop", "--time", "1", gone.now.container)
    exec_in(here, ["touch", "/run/reboot-required"])

    done = roost(here, "status", "--json")
    assert done.returncode == 4, done.stderr
    found = {one["box"]: one for one in json.loads(done.stdout)}
    assert found["gone"]["state"] == "unreachable" and found["gone"]["why"]
    assert {one["seal"] for one in found.values()} == {"unknown"}  # that takes a Python, too
    one = found["here"]
    assert (one["state"], one["reboot"], one["lab"]) == ("up", True, False)
    assert one["jobs"] is None  # a bare box has no Python for them
    assert one["cpus"] == int(ssh(here, "nproc").stdout)
    assert one["memory_total"] == 1024 * int(
        ssh(here, "awk '/MemTotal/ {print $2}' /proc/meminfo").stdout
    )
    assert one["disks"][0]["mount"] == "/"
    now = float(ssh(here, "cut -d' ' -f1 /proc/uptime").stdout)
    assert 0 < one["uptime"] <= now

    # A stand-in: any unit of that name.
    exec_in(here, ["systemd-run", "--quiet", "--unit", "roost-jupyter@debian", "sleep", "600"])
    table = roost(here, "status", "here")
    assert table.returncode == 0
    assert table.stdout.split()[:4] == ["BOX", "UP", "LOAD", "MEM"]
    assert table.stdout.splitlines()[1].startswith("here ") and "reboot" in table.stdout
    assert "GPU" not in table.stdout and " on " in table.stdout


def test_watch_goes_on_until_ctrl_c(box: LiveBox) -> None:
    child = pexpect.spawn(
        ROOST, ["-w", str(root(box)), "status", "--watch", "1"], encoding="utf-8", timeout=60,
        dimensions=(24, 80),
    )  # fmt: skip
    child.expect(r"box\b.*leave")
    exec_in(box, ["touch", "/run/reboot-required"])
    child.expect("reboot")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_a_key_acts_on_the_box_that_is_marked(
    sandbox_factory: Callable[..., dict[str, LiveBox]],
) -> None:
    boxes = sandbox_factory("one", "two")
    child = pexpect.spawn(
        ROOST, ["-w", str(root(boxes["one"])), "status", "--watch", "1"], encoding="utf-8",
        timeout=60, dimensions=(24, 100),
    )  # fmt: skip
    child.expect("q leave")
    child.send("o")
    child.expect(r"\$ roost tunnel open one")
    child.expect("there is nothing to open for one")
    child.expect("q leave")
    child.send("\x1b[B")
    child.send("t")
    child.expect("two has no complete Python")
    child.expect("q leave")
    child.send("q")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
