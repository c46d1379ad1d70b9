"""Telling local senders that a packet has nowhere to go: ICMP "host unreachable" (RFC 792) and
ICMPv6 "address unreachable" (RFC 4443), written to the TUN the packet came from, as the kernel does
when no peer has the destination or the peer has no endpoint.

The answer comes from the address that could not be reached. The interface's own would be more
usual, but Linux takes no packet from outside that has an address of its own as source, and whoever
is told looks at the quoted packet only.
"""

import struct
from collections.abc import Callable
from typing import Final

from wgd.constants import SECOND_NS, UNREACHABLES_BURST, UNREACHABLES_PER_SECOND

_INTERVAL_NS: Final = SECOND_NS // UNREACHABLES_PER_SECOND

_IPV4_HEADER: Final = struct.Struct("!BBHHHBBH4s4s")
_IPV6_HEADER: Final = struct.Struct("!IHBB16s16s")
_ICMP_HEADER: Final = struct.Struct("!BBHI")
_MAX_IPV4_SIZE: Final = 576
"""An ICMP error is at most that long (RFC 1812 section 4.3.2.3), in bytes."""
_MAX_IPV6_SIZE: Final = 1280
"""And an ICMPv6 error (RFC 4443 section 2.4 c)."""

_ICMP: Final = 1
_ICMPV6: Final = 58
_DESTINATION_AND_HOST_UNREACHABLE: Final = (3, 1)
_DESTINATION_AND_ADDRESS_UNREACHABLE_6: Final = (1, 3)
_ICMP_QUERIES: Final = frozenset({0, 8, 9, 10, *range(13, 19)})
"""Of the known types; 3, 4, 5, 11 and 12 are errors."""
_REDIRECT_6: Final = 137
_TYPE_OF_SERVICE: Final = 0xC0
"""Precedence 6, internetwork control (RFC 1812 section 4.3.2.5)."""
_DO_NOT_FRAGMENT: Final = 0x4000
_TIME_TO_LIVE: Final = 64

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION_OPTIONS = 0, 43, 44, 51, 60
_NOT_A_TRANSPORT: Final = frozenset(
    {_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION_OPTIONS, _ICMPV6}
)

_UNSPECIFIED_6: Final = bytes(16)
_LOOPBACK_6: Final = bytes(15) + b"\x01"


class Refusals:
    """Answers, at a bounded rate, through `write`."""

    def __init__(self, write: Callable[[memoryview], None]) -> None:
        self._write = write
        self._given_until_ns = 0
        """When the answers given so far would have been due at an even rate."""

    def refuse(self, packet: bytes, now_ns: int) -> None:
        """Tell the sender of a packet that it cannot be delivered, unless it must not be told or
        others were told too often just now.
        """
        if may_be_answered(packet) and self._is_due(now_ns):
            self._write(memoryview(answer(packet)))

    def _is_due(self, now_ns: int) -> bool:
        next_ns = max(self._given_until_ns, now_ns) + _INTERVAL_NS
        if next_ns > now_ns + UNREACHABLES_BURST * _INTERVAL_NS:
            return False
        self._given_until_ns = next_ns
        return True


def may_be_answered(packet: bytes) -> bool:
    """Whether an error may be sent about an IP packet (RFC 1122 section 3.2.2, RFC 4443 section
    2.4 e): not about ICMP errors, fragments but the first, or what does not come from one host and
    go to one.
    """
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= _IPV4_HEADER.size:
        return _may_be_answered_4(packet)
    if version == 6 and len(packet) >= _IPV6_HEADER.size:
        return _may_be_answered_6(packet)
    return False


def _may_be_answered_4(packet: bytes) -> bool:
    header_size = (packet[0] & 15) * 4
    fragment_offset = (packet[6] << 8 | packet[7]) & 0x1FFF
    return (
        _is_one_host_4(packet[12])
        and _is_one_host_4(packet[16])
        and _IPV4_HEADER.size <= header_size <= len(packet)
        and fragment_offset == 0
        and (
            packet[9] != _ICMP
            or (header_size < len(packet) and packet[header_size] in _ICMP_QUERIES)
        )
    )


def _is_one_host_4(first_byte: int) -> bool:
    # Not "this" network, loopback, multicast, class E and broadcast.
    return first_byte not in (0, 127) and first_byte < 224


def _may_be_answered_6(packet: bytes) -> bool:
    return (
        _is_one_host_6(packet[8:24])
        and _is_one_host_6(packet[24:40])
        and not _is_icmpv6_error_or_unknown(packet)
    )


def _is_one_host_6(address: bytes) -> bool:
    return address[0] != 0xFF and address not in (_UNSPECIFIED_6, _LOOPBACK_6)


def _is_icmpv6_error_or_unknown(packet: bytes) -> bool:
    """Whether an IPv6 packet is an ICMPv6 error or redirect, or this cannot be told."""
    protocol = packet[6]
    offset = _IPV6_HEADER.size
    # Each header takes 8 bytes at least, so this ends.
    while protocol in _NOT_A_TRANSPORT:
        if offset + 4 > len(packet):
            return True
        following, length = packet[offset], packet[offset + 1]
        if protocol == _ICMPV6:
            return following < 128 or following == _REDIRECT_6
        if protocol == _FRAGMENT:
            if (packet[offset + 2] << 8 | packet[offset + 3]) & 0xFFF8:
                return True
            offset += 8
        elif protocol == _AUTHENTICATION:
            offset += (length + 2) * 4
        else:
            offset += (length + 1) * 8
        protocol = following
    return False


def answer(packet: bytes) -> bytes:
    """Return the whole error about a packet that may be answered."""
    return _answer_4(packet) if packet[0] >> 4 == 4 else _answer_6(packet)


def _answer_4(packet: bytes) -> bytes:
    quoted = packet[: _MAX_IPV4_SIZE - _IPV4_HEADER.size - _ICMP_HEADER.size]
    size = _IPV4_HEADER.size + _ICMP_HEADER.size + len(quoted)

    def header(checksum: int) -> bytes:
        return _IPV4_HEADER.pack(
            0x45,
            _TYPE_OF_SERVICE,
            size,
            0,
            _DO_NOT_FRAGMENT,
            _TIME_TO_LIVE,
            _ICMP,
            checksum,
            packet[16:20],
            packet[12:16],
        )

    error = _ICMP_HEADER.pack(*_DESTINATION_AND_HOST_UNREACHABLE, 0, 0) + quoted
    return header(_checksum(header(0))) + _with_checksum(error, b"")


def _answer_6(packet: bytes) -> bytes:
    quoted = packet[: _MAX_IPV6_SIZE - _IPV6_HEADER.size - _ICMP_HEADER.size]
    size = _ICMP_HEADER.size + len(quoted)
    addresses = packet[24:40], packet[8:24]
    header = _IPV6_HEADER.pack(6 << 28, size, _ICMPV6, _TIME_TO_LIVE, *addresses)
    pseudo_header = b"".join(addresses) + struct.pack("!II", size, _ICMPV6)
    error = _ICMP_HEADER.pack(*_DESTINATION_AND_ADDRESS_UNREACHABLE_6, 0, 0) + quoted
    return header + _with_checksum(error, pseudo_header)


def _with_checksum(error: bytes, pseudo_header: bytes) -> bytes:
    checksum = _checksum(pseudo_header + error)
    return error[:2] + checksum.to_bytes(2, "big") + error[4:]


def _checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
