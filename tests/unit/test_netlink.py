"""A netlink message that is none is an OSError, whatever the library makes of it."""

import errno
import struct
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("netlink is Linux's", allow_module_level=True)

from wgd.net import netlink


def _message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 2) + body


def test_a_message_that_is_cut_off() -> None:
    with pytest.raises(OSError, match="Bad message") as refused:
        netlink.decode(_message(16, b"\0\0\0\0"))
    assert refused.value.errno == errno.EBADMSG


def test_a_route_with_an_encapsulation_of_no_type_ends() -> None:
    """pyroute2 alone looks for the type for ever (found by fuzzing)."""
    route = struct.pack("=BBBBBBBBI", 2, 8, 0, 0, 254, 3, 253, 1, 0)
    encapsulation = struct.pack("=HH", 8, 22) + bytes(4)
    (message,) = netlink.decode(_message(24, route + encapsulation + bytes(20)))
    assert message.kind == 24


def test_nothing() -> None:
    assert netlink.decode(b"") == []
    assert netlink.decode(bytes(15)) == []
