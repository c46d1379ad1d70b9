"""Explicit congestion notification through the tunnel (RFC 6040).

A router on the way outside marks the outer packet, and who is inside has to hear of it. The field
is the two lowest bits of the IPv4 type of service and of the IPv6 traffic class.
"""

from typing import Final

NOT_CAPABLE: Final = 0
"""The packet's sender does not understand such marks."""
CAPABLE_1: Final = 1
"""The packet's sender does, and has classified the packet as ECT(1)."""
CAPABLE_0: Final = 2
"""The packet's sender does; ECT(0)."""
CONGESTION_EXPERIENCED: Final = 3
"""A router has marked the packet."""

_MASK: Final = 3


def of(packet: memoryview) -> int:
    """Return the field of an IP packet, which is that of the outer packet as well (section 4.1,
    normal mode); 0 for what is no IP packet.
    """
    if len(packet) < 2:
        return NOT_CAPABLE
    version = packet[0] >> 4
    if version == 4:
        return packet[1] & _MASK
    if version == 6:
        return (packet[1] >> 4) & _MASK
    return NOT_CAPABLE


def decapsulate(outer: int, packet: memoryview) -> bool:
    """Let the IP packet that was inside an outer one with this field, or traffic class, have the
    field of figure 4 (section 4.2); False if it must be dropped. Its header must be all there.
    """
    outer &= _MASK
    inner = of(packet)
    if outer == CONGESTION_EXPERIENCED:
        if inner == NOT_CAPABLE:
            return False
        if inner != CONGESTION_EXPERIENCED:
            _set(packet, CONGESTION_EXPERIENCED)
    elif outer == CAPABLE_1 and inner == CAPABLE_0:
        _set(packet, CAPABLE_1)
    return True


def _set(packet: memoryview, field: int) -> None:
    if packet[0] >> 4 == 6:
        packet[1] = packet[1] & ~(_MASK << 4) & 0xFF | field << 4
        return
    before = _word(packet, 0)
    packet[1] = packet[1] & ~_MASK & 0xFF | field
    # By difference (RFC 1624): a wrong checksum stays wrong.
    total = (_word(packet, 10) ^ 0xFFFF) + (before ^ 0xFFFF) + _word(packet, 0)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    packet[10:12] = (total ^ 0xFFFF).to_bytes(2, "big")


def _word(packet: memoryview, offset: int) -> int:
    return packet[offset] << 8 | packet[offset + 1]
