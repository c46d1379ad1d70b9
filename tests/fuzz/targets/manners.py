"""Marks of congestion, errors about packets with nowhere to go, and news of a clone."""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from tests.fuzz.target import Input, Target
from wgd.dataplane import ecn
from wgd.dataplane.unreachable import Refusals, answer, may_be_answered
from wgd.net.clone import is_clone_notice

_SECOND: Final = 1_000_000_000
_BURST_AND_A_SECOND: Final = 2_000
"""More than what may be answered in a second, whatever the limits are."""

# -- congestion ------------------------------------------------------------------------------------

_FIGURE_4: Final = {
    # inner: by outer Not-ECT, ECT(1), ECT(0), CE (RFC 6040, section 4.2); None is a drop
    0: (0, 0, 0, None),
    1: (1, 1, 1, 3),
    2: (2, 1, 2, 3),
    3: (3, 3, 3, 3),
}


def _run_ecn(data: bytes) -> None:
    """The field is that of figure 4, nothing else of the packet changes, and a checksum that was
    right stays so, one that was wrong wrong.
    """
    given = Input(data)
    outer = given.byte()
    before = given.rest()
    field = ecn.of(memoryview(before))
    assert 0 <= field <= 3
    is_ipv4 = len(before) >= 20 and before[0] >> 4 == 4
    if not is_ipv4 and not (len(before) >= 40 and before[0] >> 4 == 6):
        return
    packet = bytearray(before)
    is_kept = ecn.decapsulate(outer, memoryview(packet))
    expected = _FIGURE_4[field][outer & 3]
    assert is_kept is (expected is not None)
    if expected is None:
        assert packet == before
        return
    assert ecn.of(memoryview(packet)) == expected
    ignored = {1, 10, 11} if is_ipv4 else {1}
    assert all(packet[n] == before[n] for n in range(len(before)) if n not in ignored)
    mask = 0xFC if is_ipv4 else 0xCF
    assert packet[1] & mask == before[1] & mask
    if is_ipv4:
        size = max(20, (before[0] & 15) * 4)
        if len(before) >= size:
            assert _sum(bytes(packet[:size])) == _sum(before[:size])


def _sum(data: bytes) -> int:
    """The sum of the internet checksum, with one of its two zeros."""
    data += bytes(len(data) % 2)
    words = range(0, len(data), 2)
    return sum(int.from_bytes(data[n : n + 2], "big") for n in words) % 0xFFFF


# -- unreachable -----------------------------------------------------------------------------------


def _run_unreachable(data: bytes) -> None:
    """An error is a whole and right packet, goes back to one host, is bounded, and is never about
    another error; errors are given at a bounded rate.
    """
    if not may_be_answered(data):
        return
    error = answer(data)
    is_ipv4 = data[0] >> 4 == 4
    assert len(error) <= (576 if is_ipv4 else 1280)
    assert len(error) <= len(data) + (28 if is_ipv4 else 48)
    assert not may_be_answered(error), "an error about an error"
    quoted = error[28:] if is_ipv4 else error[48:]
    assert data.startswith(quoted)
    assert len(quoted) == min(len(data), 548 if is_ipv4 else 1232)
    if is_ipv4:
        assert int.from_bytes(error[2:4], "big") == len(error)
        assert _sum(error[:20]) == _sum(error[20:]) == 0
        assert error[20:22] == b"\3\1"
        source, destination = error[12:16], error[16:20]
        assert (source, destination) == (data[16:20], data[12:16])
    else:
        assert int.from_bytes(error[4:6], "big") == len(error) - 40
        pseudo = error[8:40] + (len(error) - 40).to_bytes(4, "big") + b"\0\0\0\x3a"
        assert _sum(pseudo + error[40:]) == 0
        assert error[40:42] == b"\1\3"
        source, destination = error[8:24], error[24:40]
        assert (source, destination) == (data[24:40], data[8:24])
    told = ip_address(destination)
    assert not told.is_multicast
    assert not told.is_unspecified
    assert not told.is_loopback
    written: list[memoryview] = []
    refusals = Refusals(written.append)
    for number in range(_BURST_AND_A_SECOND):
        refusals.refuse(data, _SECOND + number)
    assert 0 < len(written) < _BURST_AND_A_SECOND
    assert all(each == error for each in written)


def _packets() -> Iterable[bytes]:
    echo = b"\x08\0\0\0\0\1\0\1" + bytes(range(32))
    for protocol, rest in ((17, bytes(40)), (6, bytes(40)), (1, echo), (1, b"\3" + echo)):
        size = (20 + len(rest)).to_bytes(2, "big")
        head = b"\x45\0" + size + bytes(4) + bytes((64, protocol, 0, 0))
        yield head + bytes((10, 0, 0, 1, 10, 9, 9, 9)) + rest
    source, destination = bytes.fromhex("fd" + "00" * 14 + "01"), bytes.fromhex("fd" + "09" * 15)
    echo6 = b"\x80" + echo[1:]
    fragment = b"\x11\0\0\0\0\0\0\1"
    options = b"\x3a\0" + bytes(6)
    for protocol, rest in (
        *((17, bytes(40)), (58, echo6), (58, b"\1" + echo6), (44, fragment + bytes(16))),
        *((0, options + echo6), (60, options + b"\1" + echo6), (51, b"\x3a\4" + bytes(22) + echo6)),
    ):
        head = b"\x60\0\0\0" + len(rest).to_bytes(2, "big") + bytes((protocol, 64))
        yield head + source + destination + rest
    yield b"\x45\0\5\xdc" + bytes(5) + b"\x11\0\0" + bytes((10, 0, 0, 1, 10, 9, 9, 9)) + bytes(1480)


# -- a clone ---------------------------------------------------------------------------------------


def _run_uevent(data: bytes) -> None:
    """Only a change, and only with the variable as a whole, is news of a clone."""
    is_told = is_clone_notice(data)
    assert not is_told or (data.startswith(b"change@") and b"\0NEW_VMGENID=1" in data)
    assert is_clone_notice(b"change@/devices/vmgenid\0" + data + b"\0NEW_VMGENID=1")
    assert is_clone_notice(data + b"\0X=1") is is_told


TARGETS: Final = (
    Target(
        "ecn",
        _run_ecn,
        ("wgd.dataplane.ecn",),
        lambda: (bytes([outer]) + packet for outer in (0, 1, 2, 3) for packet in _marked()),
        max_size=128,
    ),
    Target(
        "unreachable",
        _run_unreachable,
        ("wgd.dataplane.unreachable",),
        _packets,
        (b"\x3a", b"\x2c", b"\x33", b"\x3c", b"\xe0", b"\x7f", b"\xff\2"),
        2048,
    ),
    Target(
        "uevent",
        _run_uevent,
        ("wgd.net.clone",),
        lambda: (
            b"change@/devices/platform/QEMUVGID:00\0ACTION=change\0NEW_VMGENID=1\0SEQNUM=7\0",
            b"add@/devices/x\0ACTION=add\0",
        ),
        (b"change@", b"NEW_VMGENID=1", b"\0"),
        512,
    ),
)


def _marked() -> Iterable[bytes]:
    for packet in _packets():
        for field in range(4):
            marked = bytearray(packet[:60])
            marked[1] |= field if packet[0] >> 4 == 4 else field << 4
            yield bytes(marked)
