"""Where forwards may listen."""

from __future__ import annotations

import pytest

from roost.errors import UsageError
from roost.forwards import Allow, checked, named
from roost.model import Forward


@pytest.mark.parametrize(
    ("spec", "becomes"),
    [
        ("6006:localhost:6006", "127.0.0.1:6006:localhost:6006"),
        ("localhost:6006:db:5432", "127.0.0.1:6006:db:5432"),
        ("127.0.0.2:6006:db:5432", "127.0.0.2:6006:db:5432"),
        ("[::1]:6006:db:5432", "[::1]:6006:db:5432"),
        ("8888:/run/app.sock", "127.0.0.1:8888:/run/app.sock"),
        ("/tmp/db.sock:localhost:5432", "/tmp/db.sock:localhost:5432"),
        ("D:8157", "D:127.0.0.1:8157"),
        ("R:52698:localhost:52698", "R:127.0.0.1:52698:localhost:52698"),
        ("R:/run/user/1000/rmate.sock:localhost:52698",) * 2,
        ("R:0:localhost:52698", "R:127.0.0.1:0:localhost:52698"),
    ],
)
def test_the_address_is_written_out(spec: str, becomes: str) -> None:
    assert str(checked(Forward.parse(spec), Allow(shared=True))) == becomes
    assert str(named(becomes)) == becomes


def test_any_free_port() -> None:
    chosen = checked(Forward.parse("0:localhost:6006"))
    assert int(chosen.listen.partition(":")[2]) >= 20_000


@pytest.mark.parametrize(
    "spec",
    [
        "0.0.0.0:8080:localhost:80",
        "*:8080:localhost:80",
        "192.0.2.1:8080:localhost:80",
        "gpu1:8080:localhost:80",
        "[::]:8080:localhost:80",
        "D:0.0.0.0:8157",
        "R:0.0.0.0:8080:localhost:80",
    ],
)
def test_a_public_address_needs_a_flag(spec: str) -> None:
    with pytest.raises(UsageError, match="listens at"):
        checked(Forward.parse(spec), Allow(privileged=True))
    assert str(checked(Forward.parse(spec), Allow(public=True))) == spec


@pytest.mark.parametrize("spec", ["80:localhost:80", "D:1023", "R:22:localhost:22"])
def test_a_privileged_port_needs_a_flag(spec: str) -> None:
    with pytest.raises(UsageError, match="listens at port"):
        checked(Forward.parse(spec), Allow(public=True, shared=True))
    assert checked(Forward.parse(spec), Allow(privileged=True, shared=True))


@pytest.mark.parametrize("spec", ["R:52698:localhost:52698", "R:[::1]:9000:web:80", "R:0:web:80"])
def test_a_port_of_the_box_needs_a_flag(spec: str) -> None:
    """All of its users can connect to it; a socket is a person's own."""
    with pytest.raises(UsageError, match="a port of the box") as refused:
        checked(Forward.parse(spec), Allow(public=True, privileged=True))
    assert "R:/home/YOU/NAME.sock:" in str(refused.value.fix)
    assert checked(Forward.parse(spec), Allow(shared=True))
    assert checked(Forward.parse("R:/home/me/own.sock:localhost:1"))
