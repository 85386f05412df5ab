from __future__ import annotations

import pytest

from roost.errors import InventoryError, UsageError
from roost.model import Box, Fleet, Forward, ForwardKind


@pytest.mark.parametrize(
    ("spec", "kind", "listen", "target"),
    [
        ("8888:localhost:8888", "L", "8888", "localhost:8888"),
        ("L:8888:localhost:8888", "L", "8888", "localhost:8888"),
        ("127.0.0.1:9000:db.internal:5432", "L", "127.0.0.1:9000", "db.internal:5432"),
        ("R:52698:localhost:52698", "R", "52698", "localhost:52698"),
        ("D:8157", "D", "8157", ""),
        ("D:127.0.0.1:8157", "D", "127.0.0.1:8157", ""),
        ("8888:/run/app.sock", "L", "8888", "/run/app.sock"),
        ("/tmp/near.sock:/run/far.sock", "L", "/tmp/near.sock", "/run/far.sock"),
        ("R:/run/far.sock:localhost:22", "R", "/run/far.sock", "localhost:22"),
        ("[::1]:80:[fd00::7]:8080", "L", "[::1]:80", "[fd00::7]:8080"),
        ("D:[::1]:1080", "D", "[::1]:1080", ""),
    ],
)
def test_forward_is_read_as_ssh_writes_it(spec: str, kind: str, listen: str, target: str) -> None:
    forward = Forward.parse(spec)
    assert (forward.kind, forward.listen, forward.target) == (ForwardKind(kind), listen, target)
    assert Forward.parse(str(forward)) == forward


@pytest.mark.parametrize(
    "spec",
    ["", "8888", "a:b", "D:x", "D:1:2:3", "8888:1234", "x:y:z", "R:", ":::", "8888:host:http"],
)
def test_forward_that_makes_no_sense_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="not understood"):
        Forward.parse(spec)


FLEET = Fleet(
    boxes=(
        Box("gate", "192.0.2.1"),
        Box("inner", "10.0.0.1", via="gate"),
        Box("gpu1", "10.0.0.2", via="inner"),
        Box("gpu2", "10.0.0.3", via="inner"),
    ),
    groups={"gpu": ("gpu2", "gpu1")},
)


def test_jumps_begin_with_the_nearest_gateway() -> None:
    assert [b.name for b in FLEET.jumps(FLEET.box("gpu1"))] == ["gate", "inner"]
    assert FLEET.jumps(FLEET.box("gate")) == ()


def test_gateways_in_a_circle_are_refused_and_the_circle_is_named() -> None:
    fleet = Fleet(boxes=(Box("a", "a", via="b"), Box("b", "b", via="c"), Box("c", "c", via="a")))
    with pytest.raises(InventoryError, match="a -> b -> c -> a"):
        fleet.jumps(fleet.box("a"))


def test_gateway_that_nobody_listed_is_refused() -> None:
    with pytest.raises(InventoryError, match="'nowhere'"):
        Fleet().jumps(Box("a", "a", via="nowhere"))


def test_select_keeps_the_order_of_the_inventory() -> None:
    def names(*wanted: str) -> list[str]:
        return [b.name for b in FLEET.select(wanted)]

    assert names() == names("all") == ["gate", "inner", "gpu1", "gpu2"]
    assert names("gpu") == ["gpu1", "gpu2"]
    assert names("gpu2", "gpu", "gate") == ["gate", "gpu1", "gpu2"]


def test_select_offers_the_nearest_name() -> None:
    with pytest.raises(InventoryError) as caught:
        FLEET.select(["gpuu1"])
    assert caught.value.fix == "did you mean 'gpu1'?"
    with pytest.raises(InventoryError) as caught:
        Fleet().select(["gpu1"])
    assert "roost add" in (caught.value.fix or "")
