"""What an attacker sends: datagrams by the name of the flood, and from how many addresses."""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from wgd.clock import Instant
from wgd.noise.cookie import CookieGenerator
from wgd.noise.handshake import Handshake, StaticIdentity

_DATAGRAMS: Final = 50_000
_REPLAYS: Final = 2_000
_TRANSPORT_SIZE: Final = 128
_TIME: Final = Instant(0, 1_700_000_000_000_000_000)


@dataclass(frozen=True)
class Target:
    """What the attacker knows: the target's public key, the index of one of its sessions, and a
    peer of it whose initiations were recorded (its keys stand for the recording).
    """

    public_key: bytes
    live_index: int
    recorded: StaticIdentity


@dataclass(frozen=True)
class Flood:
    """`make` yields datagrams that are sent in turn, from `sources` addresses at random."""

    title: str
    make: Callable[[Target], Iterator[bytes]]
    sources: int = 1


def _garbage(_target: Target) -> Iterator[bytes]:
    for _ in range(_DATAGRAMS):
        yield os.urandom(148)


def _wrong_mac1(_target: Target) -> Iterator[bytes]:
    for _ in range(_DATAGRAMS):
        yield struct.pack("<I", 1) + os.urandom(144)


def _unknown_keys(target: Target) -> Iterator[bytes]:
    cookies = CookieGenerator(target.public_key)
    for _ in range(_DATAGRAMS):
        yield cookies.add_macs(struct.pack("<I", 1) + os.urandom(112), 0)


def _replays(target: Target) -> Iterator[bytes]:
    # All of one time: the first is answered, and all others are what a recording is.
    handshake = Handshake(target.recorded, target.public_key)
    cookies = CookieGenerator(target.public_key)
    for number in range(_REPLAYS):
        yield cookies.add_macs(handshake.create_initiation(_TIME, number, os.urandom), 0)


def _transport(index: Callable[[Target], int]) -> Callable[[Target], Iterator[bytes]]:
    def make(target: Target) -> Iterator[bytes]:
        for counter in range(_DATAGRAMS):
            header = struct.pack("<IIQ", 4, index(target), counter)
            yield header + os.urandom(_TRANSPORT_SIZE - len(header))

    return make


def _cookie_replies(_target: Target) -> Iterator[bytes]:
    for _ in range(_DATAGRAMS):
        yield struct.pack("<I", 3) + os.urandom(60)


def _random_index(_target: Target) -> int:
    return int.from_bytes(os.urandom(4), "little")


FLOODS: Final = {
    "none": Flood("none", lambda _target: iter(())),
    "garbage": Flood("random bytes", _garbage),
    "mac1": Flood("initiations, wrong MAC1", _wrong_mac1),
    "keys": Flood("right MAC1, unknown keys, one address", _unknown_keys),
    "spoofed": Flood("the same, 65,536 addresses", _unknown_keys, sources=65_536),
    "unrepeated": Flood("the same, 4,194,304 addresses", _unknown_keys, sources=4_194_304),
    "replays": Flood(f"{_REPLAYS} recorded initiations of a peer", _replays),
    "transport": Flood("transport, random index", _transport(_random_index)),
    "live": Flood("transport, live index", _transport(lambda target: target.live_index)),
    "cookies": Flood("cookie replies, random index", _cookie_replies),
}
