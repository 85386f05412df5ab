"""Notebooks for a whole team after ``roost up``: kernels, a reboot, people who leave, the undo."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from cli import roost, set_variables
from workbench import PEOPLE, play, root, small_disk, token_of, tunnel

from boxes import LiveBox, reboot

pytestmark = [pytest.mark.box]


def kernels_that_compute(box: LiveBox, person: str) -> set[str]:
    """Compute a cell in every kernel that somebody has; their names."""
    with tunnel(box, person) as server:
        names = server.kernelspecs()
        assert names["python3"] == "Python 3 (roost)"
        for name in names:
            with server.kernel(name) as kernel:
                code = "import getpass; print(getpass.getuser()); sum(range(101))"
                done = kernel.execute(code)
                assert (done.text, done.result, done.error) == (f"{person}\n", "5050", None)
    return set(names)


TEAM = """
people_list:
  - {{name: ann, keys: [{key}]}}
  - {{name: bob, keys: [{key}]}}
python_environments:
  - {{name: default, kernel: {{name: python3, display_name: Python 3 (roost)}}}}
  - {{name: team, requirements: [six]}}
  - {{name: mine, owner: ann}}
"""


def set_up_team(box: LiveBox) -> None:
    key = root(box, "cat /home/debian/.ssh/authorized_keys").strip()
    set_variables(box, TEAM.format(key=json.dumps(key)))
    done = roost(box, "up", box.name, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("release", ["12", "13"])
def test_after_roost_up_a_cell_computes_in_every_kernel_of_every_person(
    shared_box: Callable[..., LiveBox], release: str
) -> None:
    box = shared_box(f"team-debian-{release}", set_up_team, os=f"debian:{release}")
    shared = {"python3", "team"}
    expected = {"debian": shared, "ann": shared | {"mine"}, "bob": shared}
    assert {person: kernels_that_compute(box, person) for person in PEOPLE} == expected


def test_servers_come_back_after_a_reboot_and_leave_with_their_person(
    shared_box: Callable[..., LiveBox],
) -> None:
    box = shared_box("team-debian-13", set_up_team, os="debian:13")
    token = token_of(box, "ann")
    reboot(box)
    with tunnel(box, "ann") as server, server.kernel() as kernel:
        assert kernel.execute("6 * 7").result == "42"
    assert token_of(box, "ann") == token

    done = play(box, ["jupyter"], jupyter_people=["debian", "bob"])
    assert done.returncode == 0, done.text
    ask = "systemctl is-active roost-jupyter@ann; systemctl is-enabled roost-jupyter@ann"
    assert root(box, ask, check=False).split() == ["inactive", "disabled"]
    assert "ann" not in root(box, "cat /etc/sudoers.d/roost-jupyter")
    root(box, "userdel -r ann")
    play(box, ["jupyter"], jupyter_people=["debian", "bob"])
    assert "ann" not in root(box, "ls /var/lib/roost-jupyter")

    check = play(box, ["jupyter"], "--check", jupyter_state="absent")
    assert check.returncode == 0, check.text
    undone = play(box, ["jupyter"], jupyter_state="absent")
    assert undone.returncode == 0, undone.text
    assert play(box, ["jupyter"], jupyter_state="absent").changed == []
    places = [
        "/opt/roost/jupyter",
        "/run/roost-jupyter/*",
        "/var/lib/roost-jupyter",
        "/etc/sudoers.d/roost-jupyter*",
        "/etc/systemd/system/*roost-jupyter*",
        "/etc/systemd/system/*/roost-jupyter*",
        "/var/cache/*.whl",
    ]
    left = f"ls -d {' '.join(places)} || true"
    assert root(box, left) == ""
    assert root(box, "ls /home/bob") == ""

    with small_disk(box, "/opt/roost/jupyter", "20M"):
        full = play(box, ["jupyter"], jupyter_people=["debian"])
    assert full.returncode == 2 and "free some space" in full.text, full.text
