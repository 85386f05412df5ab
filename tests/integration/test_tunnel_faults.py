"""Whatever breaks on the way, the tunnel comes back by itself, on the same port."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tunnel_rig import (
    Way,
    answers,
    behind,
    carriers,
    connect,
    cut_off,
    free_port,
    give_speaker,
    kill_sshd_sessions,
    ours,
    paused,
    status_of,
    supervisors,
    tunnels,
    wait_for,
    way,
)

from boxes import LiveBox, reboot
from roost import process
from roost.tunnels import Tunnels

__all__ = ["behind", "tunnels"]
pytestmark = pytest.mark.box


@pytest.fixture(scope="module")
def box(shared_box: Callable[..., LiveBox]) -> LiveBox:
    """A box for this module's tests alone; each leaves it running."""
    return shared_box("tunnel-faults", prepare=give_speaker)


@pytest.fixture
def port(box: LiveBox, tunnels: Tunnels) -> Iterator[int]:
    """A local port whose forward answers."""
    chosen = free_port()
    way(box).open(tunnels, f"{chosen}:localhost:8000")
    assert answers(chosen)
    yield chosen
    wait_for(lambda: answers(chosen))


def back_again(port: int) -> None:
    wait_for(lambda: answers(port))


def noticed(tunnels: Tunnels, breaks: int = 1) -> None:
    wait_for(lambda: status_of(tunnels, ":8000").breaks >= breaks)


def test_ssh_is_killed(tunnels: Tunnels, port: int) -> None:
    [before] = carriers(tunnels)

    os.kill(before, signal.SIGKILL)

    noticed(tunnels)
    back_again(port)
    status = wait_for(lambda: (s := status_of(tunnels, ":8000")).state == "up" and s)
    assert status.breaks == 1
    assert status.pid not in {0, before}
    assert len(carriers(tunnels)) == 1


def test_ssh_hangs_while_its_port_is_open(tunnels: Tunnels, port: int) -> None:
    [before] = carriers(tunnels)

    os.kill(before, signal.SIGSTOP)

    noticed(tunnels)
    back_again(port)
    assert before not in carriers(tunnels)


def test_sshd_on_the_box_is_killed(box: LiveBox, tunnels: Tunnels, port: int) -> None:
    kill_sshd_sessions(box)

    noticed(tunnels)
    back_again(port)


def test_the_supervisor_is_killed_and_no_connection_with_it(tunnels: Tunnels, port: int) -> None:
    [supervisor], [carrier] = supervisors(tunnels), carriers(tunnels)
    with connect(port, 30) as conversation:
        conversation.sendall(b"ECHO\none\n")
        assert conversation.recv(99) == b"one\n"

        os.kill(supervisor, signal.SIGKILL)
        wait_for(lambda: supervisor not in supervisors(tunnels))
        status = wait_for(lambda: (s := status_of(tunnels, ":8000")).state == "up" and s)

        conversation.sendall(b"two\n")
        assert conversation.recv(99) == b"two\n"
    assert status.pid == carrier
    assert carriers(tunnels) == [carrier]
    assert len(supervisors(tunnels)) == 1


def test_a_taken_over_ssh_is_watched_too(tunnels: Tunnels, port: int) -> None:
    [supervisor], [carrier] = supervisors(tunnels), carriers(tunnels)
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: status_of(tunnels, ":8000").state == "up")

    os.kill(carrier, signal.SIGKILL)

    noticed(tunnels)
    back_again(port)


def test_both_are_killed(tunnels: Tunnels, port: int) -> None:
    for pid in (*supervisors(tunnels), *carriers(tunnels)):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not supervisors(tunnels) and not carriers(tunnels))

    tunnels.list()

    back_again(port)


def test_the_run_time_folder_is_cleared(tunnels: Tunnels, port: int) -> None:
    before = supervisors(tunnels)
    process.run(["rm", "-rf", tunnels.places.runtime])

    tunnels.list()

    back_again(port)
    wait_for(lambda: supervisors(tunnels) and not set(before) & set(supervisors(tunnels)))
    wait_for(lambda: len(carriers(tunnels)) == 1)


def test_a_short_cut_breaks_no_connection(box: LiveBox, tunnels: Tunnels, port: int) -> None:
    with connect(port, 60) as conversation:
        conversation.sendall(b"ECHO\none\n")
        assert conversation.recv(99) == b"one\n"
        with cut_off(box):
            conversation.sendall(b"two\n")
            time.sleep(1)  # the fault itself
        assert conversation.recv(99) == b"two\n"
    assert status_of(tunnels, ":8000").breaks == 0


def test_the_network_is_gone_for_a_while(box: LiveBox, tunnels: Tunnels, port: int) -> None:
    with cut_off(box):
        down = wait_for(lambda: (s := status_of(tunnels, ":8000")).state != "up" and s)
        assert "nothing answers" in down.why or "not responding" in down.why

    back_again(port)


def test_the_box_stands_still(box: LiveBox, tunnels: Tunnels, port: int) -> None:
    with paused(box):
        noticed(tunnels)

    back_again(port)


def test_a_box_that_is_busy_for_seconds_keeps_its_connections(
    box: LiveBox, tunnels: Tunnels, port: int
) -> None:
    """The network is well, its system takes every byte, and no process of it gets time."""
    before = status_of(tunnels, ":8000").breaks
    with connect(port, 60) as conversation:
        conversation.sendall(b"ECHO\none\n")
        assert conversation.recv(99) == b"one\n"
        with paused(box):
            silent = wait_for(lambda: (s := status_of(tunnels, ":8000")).state != "up" and s)
            assert (silent.state, "sshd does not answer" in silent.why) == ("silent", True)
        conversation.sendall(b"two\n")
        assert conversation.recv(99) == b"two\n"
    after = wait_for(lambda: (s := status_of(tunnels, ":8000")).state == "up" and s)
    assert after.breaks == before


def test_the_box_is_rebooted(box: LiveBox, tunnels: Tunnels, port: int) -> None:
    reboot(box)

    noticed(tunnels)
    back_again(port)


def test_the_gateway_is_rebooted(behind: LiveBox, tunnels: Tunnels) -> None:
    port = free_port()
    way(behind).open(tunnels, f"{port}:localhost:8000")

    reboot(LiveBox(behind.sandbox, "gate"))

    noticed(tunnels)
    back_again(port)
    wait_for(lambda: len(ours(tunnels)) == 2)


def test_the_box_gets_another_address(
    sandbox_factory: Callable[..., dict[str, LiveBox]], tunnels: Tunnels
) -> None:
    """The inventory is changed, and any command renders the ssh config anew."""
    boxes = sandbox_factory("old", "new")
    for one in boxes.values():
        give_speaker(one)
    port = free_port()
    old, new = way(boxes["old"]), way(boxes["new"])
    old.open(tunnels, f"{port}:localhost:8000")
    # It has looked up where the old one is.
    wait_for(lambda: status_of(tunnels, ":8000").forwards[0].state == "answers")
    wait_for(lambda: not any("-G" in argv for _, argv in ours(tunnels)))
    text = old.config.read_text().replace(
        f"HostName {old.box.host}\n", f"HostName {new.box.host}\n"
    )

    old.config.write_text(text)
    # Silent: a box that is shut down ends its sessions, and ssh itself would look for the new one.
    with cut_off(boxes["old"]):
        noticed(tunnels)
        back_again(port)


@pytest.fixture
def full_disk(tunnels: Tunnels) -> Iterator[Path]:
    """The state folder lies on a file system without a free byte."""
    folder = tunnels.places.state.parent
    folder.mkdir(parents=True, exist_ok=True)
    process.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder])
    try:
        yield folder
    finally:
        process.run(["umount", "-l", folder])


def test_the_disk_is_full(box: LiveBox, tunnels: Tunnels, full_disk: Path) -> None:
    reach = way(box)
    port, later = free_port(), free_port()
    reach.open(tunnels, f"{port}:localhost:8000")
    before = tunnels.places.wishes.read_bytes()
    filler = full_disk / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(256))

    reach.open(tunnels, f"{later}:localhost:8000")

    assert answers(port)
    assert answers(later)
    # What was written before is whole: the next supervisor finds it.
    assert tunnels.places.wishes.read_bytes() == before
    filler.unlink()
    os.kill(supervisors(tunnels)[0], signal.SIGKILL)
    wait_for(lambda: status_of(tunnels, f"{port}:localhost:8000").state == "up")
    assert answers(port)
    tunnels.close([s.id for s in tunnels.list()])
    for pid in carriers(tunnels):
        os.kill(pid, signal.SIGTERM)


def test_the_machine_wakes_up(box: LiveBox, tunnels: Tunnels) -> None:
    """The supervisor and its ssh stood still, and the box has dropped the connection meanwhile."""
    port = free_port()
    reach: Way = way(box)
    reach.open(tunnels, f"{port}:localhost:8000")
    asleep = [*supervisors(tunnels), *carriers(tunnels)]
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    kill_sshd_sessions(box)
    time.sleep(6)  # the fault itself

    for pid in asleep:
        os.kill(pid, signal.SIGCONT)

    noticed(tunnels)
    back_again(port)
