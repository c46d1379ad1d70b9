"""Packets through both engines side by side, and who an inner address belongs to."""

import struct
from collections.abc import Iterable
from typing import Final

from tests.dataplane.lab import A, B
from tests.dataplane.machine import Machine
from tests.dataplane.traffic import KEYS, V4_ADDRESSES, V6_ADDRESSES, packed
from tests.fuzz.target import Input, Target
from wgd.addresses import Prefix
from wgd.dataplane.allowed_ips import AllowedIps
from wgd.noise.replay import ReplayWindow

# -- transport messages and inner packets ----------------------------------------------------------

_SECOND: Final = 1_000_000_000
_TIMES: Final = (0, _SECOND, 10 * _SECOND, 120 * _SECOND, 180 * _SECOND)
_MTUS: Final = (1420, 0, 68, 1280, 65_535)


def _run_packets(data: bytes) -> None:
    """Whatever comes, from outside or out of the TUN, both engines do the same, and send nothing
    that was not put in: the checks are those of `tests.dataplane.pair`.
    """
    given = Input(data)
    machine = Machine()
    try:
        far_ends = [machine.install(A, initiator=True), machine.install(B, initiator=False)]
        for _ in range(32):
            if not given:
                break
            action, number = given.byte() % 9, given.byte()
            far = far_ends[number % 2]
            match action:
                case 0:
                    machine.send([_inner(given, number)])
                case 1:
                    datagram = far.seal(_inner(given, number), pad=bool(number & 4))
                    machine.receive([(number // 8 % 4, datagram)])
                case 2:
                    machine.receive([(number // 8 % 4, _noise(given, number))])
                case 3:
                    damaged = bytearray(far.seal(_inner(given, number)))
                    damaged[given.byte() % len(damaged)] ^= given.byte()
                    machine.receive([(number // 8 % 4, bytes(damaged))])
                case 4:
                    far.counter += given.number()
                    again = max(far.counter - given.number(), 0)
                    sealed = far.seal(b"", far.counter), far.seal(b"", again)
                    far.counter += 1
                    machine.receive([(0, each) for each in sealed])
                case 5:
                    machine.pass_time(_TIMES[number % len(_TIMES)])
                case 6:
                    far_ends[number % 2] = machine.install(
                        (A, B)[number % 2], initiator=bool(number & 4)
                    )
                case 7:
                    mtu = _MTUS[number % len(_MTUS)]
                    _set_mtu(machine, mtu)
                case 8:
                    datagrams = [
                        far.seal(_inner(given, number)) for _ in range(2 + number // 8 % 4)
                    ]
                    machine.receive([(0, each) for each in datagrams], coalesced=bool(number & 4))
    finally:
        machine.teardown()


def _set_mtu(machine: Machine, mtu: int) -> None:
    machine.pair.both(lambda side: side.engine.set_mtu(mtu))


def _inner(given: Input, number: int) -> bytes:
    """A packet as it comes, or one with an honest header in which some bytes are changed."""
    size = given.byte()
    if number & 0x40:
        return given.take(size)
    address = given.choice(V4_ADDRESSES + V6_ADDRESSES)
    payload = given.take(size)
    if ":" in address:
        head = struct.pack("!IHBB", 6 << 28, len(payload), 17, 64)
    else:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, 17, 0)
    packet = bytearray(head + packed(address) * 2 + payload)
    if number & 0x80:
        packet[given.byte() % 40 % len(packet)] ^= given.byte()
    return bytes(packet)


def _noise(given: Input, number: int) -> bytes:
    """A datagram as it comes, with a known type now and then."""
    content = given.take(given.byte())
    return bytes([number % 6, 0, 0, 0]) + content if number & 0x80 else content


def _packet_seeds() -> Iterable[bytes]:
    yield b"\0\0\x20\0" + bytes(32) + b"\1\0\x20\0" + bytes(32)
    yield b"\1\1\x20\1" + bytes(32) + b"\0\1\x20\2" + bytes(32)
    yield b"\1\x40\x14" + b"\x45" + bytes(19) + b"\0\x40\x28" + b"\x60" + bytes(39)
    yield b"\1\x80\x10\0" + bytes(16) + b"\x03\xff\2\x80\x20" + bytes(range(32))
    yield b"\3\0\x10\0" + bytes(16) + b"\x08\1\4\0\0\x40\0\x20\4\0\x20\0\0\1"
    yield b"\5\3\0\0\x10\0" + bytes(16) + b"\6\0\6\5\7\2\0\0\x10\0" + bytes(16)
    yield b"\x08\4\x10\0" + bytes(16) + b"\x20\0" + bytes(32)


# -- allowed IPs -----------------------------------------------------------------------------------


def _run_allowed_ips(data: bytes) -> None:
    """The table says what a search of all prefixes says."""
    given = Input(data)
    table: AllowedIps[int] = AllowedIps()
    naive: dict[Prefix, int] = {}
    for _ in range(64):
        if not given:
            break
        action, owner = given.byte(), given.byte() % 4 + 1
        size = 16 if action & 0x80 else 4
        address = given.take(2).ljust(size - 1, b"\0") + given.take(1)
        address = address.ljust(size, b"\0")
        length = given.byte() % (8 * size + 1)
        entry = Prefix.of(address, length)
        match action % 4:
            case 0 | 1:
                table.insert(entry, owner)
                naive[entry] = owner
            case 2:
                table.remove(entry, owner)
                if naive.get(entry) == owner:
                    del naive[entry]
            case 3:
                table.remove_all(owner)
                naive = {each: who for each, who in naive.items() if who != owner}
        for asked in (address, entry.address, b"\xff" * size, bytes(size)):
            assert table.lookup(asked) == _search(naive, asked)
    for owner in range(1, 5):
        assert set(table.entries(owner)) == {each for each in naive if naive[each] == owner}


def _search(naive: dict[Prefix, int], address: bytes) -> int | None:
    holding = [
        each
        for each in naive
        if len(each.address) == len(address) and Prefix.of(address, each.length) == each
    ]
    return naive[max(holding, key=lambda each: each.length)] if holding else None


# -- the replay window -----------------------------------------------------------------------------


def _run_replay(data: bytes) -> None:
    """The window accepts what a set of all counters seen would."""
    given = Input(data)
    window = ReplayWindow()
    seen: set[int] = set()
    greatest = -1
    counter = 0
    for _ in range(256):
        if not given:
            break
        match given.byte() % 5:
            case 0:
                counter = max(greatest, 0) + given.byte()
            case 1:
                counter = max(greatest - given.number() % 8200, 0)
            case 2:
                counter = max(greatest, 0) + given.number()
            case 3:
                counter = int.from_bytes(given.take(8), "big")
            case 4:
                counter = max(greatest - 8128 + given.byte() % 3 - 1, 0)
        is_new = counter not in seen and greatest - counter <= 8128
        expected = is_new and counter < 2**64 - 2**13 - 1
        assert window.accept(counter) is expected, counter
        if expected:
            seen.add(counter)
            greatest = max(greatest, counter)


TARGETS: Final = (
    Target(
        "packets",
        _run_packets,
        (
            *("wgd.dataplane.portable_inbound", "wgd.dataplane.portable_outbound"),
            *("wgd.dataplane.portable_state", "wgd.dataplane.handshake_queue"),
            *("wgd.dataplane.keypairs", "wgd.noise.replay"),
        ),
        _packet_seeds,
        (b"\x45\0\0\x14", b"\x60\0\0\0\0\0", packed("10.0.0.1"), packed("fd00:1::1"), KEYS.mac1),
        512,
        needs_native=True,
    ),
    Target(
        "allowed_ips",
        _run_allowed_ips,
        ("wgd.dataplane.allowed_ips",),
        lambda: (
            b"\0\0\x0a\0\0\x08\1\1\x0a\1\0\x10\2\0\x0a\0\0\x08\3\1\0\0\0\0",
            b"\x80\0\xfd\0\0\x08",
        ),
        max_size=384,
    ),
    Target(
        "replay",
        _run_replay,
        ("wgd.noise.replay",),
        lambda: (b"\0\1\0\1\1\0\1\1\x1f\xc0\2\xff\xff\4\0\4\1\4\2", b"\3" + b"\xff" * 8 + b"\4\1"),
        max_size=512,
    ),
)
