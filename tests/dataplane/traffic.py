"""What the differential tests send, where to, and what fails: plans, and strategies to draw them.

A plan is small and prints well. It becomes bytes only when it is sent, because a datagram depends
on the sessions that there are then, and because each packet gets a number of its own.
"""

import errno
import ipaddress
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import blake2s
from random import Random
from typing import Final, TypeVar

from hypothesis import strategies as st

from tests.dataplane.lab import A_ADDRESS, B_ADDRESS, OUR_ADDRESS, PORT
from tests.dataplane.pair import OTHER_ADDRESS, OTHER_ADDRESS_6, OUR_ADDRESS_6
from wgd.addresses import Endpoint, Source
from wgd.noise.cookie import HandshakeKeys

REJECT_AFTER_MESSAGES: Final = 2**64 - 2**13 - 1
MAX_UDP_PAYLOAD: Final = 65_507

V4_PREFIXES: Final = ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.1/32")
V6_PREFIXES: Final = ("::/0", "fd00::/8", "fd00:1::/32", "fd00:1::/64", "fd00:1::1/128")
V4_ADDRESSES: Final = ("10.0.0.1", "10.1.0.1", "10.1.1.1", "10.1.1.2", "10.200.0.1", "172.16.0.1")
V6_ADDRESSES: Final = ("fd00:1::1", "fd00:1::2", "fd00:1:0:1::1", "fd00:2::1", "2001:db8:9::1")

KEYS: Final = HandshakeKeys(mac1=bytes(range(32)), reply=bytes(range(32, 64)))

T = TypeVar("T")


@cache
def packed(address: str) -> bytes:
    """Return the 4 or 16 bytes of an address."""
    return ipaddress.ip_address(address).packed


def seeded(draw: Callable[[Random, int], T]) -> st.SearchStrategy[T]:
    """What `draw` makes with a `Random`: a tenth of what strategies within strategies cost.

    It is also given how many of one thing there may be. That is few for small seeds, so that
    hypothesis finds small examples.
    """

    def from_seed(seed: int) -> T:
        return draw(Random(seed), 1 + seed.bit_length() // 2)

    return st.integers(0, 2**24 - 1).map(from_seed)


# -- places and faults -----------------------------------------------------------------------------

HOSTS: Final = (A_ADDRESS, B_ADDRESS, "203.0.113.9", "2001:db8::1")
_SOURCES: Final = (None, OUR_ADDRESS, OTHER_ADDRESS, "192.0.2.250")
_SOURCES_6: Final = (None, OUR_ADDRESS_6, OTHER_ADDRESS_6, "2001:db8::250")


def endpoint_of(number: int) -> Endpoint:
    """One of 16 endpoints: four hosts, each without a source and with three."""
    host = HOSTS[number % 4]
    source = (_SOURCES_6 if ":" in host else _SOURCES)[number // 4 % 4]
    return Endpoint(host, PORT, 0, None if source is None else Source(source, 1))


SEND_ERRORS: Final = (
    errno.EAGAIN,
    errno.EINVAL,
    errno.EIO,
    errno.EMSGSIZE,
    errno.ENOBUFS,
    errno.EOPNOTSUPP,
    errno.EINTR,
    errno.ENETUNREACH,
    errno.EPERM,
)
RECEIVE_ERRORS: Final = (
    errno.EAGAIN,
    errno.ECONNREFUSED,
    errno.EINTR,
    errno.EIO,
    errno.ENETDOWN,
)


# -- packets ---------------------------------------------------------------------------------------


def _patched(packet: bytes, position: int, *values: int) -> bytes:
    return packet[:position] + bytes(values) + packet[position + len(values) :]


def _with_length(packet: bytes, difference: int) -> bytes:
    """The packet with a header that says it is so many bytes longer than it is."""
    position = 2 if packet[0] >> 4 == 4 else 4
    (length,) = struct.unpack_from("!H", packet, position)
    length = min(max(length + difference, 0), 65_535)
    return _patched(packet, position, length >> 8, length & 255)


LIES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "version 5": lambda packet: _patched(packet, 0, 0x55),
    "header of 16 bytes": lambda packet: _patched(packet, 0, packet[0] & 0xF0 | 4),
    "header of 60 bytes": lambda packet: _patched(packet, 0, packet[0] & 0xF0 | 15),
    "1 byte too long": lambda packet: _with_length(packet, 1),
    "16 bytes too long": lambda packet: _with_length(packet, 16),
    "64 KiB too long": lambda packet: _with_length(packet, 65_535),
    "1 byte too short": lambda packet: _with_length(packet, -1),
    "no length": lambda packet: _with_length(packet, -65_535),
    "half a header": lambda packet: packet[:10],
    "nothing": lambda packet: b"",
    "all zero": lambda packet: bytes(len(packet)),
}
"""How a packet, or what its header says of it, may be wrong."""


@dataclass(frozen=True)
class Packet:
    """An IP packet of `size` bytes, header included."""

    source: str
    destination: str
    size: int
    lie: str | None = None
    traffic_class: int = 0

    def build(self, number: int) -> bytes:
        """Return the packet; `number` makes it one of its own."""
        addresses = packed(self.source) + packed(self.destination)
        if len(addresses) == 8:
            size = max(self.size, 20)
            header = struct.pack("!BBHHHBBH", 0x45, self.traffic_class, size, 0, 0, 64, 253, 0)
        else:
            size = max(self.size, 40)
            first = 6 << 28 | self.traffic_class << 20
            header = struct.pack("!IHBB", first, size - 40, 253, 64)
        header += addresses
        payload = number.to_bytes(4, "big") * (size // 4 + 1)
        packet = header + payload[: size - len(header)]
        return LIES[self.lie](packet) if self.lie else packet


def with_source(packet: bytes, addresses: Iterable[str]) -> bytes:
    """Return the packet with one of these as its source, if one is of its family."""
    if not packet:
        return packet
    size, position = (4, 12) if packet[0] >> 4 == 4 else (16, 8)
    for address in map(packed, addresses):
        if len(address) == size:
            return _patched(packet, position, *address)[: len(packet)]
    return packet


OUTER_TRAFFIC_CLASSES: Final = (0, 0, 0, 1, 2, 3, 3, 0x88)
"""What datagrams come with, one for all that come at once."""

SIZES: Final = (20, 40, 64, 1200, 1280, 1408, 1409, 1419, 1420, 1421, 1500)
LARGE_SIZES: Final = (2840, 9000, 32_000, 65_000, 65_440, 65_475, 65_535)


def draw_packet(random: Random) -> Packet:
    """Draw a packet, most often an honest one."""
    addresses = random.choice((V4_ADDRESSES, V6_ADDRESSES))
    size = random.choice(SIZES) if random.randrange(3) else random.randint(20, 1500)
    if random.randrange(25) == 0:
        size = random.choice(LARGE_SIZES)
    lie = random.choice(tuple(LIES)) if random.randrange(10) == 0 else None
    traffic_class = random.choice((0, 0, 0, 1, 2, 3, 0x8A, 0xFC))
    return Packet(random.choice(addresses), random.choice(addresses), size, lie, traffic_class)


def draw_packets(random: Random, most: int) -> list[Packet]:
    """Draw some packets: neighbours of one size and others after them."""
    packets = []
    for _ in range(random.randint(1, 3)):
        packets += [draw_packet(random)] * random.choice((1, 1, random.randint(1, most)))
    return packets


# -- datagrams -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sealed:
    """A transport message of the session with this number (see `Lockstep.session`).

    If `is_honest`, the packet's source is one that belongs to the peer, if any does. `counter` is
    None for the next one, else relative to that: a negative one was there before or is late, a
    positive one leaves a gap. `damage` comes after sealing.
    """

    packet: Packet | None
    session: int = 0
    is_honest: bool = True
    counter: int | None = None
    is_padded: bool = True
    damage: str | None = None


DAMAGES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "tag": lambda datagram: _patched(datagram, len(datagram) - 1, datagram[-1] ^ 1),
    "packet": lambda datagram: _patched(datagram, 16, datagram[16] ^ 0x80),
    "counter": lambda datagram: _patched(datagram, 8, datagram[8] ^ 1),
    "index": lambda datagram: _patched(datagram, 5, datagram[5] ^ 0x40),
    "reserved byte": lambda datagram: _patched(datagram, 2, 1),
    "one byte less": lambda datagram: datagram[:-1],
    "one byte more": lambda datagram: datagram + b"\0",
    "31 bytes": lambda datagram: datagram[:31],
    "32 bytes": lambda datagram: datagram[:32],
}


@dataclass(frozen=True)
class Again:
    """What was received before, `back` datagrams ago."""

    back: int


@dataclass(frozen=True)
class Garbage:
    """Any bytes, that begin with a message type if `kind` is one."""

    kind: int | None
    rest: bytes

    def build(self) -> bytes:
        """Return the datagram."""
        return (b"" if self.kind is None else struct.pack("<I", self.kind)) + self.rest


@dataclass(frozen=True)
class HandshakeMessage:
    """An initiation (1), response (2) or cookie reply (3); the last two answer one of ours."""

    kind: int
    is_right: bool = True
    excess: int = 0

    def build(self, number: int, answers: int = 0) -> bytes:
        """Return the datagram; `number` makes it one of its own, `answers` is our index."""
        size = {1: 148, 2: 92, 3: 64}[self.kind] + self.excess
        indices = (answers, number) if self.kind == 3 else (number, answers)
        covered = (struct.pack("<III", self.kind, *indices) + bytes(size))[: size - 32]
        mac1 = blake2s(covered, digest_size=16, key=KEYS.mac1).digest()
        if not self.is_right:
            mac1 = _patched(mac1, 15, mac1[15] ^ 1)
        return covered + mac1 + bytes(16)


Datagram = Sealed | Again | Garbage | HandshakeMessage


def draw_sealed(random: Random) -> Sealed:
    """Draw a transport message, most often a good one."""
    packet = draw_packet(random) if random.randrange(5) else None
    session = random.choice((0, 0, 0, 0, 1, 1, 2, 3, 4, 5))
    if random.randrange(3):
        return Sealed(packet, session)
    near = (-1, -2, -64, -8128, -8129, -9000, 1, 64, 8200)
    return Sealed(
        packet,
        session,
        is_honest=random.random() < 0.7,
        counter=random.choice(near) if random.random() < 0.3 else None,
        is_padded=random.random() < 0.8,
        damage=random.choice(tuple(DAMAGES)) if random.random() < 0.3 else None,
    )


def draw_datagram(random: Random) -> Datagram:
    """Draw a datagram of any kind."""
    kind = random.randrange(12)
    if kind == 0:
        return Again(random.randrange(20))
    if kind == 1:
        kinds = (None, 0, 1, 2, 3, 4, 5, 1 << 8, 4 << 24)
        return Garbage(random.choice(kinds), random.randbytes(random.randrange(200)))
    if kind == 2:
        return HandshakeMessage(
            random.choice((1, 2, 3)),
            is_right=random.random() < 0.7,
            excess=random.choice((0, 0, 0, 0, -1, 1)),
        )
    return draw_sealed(random)


@dataclass(frozen=True)
class Burst:
    """Datagrams of one sender (its place in `Side.far_ends`)."""

    sender: int
    datagrams: list[Datagram]


def draw_bursts(random: Random, most: int) -> list[Burst]:
    """Draw what a few senders send: datagrams of one size, which a kernel may put together, too."""
    bursts = []
    for _ in range(random.randint(1, 3)):
        datagrams: list[Datagram] = []
        while random.randrange(3) or not datagrams:
            count = random.choice((1, 1, random.randint(1, most)))
            datagrams += [draw_datagram(random)] * count
        bursts.append(Burst(random.choice((0, 0, 0, 1, 1, 2, 3)), datagrams))
    return bursts
