"""TCP and UDP flows for tests of offloads: plans of packets and super-packets, and strategies.

Plans become bytes when they are sent, because sequence numbers go on and addresses must be routed.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.dataplane.virtio import (
    ACK,
    CWR,
    ECE,
    FIN,
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    PSH,
    SYN,
    TCP,
    UDP,
    URG,
    VirtioHeader,
    get,
    put,
    transport,
    with_checksum,
    with_ipv4_checksum,
    with_partial_checksum,
)

DO_NOT_FRAGMENT: Final = 0x4000
MAX_SEGMENTS: Final = 700


@dataclass(frozen=True)
class Flow:
    """What the packets of a flow have in common."""

    is_ipv6: bool
    is_tcp: bool
    port: int = 1
    do_not_fragment: bool = True
    has_options: bool = False
    """TCP's, 12 bytes as for timestamps."""
    traffic_class: int = 0


def compose(
    flow: Flow,
    addresses: tuple[bytes, bytes],
    payload: bytes,
    *,
    sequence: int = 0,
    identification: int = 0,
    flags: int = ACK,
    ttl: int = 64,
    window: int = 512,
    extension: int = 0,
) -> bytes:
    """Return a whole packet with right checksums.

    `extension` is how many words (4 bytes of options in IPv4, an 8-byte hop-by-hop header in IPv6)
    are between the IP header and the transport.
    """
    protocol = TCP if flow.is_tcp else UDP
    if flow.is_tcp:
        options = b"\x01\x01\x08\x0a" + bytes(8) if flow.has_options else b""
        size = 20 + len(options)
        header = struct.pack(
            "!HHIIHHHH", 443, flow.port, sequence % 2**32, 7, size // 4 << 12 | flags, window, 0, 0
        )
        header += options
    else:
        header = struct.pack("!HHHH", 443, flow.port, 8 + len(payload), 0)
    body = header + payload
    if flow.is_ipv6:
        between = bytes([protocol, extension - 1]) + b"\x01\x04" + bytes(4) if extension else b""
        between += bytes(max(extension - 1, 0) * 8)
        ip = struct.pack(
            "!IHBB",
            6 << 28 | flow.traffic_class << 20,
            len(between) + len(body),
            0 if extension else protocol,
            ttl,
        )
        ip += addresses[0] + addresses[1] + between
    else:
        ip = struct.pack(
            "!BBHHHBBH",
            0x45 + extension,
            flow.traffic_class,
            20 + 4 * extension + len(body),
            identification % 2**16,
            DO_NOT_FRAGMENT if flow.do_not_fragment else 0,
            ttl,
            protocol,
            0,
        )
        ip += addresses[0] + addresses[1] + b"\x01" * (4 * extension)
    return with_checksum(with_ipv4_checksum(ip + body))


# -- out of the TUN --------------------------------------------------------------------------------


@dataclass(frozen=True)
class SuperPacket:
    """What a kernel hands over for the network card to cut, or to sum up if `segment_size` is 0."""

    flow: Flow
    payload: int
    segment_size: int
    flags: int = ACK
    extension: int = 0
    sequence: int = 0
    identification: int = 0
    needs_checksum: bool = True
    excess_of_hint: int = 0

    def build(self, addresses: tuple[bytes, bytes], number: int) -> tuple[VirtioHeader, bytes]:
        """Return it with its header; `number` makes it one of its own."""
        packet = compose(
            self.flow,
            addresses,
            (number.to_bytes(4, "big") * (self.payload // 4 + 1))[: self.payload],
            sequence=self.sequence,
            identification=self.identification,
            flags=self.flags,
            extension=self.extension,
        )
        _, start = transport(packet)
        is_partial = self.needs_checksum or not self.segment_size
        gso_type = 0
        if self.segment_size:
            tcp_type = GSO_TCPV6 if self.flow.is_ipv6 else GSO_TCPV4
            gso_type = tcp_type if self.flow.is_tcp else GSO_UDP_L4
            if self.flow.is_tcp and self.flags & CWR:
                gso_type |= GSO_ECN
        header = VirtioHeader(
            NEEDS_CSUM if is_partial else 0,
            gso_type,
            len(packet) - self.payload + self.excess_of_hint,
            self.segment_size,
            start if is_partial else 0,
            (16 if self.flow.is_tcp else 6) if is_partial else 0,
        )
        return header, with_partial_checksum(packet) if is_partial else packet


FLAGS: Final = (ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR | PSH, ACK | ECE, ACK | URG)
NUMBERS: Final = (0, 1, 65_530, 2**32 - 3000)
SEGMENT_SIZES: Final = (1, 100, 536, 1200, 1368, 1380, 1400, 8948)


def _draw_flow(random: Random) -> Flow:
    is_ipv6, is_tcp, do_not_fragment, has_options = (random.random() < 0.5 for _ in range(4))
    port, traffic_class = random.randint(1, 3), random.choice((0, 0, 1, 2, 3, 0x8A))
    return Flow(is_ipv6, is_tcp, port, do_not_fragment, has_options, traffic_class)


def draw_super_packet(random: Random, most: int) -> SuperPacket:
    """Draw one that the kernel has put together: of about `most` packets, rarely of hundreds."""
    size = random.choice(SEGMENT_SIZES)
    payload = random.randint(0, most) * size + random.randint(-1, 1)
    if random.randrange(8) == 0:
        payload = random.randint(0, size * MAX_SEGMENTS)
    return SuperPacket(
        _draw_flow(random),
        min(max(payload, 0), 65_535 - 120),
        size,
        flags=random.choice(FLAGS),
        extension=random.choice((0, 0, 1, 2)),
        sequence=random.choice(NUMBERS),
        identification=random.choice(NUMBERS),
        needs_checksum=random.random() < 0.8,
        excess_of_hint=random.choice((0, 0, 40)),
    )


def draw_super_packets(random: Random, most: int) -> list[SuperPacket]:
    """Draw some, and some that only lack a checksum."""
    plans = []
    for _ in range(random.randint(1, 5)):
        if random.randrange(3):
            plans.append(draw_super_packet(random, most))
        else:
            flow, payload = _draw_flow(random), random.randint(0, 1380)
            plans.append(SuperPacket(flow, payload, 0, random.choice(FLAGS)))
    return plans


def _header(**fields: int) -> Callable[[VirtioHeader, bytes], tuple[VirtioHeader, bytes]]:
    return lambda header, packet: (header._replace(**fields), packet)


CONTRADICTIONS: Final[dict[str, Callable[[VirtioHeader, bytes], tuple[VirtioHeader, bytes]]]] = {
    "segments of no size": _header(gso_size=0),
    "fragments": _header(gso_type=3),
    "an unknown type": _header(gso_type=2),
    "the other IP version or transport": lambda header, packet: (
        header._replace(gso_type={1: 4, 4: 1, 5: 1}[header.gso_type & 0x7F]),
        packet,
    ),
    "checksum elsewhere": lambda header, packet: (
        header._replace(flags=1, csum_start=header.csum_start + 2),
        packet,
    ),
    "checksum outside": _header(flags=1, csum_start=65_535, csum_offset=65_535),
    "half a packet": lambda header, packet: (header, packet[: len(packet) // 2]),
    "half an IP header": lambda header, packet: (header, packet[:12]),
    "nothing": lambda header, packet: (header, b""),
    "a fragment": lambda header, packet: (
        header,
        put(packet, 6, 0x2000) if packet[0] >> 4 == 4 else packet[:6] + b"\x2c" + packet[7:],
    ),
    "one byte more": lambda header, packet: (header, packet + b"\0"),
}
"""Ways to make a super-packet contradict itself."""


# -- into the TUN ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Segment:
    """A packet of the flow with this number, and how it differs from its neighbours."""

    flow: int
    payload: int
    twist: str | None = None


def _flipped(packet: bytes, position: int) -> bytes:
    return packet[:position] + bytes([packet[position] ^ 1]) + packet[position + 1 :]


def _as_fragment(packet: bytes) -> bytes:
    if packet[0] >> 4 == 4:
        return with_ipv4_checksum(put(packet, 6, 0x2000))
    return packet[:6] + b"\x2c" + packet[7:]


def _as_icmp(packet: bytes) -> bytes:
    if packet[0] >> 4 == 4:
        return with_ipv4_checksum(packet[:9] + b"\x01" + packet[10:])
    return packet[:6] + b"\x3a" + packet[7:]


AFTERWARDS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "wrong checksum": lambda packet: _flipped(packet, len(packet) - 1),
    "wrong IP checksum": lambda packet: _flipped(packet, 10) if packet[0] >> 4 == 4 else packet,
    "no checksum": lambda packet: (
        put(packet, transport(packet)[1] + 6, 0) if transport(packet)[0] == UDP else packet
    ),
    "fragment": _as_fragment,
    "ICMP": _as_icmp,
    "wrong UDP length": lambda packet: (
        with_checksum(put(packet, transport(packet)[1] + 4, 9))
        if transport(packet)[0] == UDP
        else packet
    ),
    "other traffic class": lambda packet: with_ipv4_checksum(_flipped(packet, 1)),
}
"""Twists that are made when the packet is complete."""

FIELDS: Final[dict[str, dict[str, int]]] = {
    "PSH": {"flags": ACK | PSH},
    "FIN": {"flags": ACK | FIN},
    "SYN": {"flags": ACK | SYN},
    "CWR": {"flags": ACK | CWR},
    "ECE": {"flags": ACK | ECE},
    "URG": {"flags": ACK | URG},
    "ttl": {"ttl": 63},
    "window": {"window": 511},
    "extension": {"extension": 1},
}
"""Twists in the headers."""

COUNTS: Final = ("same sequence", "gap", "same identification", "identification gap")
"""Twists in what counts up."""

TWISTS: Final = (*AFTERWARDS, *FIELDS, *COUNTS, "PSH", "PSH", "PSH", "FIN")


def draw_segments(random: Random, most: int) -> list[Segment]:
    """Draw packets of a few flows, some of them twisted, one flow after the other or mixed."""
    segments = []
    for _ in range(random.randint(1, 4)):
        flow = random.randrange(8)
        payload = random.choice((1200, 1200, 1200, 1348, 1, 600))
        for _ in range(random.randint(1, 2 * most)):
            twist = random.choice(TWISTS) if random.randrange(6) == 0 else None
            size = payload
            if random.randrange(12) == 0:
                size = random.choice((0, 1, payload - 1, payload + 1, payload // 2))
            segments.append(Segment(flow, size, twist))
    if random.randrange(3) == 0:
        random.shuffle(segments)
    return segments


@dataclass
class FlowState:
    """Where a flow is."""

    flow: Flow
    counts_identification: bool
    sequence: int = 2**32 - 4000
    identification: int = 65_530

    def build(self, segment: Segment, addresses: tuple[bytes, bytes], number: int) -> bytes:
        """Return the next packet of the flow; `number` makes it one of its own."""
        twist = segment.twist
        payload = (number.to_bytes(4, "big") * (segment.payload // 4 + 1))[: segment.payload]
        if twist == "gap":
            self.sequence += 5000
        if twist == "identification gap":
            self.identification += 7
        elif twist == "same identification" or not self.counts_identification:
            self.identification -= 1
        self.identification += 1
        packet = compose(
            self.flow,
            addresses,
            payload,
            sequence=self.sequence,
            identification=self.identification,
            **FIELDS.get(twist or "", {}),
        )
        if twist != "same sequence":
            self.sequence += len(payload)
        return AFTERWARDS[twist](packet) if twist in AFTERWARDS else packet


def new_flows() -> list[FlowState]:
    """Eight flows: TCP and UDP over IPv4 and IPv6, in various styles."""
    return [
        FlowState(Flow(is_ipv6=False, is_tcp=True, port=1), counts_identification=True),
        FlowState(
            Flow(is_ipv6=False, is_tcp=True, port=2, traffic_class=2), counts_identification=False
        ),
        FlowState(
            Flow(is_ipv6=False, is_tcp=True, port=3, do_not_fragment=False, has_options=True),
            counts_identification=True,
        ),
        FlowState(Flow(is_ipv6=True, is_tcp=True, port=1, has_options=True, traffic_class=2), True),
        FlowState(Flow(is_ipv6=False, is_tcp=False, port=1), counts_identification=True),
        FlowState(
            Flow(is_ipv6=False, is_tcp=False, port=2, do_not_fragment=False, traffic_class=1),
            counts_identification=False,
        ),
        FlowState(Flow(is_ipv6=True, is_tcp=False, port=1), counts_identification=False),
        FlowState(
            Flow(is_ipv6=True, is_tcp=False, port=2, traffic_class=2), counts_identification=False
        ),
    ]


# -- comparing -------------------------------------------------------------------------------------


def flow_of(packet: bytes) -> object | None:
    """What a packet must keep its order with; None for one that nothing may overtake."""
    protocol, start = transport(packet)
    is_ipv6 = packet[0] >> 4 == 6
    if start != (40 if is_ipv6 else 20):
        return None
    if not is_ipv6 and get(packet, 6) & 0x3FFF:
        return None
    if protocol == (58 if is_ipv6 else 1):
        return "ICMP"
    body = packet[start:]
    is_whole = len(body) >= 20 and 20 <= body[12] // 16 * 4 <= len(body)
    if protocol == UDP:
        is_whole = len(body) >= 8
    if protocol not in (TCP, UDP) or not is_whole:
        return None
    return protocol, packet[12:20] if not is_ipv6 else packet[8:40], body[:4]
