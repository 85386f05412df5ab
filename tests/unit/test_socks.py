"""What SOCKS clients say, byte by byte."""

from __future__ import annotations

import pytest

from roost.supervisor import mux
from roost.supervisor.socks import REFUSED, Step, read

HTTP = (80).to_bytes(2, "big")
NAME = b"\x05\x01\x00\x03\x04wiki" + HTTP
FOUR = b"\x05\x01\x00\x01\x0a\x00\x00\x07" + HTTP
SIX = b"\x05\x01\x00\x04" + bytes(15) + b"\x01" + HTTP
OLD = b"\x04\x01" + HTTP + b"\x0a\x00\x00\x07me\0"
NAMED_OLD = b"\x04\x01" + HTTP + b"\x00\x00\x00\x01me\0wiki\0"
NO_COMMAND, NO_ADDRESS = (b"\x05%c\x00\x01" % why + bytes(6) for why in (7, 8))


@pytest.mark.parametrize(
    ("data", "greeted", "step"),
    [
        (b"\x05\x01\x00", False, (3, b"\x05\x00", None)),
        (b"\x05\x03\x02\x01\x00", False, (5, b"\x05\x00", None)),
        (b"\x05\x01\x00" + NAME, False, (3, b"\x05\x00", None)),
        (b"\x05\x02\x01\x02", False, (0, b"\x05\xff", None)),
        (b"\x05\x00", False, (0, b"\x05\xff", None)),
        (NAME, True, (len(NAME), b"", (5, "wiki", 80))),
        (NAME + b"GET / HTTP/1.0\r\n\r\n", True, (len(NAME), b"", (5, "wiki", 80))),
        (FOUR, True, (len(FOUR), b"", (5, "10.0.0.7", 80))),
        (SIX, True, (len(SIX), b"", (5, "::1", 80))),
        (b"\x05\x02" + NAME[2:], True, (0, NO_COMMAND, None)),
        (b"\x05\x03" + NAME[2:], True, (0, NO_COMMAND, None)),
        (b"\x05\x01\x00\x02" + NAME[4:], True, (0, NO_ADDRESS, None)),
        (b"\x05\x01\x00\x03\x00" + HTTP, True, (0, NO_ADDRESS, None)),
        (b"\x05\x01\x00\x03\x04w\0ki" + HTTP, True, (0, NO_ADDRESS, None)),
        (b"\x05\x01\x00\x03\x04w ki" + HTTP, True, (0, NO_ADDRESS, None)),
        (b"\x05\x01\x00\x03\x04w\xffki" + HTTP, True, (0, NO_ADDRESS, None)),
        (b"\x04\x01\x00\x03\x04wiki" + HTTP, True, (0, b"", None)),
        (OLD, False, (len(OLD), b"", (4, "10.0.0.7", 80))),
        (OLD + b"more", False, (len(OLD), b"", (4, "10.0.0.7", 80))),
        (NAMED_OLD, False, (len(NAMED_OLD), b"", (4, "wiki", 80))),
        (b"\x04\x02" + OLD[2:], False, (0, REFUSED[4], None)),
        (NAMED_OLD[:11] + b"\0", False, (0, REFUSED[4], None)),
        (b"GET http://wiki/ HTTP/1.1\r\n", False, (0, b"", None)),
        (b"", False, None),
        (b"", True, None),
    ],
)
def test_what_is_next(data: bytes, greeted: bool, step: Step | None) -> None:
    assert read(data, greeted=greeted) == step


@pytest.mark.parametrize(
    ("data", "greeted"),
    [
        (b"\x05\x02\x01\x00", False),
        (NAME, True),
        (FOUR, True),
        (SIX, True),
        (OLD, False),
        (NAMED_OLD, False),
    ],
)
def test_half_of_it_is_waited_for(data: bytes, greeted: bool) -> None:
    assert [read(data[:end], greeted=greeted) for end in range(len(data))] == [None] * len(data)


HELLO = bytes.fromhex("00000008 00000001 00000004")


@pytest.mark.parametrize(
    ("said", "opened"),
    [
        (b"", None),
        (HELLO, None),
        (HELLO[:-1], None),
        (HELLO + bytes.fromhex("0000000c 80000006 00000001 00000002"), True),
        (HELLO + bytes.fromhex("0000000c 80000006 00000001 000000"), None),
        (HELLO + bytes.fromhex("0000000e 80000003 00000001 00000002") + b"no", False),
        (HELLO + bytes.fromhex("0000000e 80000002 00000001 00000002") + b"no", False),
    ],
)
def test_what_ssh_says_of_a_connection(said: bytes, opened: bool | None) -> None:
    assert mux.answer(said) is opened


def test_what_ssh_is_asked_for() -> None:
    """PROTOCOL.mux, section 6: the type, a number, a reserved string, the host, the port."""
    fields = "10000008 00000001 00000000 00000004 77696b69 00000050"
    assert mux.request("wiki", 80) == bytes.fromhex("00000018" + fields)
