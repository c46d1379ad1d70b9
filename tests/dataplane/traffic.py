"""What the differential tests send, where to, and what fails: plans, and strategies to draw them.

A plan is small and prints well. It becomes bytes only when it is sent, because a datagram depends
on the sessions that there are then, and because each packet gets a number of its own.
"""

import errno
import ipaddress
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2s
from typing import Final, TypeVar

from hypothesis import strategies as st

from tests.dataplane.lab import A_ADDRESS, B_ADDRESS, OUR_ADDRESS, PORT
from tests.dataplane.pair import OTHER_ADDRESS, OUR_ADDRESS_6
from wgd.addresses import Endpoint, Source

REJECT_AFTER_MESSAGES: Final = 2**64 - 2**13 - 1
MAX_UDP_PAYLOAD: Final = 65_507

V4_PREFIXES: Final = ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.1/32")
V6_PREFIXES: Final = ("::/0", "fd00::/8", "fd00:1::/32", "fd00:1::/64", "fd00:1::1/128")
V4_ADDRESSES: Final = ("10.0.0.1", "10.1.0.1", "10.1.1.1", "10.1.1.2", "10.200.0.1", "172.16.0.1")
V6_ADDRESSES: Final = ("fd00:1::1", "fd00:1::2", "fd00:1:0:1::1", "fd00:2::1", "2001:db8:9::1")

MAC1_KEY: Final = bytes(range(32))

T = TypeVar("T")


def weighted(*choices: tuple[int, st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """One of several, each as often as its number says; `one_of` takes equals for one."""
    drawn = [choice for weight, choice in choices for _ in range(weight)]
    return st.integers(0, len(drawn) - 1).flatmap(lambda number: drawn[number])


# -- places and faults -----------------------------------------------------------------------------

_sources = st.sampled_from(
    (None, None, Source(OUR_ADDRESS, 1), Source(OTHER_ADDRESS, 1), Source("192.0.2.250", 1))
)
_sources_6 = st.sampled_from((None, Source(OUR_ADDRESS_6, 1), Source("2001:db8::250", 1)))
endpoints = st.one_of(
    st.builds(
        lambda host, source: Endpoint(host, PORT, 0, source),
        st.sampled_from((A_ADDRESS, B_ADDRESS, "203.0.113.9")),
        _sources,
    ),
    st.builds(lambda source: Endpoint("2001:db8::1", PORT, 0, source), _sources_6),
)
_SAY_NOTHING_OF_BATCHES: Final = (errno.EINTR, errno.ENETUNREACH, errno.EPERM)
send_errors = st.lists(
    st.sampled_from(
        (
            errno.EAGAIN,
            errno.ENOBUFS,
            errno.EINVAL,
            errno.EIO,
            errno.EMSGSIZE,
            errno.EOPNOTSUPP,
            *_SAY_NOTHING_OF_BATCHES,
        )
    ),
    min_size=1,
    max_size=4,
)
receive_errors = st.lists(
    st.sampled_from((errno.EAGAIN, errno.ECONNREFUSED, errno.EINTR, errno.EIO, errno.ENETDOWN)),
    min_size=1,
    max_size=4,
)


def say_nothing_of_batches(*errors: Iterable[int]) -> bool:
    """Whether there are errors among these that a single datagram could meet as well."""
    return any(number in _SAY_NOTHING_OF_BATCHES for numbers in errors for number in numbers)


# -- packets ---------------------------------------------------------------------------------------


def _patched(packet: bytes, position: int, *values: int) -> bytes:
    return packet[:position] + bytes(values) + packet[position + len(values) :]


def _with_length(packet: bytes, difference: int) -> bytes:
    """An inner packet whose header says that it is longer than it is, or shorter."""
    position = 2 if packet[0] >> 4 == 4 else 4
    (length,) = struct.unpack_from("!H", packet, position)
    length = min(max(length + difference, 0), 65_535)
    return _patched(packet, position, length >> 8, length & 255)


LIES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "it is of version 5": lambda packet: _patched(packet, 0, 0x55),
    "its header has 16 bytes": lambda packet: _patched(packet, 0, packet[0] & 0xF0 | 4),
    "its header has 60 bytes": lambda packet: _patched(packet, 0, packet[0] & 0xF0 | 15),
    "it is longer by 1": lambda packet: _with_length(packet, 1),
    "it is longer by 16": lambda packet: _with_length(packet, 16),
    "it is longer by 64 KiB": lambda packet: _with_length(packet, 65_535),
    "it is shorter by 1": lambda packet: _with_length(packet, -1),
    "it has no length": lambda packet: _with_length(packet, -65_535),
    "it has a whole header": lambda packet: packet[:10],
    "it is a packet": lambda packet: b"",
    "there is something in it": lambda packet: bytes(len(packet)),
}
"""What a packet may claim wrongly."""


@dataclass(frozen=True)
class Packet:
    """An IP packet of `size` bytes, header included."""

    source: str
    destination: str
    size: int
    lie: str | None = None

    def build(self, number: int) -> bytes:
        """Return the packet; `number` makes it one of its own."""
        source = ipaddress.ip_address(self.source)
        destination = ipaddress.ip_address(self.destination)
        addresses = source.packed + destination.packed
        if source.version == 4:
            size = max(self.size, 20)
            header = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, 0, 64, 253, 0)
        else:
            size = max(self.size, 40)
            header = struct.pack("!IHBB", 6 << 28, size - 40, 253, 64)
        header += addresses
        payload = number.to_bytes(4, "big") * (size // 4 + 1)
        packet = header + payload[: size - len(header)]
        return LIES[self.lie](packet) if self.lie else packet


def with_source(packet: bytes, addresses: Iterable[bytes]) -> bytes:
    """Return the packet with one of these as its source, if one is of its family."""
    if not packet:
        return packet
    size, position = (4, 12) if packet[0] >> 4 == 4 else (16, 8)
    for address in addresses:
        if len(address) == size:
            return _patched(packet, position, *address)[: len(packet)]
    return packet


sizes = st.one_of(
    st.sampled_from((20, 40, 64, 64, 1200, 1200, 1408, 1409, 1419, 1420, 1421, 1500)),
    st.integers(20, 1500),
)
large_sizes = st.one_of(st.integers(1500, 65_000), st.sampled_from((65_440, 65_475, 65_535)))
lies = st.sampled_from((None,) * 25 + tuple(LIES))
_address_pairs = st.one_of(
    st.tuples(st.sampled_from(V4_ADDRESSES), st.sampled_from(V4_ADDRESSES)),
    st.tuples(st.sampled_from(V6_ADDRESSES), st.sampled_from(V6_ADDRESSES)),
)


def packets(of_sizes: st.SearchStrategy[int] = sizes) -> st.SearchStrategy[Packet]:
    """Packets, most of them honest."""
    return st.builds(
        lambda pair, size, lie: Packet(pair[0], pair[1], size, lie), _address_pairs, of_sizes, lies
    )


trains = st.builds(
    lambda packet, count, last: [packet] * count + ([last] if last else []),
    packets(),
    st.integers(2, 12),
    st.none() | packets(),
)
"""Neighbours of one size, and perhaps another packet after them."""


# -- datagrams -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sealed:
    """A transport message of the session that is the `session`th from the youngest.

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
class Limit:
    """A transport message with a counter at the limit: the window is there from then on."""

    session: int
    counter: int


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
    """An initiation (1), response (2) or cookie reply (3)."""

    kind: int
    is_right: bool = True
    excess: int = 0
    count: int = 1

    def build(self, number: int) -> bytes:
        """Return the datagram; `number` makes it one of its own."""
        size = {1: 148, 2: 92, 3: 64}[self.kind] + self.excess
        covered = (struct.pack("<II", self.kind, number) + bytes(size))[: size - 32]
        mac1 = blake2s(covered, digest_size=16, key=MAC1_KEY).digest()
        if not self.is_right:
            mac1 = _patched(mac1, 15, mac1[15] ^ 1)
        return covered + mac1 + bytes(16)


Datagram = Sealed | Limit | Again | Garbage | HandshakeMessage

_sessions = st.sampled_from((0,) * 8 + (1,) * 5 + (2, 2, 3, 4, 5, 6))
_counters = st.sampled_from((None,) * 40 + (-1, -2, -3, -64, -8128, -8129, -9000, 1, 5, 64, 8200))
_damages = st.sampled_from((None,) * 40 + tuple(DAMAGES))
_honest = st.builds(Sealed, packets() | st.none(), _sessions)

sealed = st.builds(
    Sealed,
    weighted((6, packets() | st.none()), (1, packets(large_sizes))),
    _sessions,
    st.sampled_from((True, True, False)),
    _counters,
    st.sampled_from((True, True, True, False)),
    _damages,
)
limits = st.builds(
    Limit,
    _sessions,
    st.sampled_from((REJECT_AFTER_MESSAGES - 1, REJECT_AFTER_MESSAGES, 2**64 - 1)),
)
garbage = st.builds(
    Garbage, st.sampled_from((None, 0, 1, 2, 3, 4, 5, 1 << 8, 4 << 24)), st.binary(max_size=200)
)
handshake_messages = st.one_of(
    st.builds(HandshakeMessage, st.sampled_from((1, 2, 3))),
    st.builds(HandshakeMessage, st.sampled_from((1, 2)), st.just(False)),
    st.builds(HandshakeMessage, st.sampled_from((1, 2, 3)), excess=st.sampled_from((-1, 1))),
    st.just(HandshakeMessage(3, count=70)),  # more than are queued
)
_any: list[tuple[int, st.SearchStrategy[Datagram]]] = [
    (20, _honest),
    (16, sealed),
    (4, st.builds(Again, st.integers(0, 20))),
    (4, garbage),
    (4, handshake_messages),
    (1, limits),
]
datagrams = weighted(*_any)


@dataclass(frozen=True)
class Burst:
    """Datagrams of one sender (its place in `Side.far_ends`)."""

    sender: int
    datagrams: list[Datagram]


_senders = st.sampled_from((0, 0, 0, 1, 1, 2, 3))
bursts = st.builds(Burst, _senders, st.lists(datagrams, min_size=1, max_size=10))
alike = st.builds(
    lambda sender, first, datagram, count: Burst(sender, [first, *[datagram] * count]),
    _senders,
    datagrams,
    _honest,
    st.integers(1, 9),
)
"""Datagrams of one size, which a kernel puts together."""
