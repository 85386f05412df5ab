"""What a box says of itself, read."""

from __future__ import annotations

import pytest

from roost.status import BoxStatus, Disk, Gpu, read

SAID = """\
uptime 93784.11
load 1.50
cpus 8
memory 16000000000 4000000000
disk 1000 900 /
disk 5000 500 /data
user ann
user bob
gpu 83 24576 1024 NVIDIA RTX A5000
gpu [N/A] 16384 0 Tesla T4
lab active
reboot yes
updates 12 3
"""


def test_every_line_is_read() -> None:
    found = BoxStatus("gpu1", **read(SAID))
    assert (found.uptime, found.load, found.cpus) == (93784.11, 1.5, 8)
    assert (found.memory_total, found.memory_free) == (16_000_000_000, 4_000_000_000)
    assert found.fullest == Disk("/data", 5000, 500)
    assert found.gpus == [
        Gpu("NVIDIA RTX A5000", 83, 24 << 30, 1 << 30),
        Gpu("Tesla T4", 0, 16 << 30, 0),
    ]
    assert (found.users, found.lab, found.reboot) == (["ann", "bob"], True, True)
    assert (found.updates, found.security) == (12, 3)


@pytest.mark.parametrize("said", ["", "lab inactive\nupdates 0 0\n", "motd: welcome, friend\n"])
def test_what_is_not_said_is_not_there(said: str) -> None:
    found = BoxStatus("gpu1", **read(said))
    assert (found.lab, found.reboot, found.fullest, found.gpus) == (False, False, None, [])
