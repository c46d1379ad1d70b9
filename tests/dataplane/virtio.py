"""A TUN whose packets have a virtio-net header, and the plain way to do what a kernel does with it.

`cut` makes packets of a super-packet, as a network card would; `VirtioTun` does it with all that is
written to it, and refuses what a kernel would refuse. Slow, and written from the specifications:
linux/virtio_net.h, RFC 791, RFC 1071, RFC 9293, RFC 768, RFC 8200.
"""

import errno
import os
import struct
from typing import Final, NamedTuple

from wgd.tun.memory import MemoryTun

NEEDS_CSUM: Final = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4 = 0, 1, 4, 5
GSO_ECN: Final = 0x80

TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))

_EXTENSIONS: Final = (0, 43, 60)  # hop-by-hop, routing, destination options


class VirtioHeader(NamedTuple):
    """What stands before each packet; numbers in the machine's byte order."""

    flags: int = 0
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    @classmethod
    def parse(cls, data: bytes) -> tuple["VirtioHeader", bytes]:
        """Return a header and what comes after it."""
        return cls(*struct.unpack_from("=BBHHHH", data)), data[10:]

    def to_bytes(self) -> bytes:
        """Return the 10 bytes."""
        return struct.pack("=BBHHHH", *self)


# -- headers ---------------------------------------------------------------------------------------


def get(packet: bytes, position: int) -> int:
    """Return the 16-bit number at a place."""
    return int.from_bytes(packet[position : position + 2], "big")


def put(packet: bytes, position: int, number: int) -> bytes:
    """Return the packet with another 16-bit number there."""
    return packet[:position] + struct.pack("!H", number) + packet[position + 2 :]


def internet_sum(data: bytes) -> int:
    """The sum of RFC 1071, not yet complemented."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def transport(packet: bytes) -> tuple[int, int]:
    """The protocol of the transport header, and where it begins."""
    if packet[0] >> 4 == 4:
        return packet[9], (packet[0] & 15) * 4
    protocol, start = packet[6], 40
    while protocol in _EXTENSIONS:
        protocol, start = packet[start], start + 8 * packet[start + 1] + 8
    return protocol, start


def pseudo_header(packet: bytes) -> bytes:
    """What the transport checksum counts of the packet besides the transport."""
    protocol, start = transport(packet)
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return addresses + struct.pack("!II", len(packet) - start, protocol)


def with_ipv4_checksum(packet: bytes) -> bytes:
    """Return an IPv4 packet with a right header checksum, any other packet as it is."""
    if packet[0] >> 4 == 6:
        return packet
    packet = put(packet, 10, 0)
    return put(packet, 10, 0xFFFF - internet_sum(packet[: (packet[0] & 15) * 4]))


def with_checksum(packet: bytes) -> bytes:
    """Return a TCP or UDP packet with the right transport checksum."""
    protocol, start = transport(packet)
    field = start + (16 if protocol == TCP else 6)
    packet = put(packet, field, 0)
    checksum = 0xFFFF - internet_sum(pseudo_header(packet) + packet[start:])
    if protocol == UDP and checksum == 0:
        checksum = 0xFFFF  # 0 would say that there is none
    return put(packet, field, checksum)


def with_partial_checksum(packet: bytes) -> bytes:
    """Return a TCP or UDP packet whose checksum is yet to be completed: NEEDS_CSUM."""
    protocol, start = transport(packet)
    field = start + (16 if protocol == TCP else 6)
    return put(packet, field, internet_sum(pseudo_header(packet)))


# -- super-packets ---------------------------------------------------------------------------------


def cut(header: VirtioHeader, packet: bytes) -> list[bytes]:
    """Return the packets that one with a virtio-net header stands for."""
    if header.gso_type == GSO_NONE:
        return [_completed(header, packet) if header.flags & NEEDS_CSUM else packet]
    protocol, start = transport(packet)
    headers = start + (packet[start + 12] // 16 * 4 if protocol == TCP else 8)
    payload = packet[headers:]
    offsets = range(0, max(len(payload), 1), header.gso_size)
    packets = []
    for number, offset in enumerate(offsets):
        segment = packet[:headers] + payload[offset : offset + header.gso_size]
        if packet[0] >> 4 == 4:
            segment = put(segment, 2, len(segment))
            segment = put(segment, 4, (get(packet, 4) + number) % 2**16)
        else:
            segment = put(segment, 4, len(segment) - 40)
        if protocol == TCP:
            sequence = (int.from_bytes(packet[start + 4 : start + 8], "big") + offset) % 2**32
            flags = packet[start + 13]
            if number > 0:
                flags &= ~CWR
            if number < len(offsets) - 1:
                flags &= ~(FIN | PSH)
            segment = put(put(segment, start + 4, sequence >> 16), start + 6, sequence % 2**16)
            segment = put(segment, start + 12, packet[start + 12] << 8 | flags)
        else:
            segment = put(segment, start + 4, len(segment) - start)
        packets.append(with_checksum(with_ipv4_checksum(segment)))
    return packets


def _completed(header: VirtioHeader, packet: bytes) -> bytes:
    """Return the packet with its checksum; as in Linux, of no protocol it is 0."""
    checksum = 0xFFFF - internet_sum(packet[header.csum_start :])
    return put(packet, header.csum_start + header.csum_offset, checksum or 0xFFFF)


def check_super_packet(header: VirtioHeader, packet: bytes) -> None:
    """Fail unless a kernel can make right packets of this one."""
    protocol, start = transport(packet)
    is_ipv6 = packet[0] >> 4 == 6
    tcp_type = GSO_TCPV6 if is_ipv6 else GSO_TCPV4
    assert header.gso_type == {TCP: tcp_type, UDP: GSO_UDP_L4}[protocol]
    headers = start + (packet[start + 12] // 16 * 4 if protocol == TCP else 8)
    assert header == (
        NEEDS_CSUM,
        header.gso_type,
        headers,
        header.gso_size,
        start,
        16 if protocol == TCP else 6,
    )
    assert 0 < header.gso_size < len(packet) - headers
    assert len(packet) <= 65_535
    if is_ipv6:
        assert get(packet, 4) == len(packet) - 40
    else:
        assert get(packet, 2) == len(packet)
        assert internet_sum(packet[:start]) == 0xFFFF
    if protocol == UDP:
        assert get(packet, start + 4) == len(packet) - start
        assert len(packet) - headers <= 64 * header.gso_size
    assert with_partial_checksum(packet) == packet


class Written(NamedTuple):
    """A packet that came out of a TUN, and which one it was of those written together."""

    packet: bytes
    place: int


class VirtioTun(MemoryTun):
    """A TUN whose packets have a virtio-net header: `inject` and `take` are without.

    Set `refuses_super_packets` for a kernel that has promised too much.
    """

    has_virtio_header = True

    def __init__(self) -> None:
        super().__init__()
        self.refuses_super_packets = False
        self.super_packets = 0
        """How many were written and taken."""
        self.taken: list[Written] = []
        """What `take` returned last."""

    def inject(self, packet: bytes) -> bool:
        return super().inject(VirtioHeader().to_bytes() + packet)

    def inject_raw(self, data: bytes) -> None:
        """Let this be read, whatever it is."""
        assert super().inject(data)

    def write(self, packet: memoryview) -> None:
        header, _ = VirtioHeader.parse(bytes(packet))
        if header.gso_type and self.refuses_super_packets:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        super().write(packet)

    def take(self) -> list[bytes]:
        self.taken = []
        for data in super().take():
            header, packet = VirtioHeader.parse(data)
            if header.gso_type:
                check_super_packet(header, packet)
                self.super_packets += 1
            else:
                assert header == VirtioHeader()
            self.taken += [Written(each, place) for place, each in enumerate(cut(header, packet))]
        return [written.packet for written in self.taken]
