"""Handshake messages and cookie replies: each parser, and a whole device that answers them."""

from collections.abc import Iterable
from random import Random
from typing import Final

from tests.fuzz.target import Input, Target
from wgd.addresses import Endpoint, Prefix
from wgd.clock import VirtualClock
from wgd.configuration import AllowedIpChange, DeviceChange, PeerChange
from wgd.core.device import Device
from wgd.dataplane.interface import OffloadOff, TunClosed
from wgd.dataplane.portable import PortableDataPlane
from wgd.errors import HandshakeError
from wgd.net.memory import MemoryNetwork, Transit
from wgd.noise.cookie import CookieGenerator, HandshakeKeys
from wgd.noise.handshake import Handshake, StaticIdentity
from wgd.noise.messages import (
    CookieReply,
    Initiation,
    MessageType,
    Response,
    message_type,
)
from wgd.noise.primitives import mac
from wgd.status import DeviceStatus
from wgd.tun.memory import MemoryTun

# -- one message -----------------------------------------------------------------------------------

_KINDS: Final = (
    (Initiation, MessageType.INITIATION, 148, 116),
    (Response, MessageType.RESPONSE, 92, 60),
    (CookieReply, MessageType.COOKIE_REPLY, 64, 64),
)


def _run_message(data: bytes) -> None:
    kind = message_type(data)
    for view in (bytearray(data), memoryview(data)):
        assert message_type(view) is kind
    for parser, its_kind, size, covered in _KINDS:
        try:
            parsed = parser.parse(data)
        except HandshakeError:
            assert kind is not its_kind
            continue
        assert kind is its_kind
        assert len(data) == size
        assert parsed.to_bytes() == data[:covered]
        assert "ephemeral" not in repr(parsed)
    assert kind is not MessageType.TRANSPORT or (data[:4] == b"\4\0\0\0" and len(data) >= 32)


def _message_seeds() -> Iterable[bytes]:
    filler = bytes(range(256))
    for number, size in ((1, 148), (2, 92), (3, 64), (4, 32), (4, 1452), (1, 149), (0, 64)):
        yield bytes([number, 0, 0, 0]) + (filler * 6)[: size - 4]


# -- a whole device --------------------------------------------------------------------------------

SECOND: Final = 1_000_000_000
PORT: Final = 51820
OUR_ADDRESS: Final = "192.0.2.100"
_PRIVATE_KEYS: Final = tuple(Random(number).randbytes(32) for number in range(5))
_IDENTITIES: Final = tuple(map(StaticIdentity, _PRIVATE_KEYS))
_PSK: Final = Random(9).randbytes(32)
_STRANGER: Final = 4
"""The last identity is no peer of ours."""


class _World:
    """Our device with three peers, and what those, a stranger and anybody can send to it."""

    def __init__(self) -> None:
        self.random = Random(1)
        self.clock = VirtualClock()
        self.sent: list[Transit] = []
        self.network = MemoryNetwork(self.clock, self._note)
        host = self.network.host("us", OUR_ADDRESS)
        self.socket = host.bind(port=PORT)
        self.others = [
            self.network.host(str(number), f"192.0.2.{number}").bind(port=PORT)
            for number in range(1, 5)
        ]
        self.dataplane = PortableDataPlane(MemoryTun(), self.clock)
        self.dataplane.attach_sockets([self.socket])
        self.device = Device(self.dataplane, self.random.randbytes)
        peers = tuple(
            PeerChange(
                _IDENTITIES[number].public_key,
                preshared_key=_PSK if number == 2 else None,
                endpoint=Endpoint(f"192.0.2.{number}", PORT),
                allowed_ips=(AllowedIpChange(Prefix(bytes([10, 0, 0, number]), 32)),),
            )
            for number in range(1, 4)
        )
        now = self.clock.now()
        self.device.configure(DeviceChange(private_key=_PRIVATE_KEYS[0], peers=peers), now)
        self.device.set_link_up(True, now)
        ours = _IDENTITIES[0].public_key
        self.mac1_key = HandshakeKeys.of(ours).mac1
        self.far_ends = [
            Handshake(_IDENTITIES[number], ours, _PSK if number == 2 else bytes(32))
            for number in range(1, 5)
        ]
        self.cookies = [CookieGenerator(ours) for _ in range(4)]
        self.said: list[bytes] = [bytes(148)]
        self.next_index = 1000

    def _note(self, transit: Transit) -> tuple[int, ...]:
        if transit.source.host != OUR_ADDRESS:
            return (0,)
        self.sent.append(transit)
        return ()

    def receive(self, datagram: bytes, sender: int, *more: bytes) -> list[bytes]:
        """Let the device have datagrams; return what it sends."""
        self.sent.clear()
        for each in (datagram, *more):
            self.others[sender].send(each, Endpoint(OUR_ADDRESS, PORT))
        while self.socket._received:
            self.dataplane.receive_from_socket(self.socket)
        self.work()
        return [transit.datagram for transit in self.sent]

    def work(self) -> None:
        """Let the device act on all there is."""
        for _ in range(200):
            now = self.clock.now()
            events = self.dataplane.drain_events()
            for event in events:
                assert not isinstance(event, TunClosed | OffloadOff)
                self.device.on_event(event, now)
            messages = self.dataplane.take_handshakes(16)
            for message in messages:
                self.device.receive_handshake(message, now)
            if not events and not messages:
                return
        raise AssertionError("the device never comes to rest")

    def pass_time(self, duration_ns: int) -> None:
        """Let time pass, and the device act on it."""
        self.clock.advance(duration_ns)
        self.sent.clear()
        for _ in range(8):
            due_ns = self.device.next_deadline()
            if due_ns is None or due_ns > self.clock.boot_ns():
                break
            self.device.on_deadline(self.clock.now())
        self.work()

    def sessions(self) -> list[tuple[bool, int]]:
        """Return of each peer what a message that is not authentic must not change."""
        return [(peer.has_session, peer.last_received_ns) for peer in self.status().peers]

    def status(self) -> DeviceStatus:
        return self.device.status(self.clock.now())

    def initiation(self, sender: int) -> bytes:
        """Return a genuine initiation."""
        self.next_index += 1
        now = self.clock.now()
        body = self.far_ends[sender].create_initiation(now, self.next_index, self.random.randbytes)
        return self.cookies[sender].add_macs(body, now.boot_ns)

    def with_mac1(self, datagram: bytes) -> bytes:
        """Return a message whose MAC1 is right, as anybody can make it who knows our key."""
        start = len(datagram) - 32
        if start < 4:
            return datagram
        return datagram[:start] + mac(self.mac1_key, datagram[:start]) + datagram[start + 16 :]


def _run_device(data: bytes) -> None:
    world = _World()
    try:
        _act(world, Input(data))
    finally:
        world.dataplane.stop()


def _act(world: _World, given: Input) -> None:
    steps = 0
    while given and steps < 24:
        steps += 1
        action, sender = given.byte() % 9, given.byte() % 4
        match action:
            case 0:
                _initiate(world, sender, given)
            case 1:
                _forge(world, sender, given)
            case 2:
                _receive_noise(world, sender, given)
            case 3:
                _answer(world, sender, given)
            case 4:
                world.pass_time(given.choice((1, 20_000_000, SECOND, 5 * SECOND, 121 * SECOND)))
            case 5:
                world.receive(world.said[given.byte() % len(world.said)], sender)
            case 6:
                _flood(world, sender)
            case 7:
                assert world.dataplane is not None
                world.device.set_link_up(bool(given.byte() % 4), world.clock.now())
            case 8:
                _want_session(world, sender)
        # A peer has a handshake of its own and at most three keypairs.
        assert len(world.device._indices) <= 4 * 3
        status = world.status()
        assert sum(each.count for each in status.failures) <= 5000
        assert len(status.failures) <= 32


def _initiate(world: _World, sender: int, given: Input) -> None:
    """A genuine initiation is answered once, or with a cookie under load; a stranger's never."""
    datagram = world.initiation(sender)
    world.said.append(datagram)
    del world.said[:-8]
    answers = world.receive(datagram, sender)
    if sender + 1 == _STRANGER:
        assert all(answer[0] == 3 for answer in answers)
    assert sum(map(len, answers)) <= len(datagram), "more leaves than has come"
    for answer in answers:
        if answer[0] == 2:
            world.far_ends[sender].consume_response(Response.parse(answer))
            world.far_ends[sender].derive_keypair(world.clock.boot_ns())
        elif answer[0] == 3:
            now_ns = world.clock.boot_ns()
            world.cookies[sender].consume_reply(CookieReply.parse(answer), now_ns)


def _forge(world: _World, sender: int, given: Input) -> None:
    """A genuine initiation with a few bytes changed, its MAC1 right, opens nothing."""
    datagram = bytearray(world.initiation(sender))
    genuine = bytes(datagram)
    for _ in range(1 + given.byte() % 3):
        datagram[given.byte() % 116] ^= given.byte()
    forged = world.with_mac1(bytes(datagram))
    before = world.sessions()
    answers = world.receive(forged, sender)
    if bytes(datagram) != genuine and forged[4:8] == genuine[4:8]:
        assert world.sessions() == before
        assert all(answer[0] == 3 for answer in answers)
    assert sum(map(len, answers)) <= len(forged)


def _receive_noise(world: _World, sender: int, given: Input) -> None:
    """Noise of any length brings at most a cookie reply, and only with a right MAC1."""
    size = given.choice((148, 92, 64, 32, 0, 149, 1420))
    content = given.take(min(size, given.byte()))
    kind = given.byte()
    datagram = (bytes([kind % 6, 0, 0, kind // 250]) + content).ljust(size, b"\x55")[:size]
    is_right = kind % 2 == 1
    if is_right:
        datagram = world.with_mac1(datagram)
    before = world.sessions()
    answers = world.receive(datagram, sender)
    assert world.sessions() == before
    assert all(answer[0] == 3 for answer in answers)
    assert is_right or not answers
    assert sum(map(len, answers)) <= len(datagram)


def _want_session(world: _World, sender: int) -> None:
    """A packet for a peer makes the device begin a handshake."""
    peer = world.device._peers.get(_IDENTITIES[sender + 1].public_key)
    if peer is not None:
        world.sent.clear()
        peer.needs_handshake(world.clock.now())
        world.device._reschedule(peer)


def _answer(world: _World, sender: int, given: Input) -> None:
    """A response or cookie reply to the last initiation of ours, genuine or changed."""
    initiations = [each for each in world.sent if each.datagram[0] == 1]
    if not initiations or sender + 1 == _STRANGER:
        return
    initiation = Initiation.parse(initiations[-1].datagram)
    how, place, change = given.byte(), given.byte(), given.byte()
    if how % 2:
        datagram = bytearray(_response(world, sender, initiation))
    else:
        datagram = bytearray(64)
        datagram[0] = 3
        datagram[4:8] = initiation.sender_index.to_bytes(4, "little")
    genuine = bytes(datagram)
    datagram[place % (60 if how % 2 else 64)] ^= change
    forged = world.with_mac1(bytes(datagram)) if how % 2 else bytes(datagram)
    before = world.sessions()
    world.receive(forged, sender)
    # Nothing authenticates a sender index (paper, section 5.4.3), so another one is no forgery.
    is_forged = bytes(datagram[:4] + datagram[8:]) != genuine[:4] + genuine[8:]
    if is_forged or not how % 2:
        assert world.sessions() == before


def _response(world: _World, sender: int, initiation: Initiation) -> bytes:
    from wgd.noise.handshake import identify_initiator

    identity = _IDENTITIES[sender + 1]
    try:
        identified = identify_initiator(identity, initiation)
        world.far_ends[sender].consume_initiation(identified, world.clock.boot_ns())
        world.next_index += 1
        body = world.far_ends[sender].create_response(world.next_index, world.random.randbytes)
        world.far_ends[sender].derive_keypair(world.clock.boot_ns())
    except HandshakeError:  # it was for another peer, or was answered before
        body = bytes([2, 0, 0, 0]) + bytes(56)
    return world.cookies[sender].add_macs(body, world.clock.boot_ns())


def _flood(world: _World, sender: int) -> None:
    """Enough messages with a right MAC1 to be under load."""
    world.next_index += 150
    heads = (b"\1\0\0\0" + (world.next_index - n).to_bytes(4, "little") for n in range(150))
    messages = [world.with_mac1(head + bytes(140)) for head in heads]
    answers = world.receive(messages[0], sender, *messages[1:])
    assert sum(map(len, answers)) <= 150 * 64
    assert all(answer[0] == 3 for answer in answers)


def _device_seeds() -> Iterable[bytes]:
    yield b"\0\0\0\1\0\2\4\2\0\0\4\3\0\1"
    yield b"\4\3\0\3\6\0\0\0\0\0\0\1\4\2\0\2"
    yield b"\x08\0\3\0\1\0\0\x08\1\3\1\1\5\1\4\3"
    yield b"\1\0\2\x05\x01\x20\x40\1\1\0\x60\x01"
    yield b"\2\0\0\x20" + bytes(range(32)) + b"\1\5\0\0\5\1"
    yield b"\0\0\7\0\0\0\0\7\0\1\4\4\0\0\5\0"


TARGETS: Final = (
    Target(
        "handshake_message",
        _run_message,
        ("wgd.noise.messages",),
        _message_seeds,
        (b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0", b"\4\0\0\0"),
        2048,
    ),
    Target(
        "device",
        _run_device,
        (
            *("wgd.core.reception", "wgd.dataplane.gate", "wgd.dataplane.rate_limiter"),
            *("wgd.noise.handshake", "wgd.noise.cookie", "wgd.dataplane.portable_reception"),
            *("wgd.core.peer", "wgd.core.initiator"),
        ),
        _device_seeds,
        max_size=256,
    ),
)
