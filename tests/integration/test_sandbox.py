"""Throwaway boxes, asked over real ssh."""

from __future__ import annotations

import pytest

from boxes import LiveBox, private_network, reboot, ssh

pytestmark = pytest.mark.box

RELEASES = ["debian:12", "debian:13"]


@pytest.mark.parametrize("box_os", RELEASES)
def test_a_box_is_as_bare_as_a_cloud_image(box: LiveBox) -> None:
    assert ssh(box, "ps -p 1 -o comm=").stdout == "systemd\n"
    assert ssh(box, "systemctl is-system-running").stdout == "running\n"
    assert ssh(box, "id -un; sudo -n id -un").stdout == "debian\nroot\n"
    assert "No module named 'shutil'" in ssh(box, "python3 -c 'import shutil'", check=False).stderr
    assert ssh(box, "test -e /usr/sbin/policy-rc.d", check=False).returncode == 1


def test_a_box_behind_a_gateway(sandbox_factory) -> None:
    gate = sandbox_factory("gate")["gate"]
    inner = private_network(gate)
    assert ssh(inner, "hostname").stdout == "inner\n"
    assert "default" not in ssh(inner, "ip route").stdout
    reboot(gate)
    assert ssh(inner, "hostname").stdout == "inner\n"
    reboot(inner)
    assert ssh(inner, "hostname").stdout == "inner\n"
    out = private_network(gate, "out", internet=True)
    ssh(out, "sudo apt-get update")
