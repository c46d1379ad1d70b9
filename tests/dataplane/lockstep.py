"""The steps of the differential tests: each does one thing in both laboratories of a `Pair`.

Peers and sessions are given as numbers, so that any number is good. Indices and keys are as the
control plane makes them: an index is used once, counters only grow.
"""

from collections import deque
from hashlib import blake2s
from typing import Final

from hypothesis.stateful import RuleBasedStateMachine

from tests.dataplane.lab import OUR_ADDRESS, PORT, SECOND, B, FarEnd, prefix
from tests.dataplane.pair import OTHER_ADDRESS, OTHER_ADDRESS_6, OUR_ADDRESS_6, Pair, Side
from tests.dataplane.traffic import (
    DAMAGES,
    KEYS,
    MAX_UDP_PAYLOAD,
    OUTER_TRAFFIC_CLASSES,
    SIZES,
    V4_ADDRESSES,
    V6_ADDRESSES,
    Again,
    Datagram,
    Garbage,
    HandshakeMessage,
    Packet,
    Sealed,
    packed,
    with_source,
)
from wgd.addresses import Endpoint
from wgd.dataplane.interface import PeerId
from wgd.dataplane.portable import PortableDataPlane
from wgd.dataplane.portable_state import EngineState
from wgd.net.memory import MemorySocket
from wgd.noise.keypair import Keypair

MAX_STEP_BYTES: Final = 120_000
"""Less than fits into both engines' arenas: beyond that, batches may be cut elsewhere."""


class Lockstep(RuleBasedStateMachine):
    """The two engines, the far ends of their sessions, and what they were sent. No rules yet."""

    def make_pair(self) -> Pair:
        """The laboratories."""
        return Pair()

    def __init__(self) -> None:
        super().__init__()
        self.pair = self.make_pair()
        self.number = 0
        """Of the last thing that was made: packets, peers and indices are told apart by it."""
        self.sessions: deque[tuple[FarEnd, PeerId, int]] = deque(maxlen=8)
        """The youngest first, each with its peer and the time when it was made."""
        self.received: deque[bytes] = deque([b""], maxlen=24)
        self.initiation_index = 0
        """Of the initiation that was sent last, to any peer."""
        self.our_address, self.our_address_6 = OUR_ADDRESS, OUR_ADDRESS_6
        self.pair.both(lambda side: side.engine.set_handshake_keys(KEYS))
        self.pair.both(lambda side: side.engine.add_allowed_ip(B, prefix("fd00:1::/32")))

    def teardown(self) -> None:
        self.pair.close()

    def next_number(self) -> int:
        """Count up."""
        self.number += 1
        return self.number

    # -- what there is -----------------------------------------------------------------------------

    def portable_state(self) -> EngineState:
        """What the portable engine knows."""
        engine = self.pair.portable.engine
        assert isinstance(engine, PortableDataPlane)
        return engine._state

    def peer(self, number: int) -> PeerId:
        """One of the peers, the youngest first."""
        return self.pair.peers[-1 - number % len(self.pair.peers)]

    def addresses(self, peer: PeerId) -> list[str]:
        """Inner addresses that belong to the peer."""
        state = self.portable_state()
        known = state.peers.get(peer)
        if known is None:
            return []
        addresses = V4_ADDRESSES + V6_ADDRESSES
        return [address for address in addresses if state.route(packed(address)) is known]

    def session(self, number: int) -> tuple[FarEnd, PeerId]:
        """One of the sessions: those that open come first, the youngest before the others."""
        known = self.portable_state().sessions
        earliest_ns = self.pair.now_ns() - 180 * SECOND
        opening: list[tuple[FarEnd, PeerId]] = []
        others: list[tuple[FarEnd, PeerId]] = []
        for far, peer, made_ns in self.sessions:
            opens = far.our_index in known and made_ns > earliest_ns
            (opening if opens else others).append((far, peer))
        if not opening:
            opening = [(self.install(self.peer(number), initiator=True), self.peer(number))]
        sessions = opening + others
        return sessions[number % len(sessions)]

    def sockets(self, *, is_ipv6: bool) -> list[MemorySocket]:
        """The sockets of one family in both laboratories."""
        labs = [side.lab for side in self.pair.sides]
        return [lab.socket6 if is_ipv6 else lab.socket for lab in labs]

    @property
    def is_closed(self) -> bool:
        """Whether the TUN is gone."""
        return self.pair.portable.lab.tun._is_closed

    # -- packets and datagrams ---------------------------------------------------------------------

    def packet_of(self, peer: PeerId, number: int) -> bytes:
        """A packet to and from an address of the peer, if it has any."""
        owned = self.addresses(peer) or V4_ADDRESSES[-1:]
        address = owned[number // 16 % len(owned)]
        packet = Packet(address, address, SIZES[number % len(SIZES)])
        return packet.build(self.next_number())

    def datagram(self, plan: Datagram) -> bytes:
        """Make the datagram that a plan stands for."""
        if isinstance(plan, Again):
            return self.received[plan.back % len(self.received)]
        if isinstance(plan, Garbage):
            return plan.build()
        if isinstance(plan, HandshakeMessage):
            return plan.build(self.next_number(), self.initiation_index)
        return self._sealed(plan)

    def _sealed(self, plan: Sealed) -> bytes:
        far, peer = self.session(plan.session)
        packet = b""
        if plan.packet is not None:
            packet = plan.packet.build(self.next_number())[: MAX_UDP_PAYLOAD - 32 - 16]
            if plan.is_honest:
                packet = with_source(packet, self.addresses(peer))
        counter = plan.counter
        if counter is not None:
            counter = max(far.counter + counter, 0)
            far.counter = max(far.counter, counter + 1)
        datagram = far.seal(packet, counter, pad=plan.is_padded)
        return DAMAGES[plan.damage](datagram) if plan.damage else datagram

    # -- steps -------------------------------------------------------------------------------------

    def send(self, packets: list[bytes]) -> None:
        """Send packets into the tunnel, as many at once as leave in the same batches."""
        self.pair.injected.update(packets)
        while packets:
            size, count = len(packets[0]), 1
            while count < len(packets) and size + len(packets[count]) <= MAX_STEP_BYTES:
                size += len(packets[count])
                count += 1
            self._send(packets[:count])
            packets = packets[count:]

    def _send(self, packets: list[bytes]) -> None:
        self.pair.both(lambda side: side.let_send(packets))

    def receive(self, sent: list[tuple[int, bytes]], *, coalesced: bool = False) -> None:
        """Receive datagrams, each from the far end that its number stands for."""
        self.received.extendleft(datagram for _, datagram in sent)

        classes = OUTER_TRAFFIC_CLASSES
        traffic_class = classes[self.next_number() % len(classes)]

        def call(side: Side) -> int:
            side.lab.socket.coalesces = side.lab.socket6.coalesces = coalesced
            for number, datagram in sent:
                sender = side.far_ends[number]
                address = self.our_address_6 if sender.is_ipv6 else self.our_address
                sender.send(datagram, Endpoint(address, PORT), traffic_class)
            return side.let_receive()

        self.pair.both(call, coalesced=coalesced)

    def send_handshake(self, peer: PeerId, kind: int) -> None:
        """Send an initiation (1) or response (2), as the control plane makes them."""
        number = self.next_number()
        if kind == 1:
            self.initiation_index = number
        message = HandshakeMessage(kind).build(number)
        self.pair.both(lambda side: side.engine.send_to_peer(peer, message))

    def install(self, peer: PeerId, *, initiator: bool) -> FarEnd:
        """Install a keypair as the control plane does after a handshake."""
        index = 1000 + self.next_number()
        from_us, to_us = (blake2s(b"%d %d" % (index, way)).digest() for way in (0, 1))
        far = FarEnd(index, index + 1_000_000, from_us, to_us)
        keypair = Keypair(
            local_index=far.our_index,
            remote_index=far.their_index,
            send_key=far.from_us,
            receive_key=far.to_us,
            is_initiator=initiator,
            created_ns=self.pair.now_ns(),
        )
        self.pair.far_ends[far.their_index] = far
        self.sessions.appendleft((far, peer, self.pair.now_ns()))

        def call(side: Side) -> tuple[int, ...]:
            freed = side.engine.install_keypair(peer, keypair)
            if initiator:
                side.engine.send_keepalive(peer)
            return freed

        self.pair.both(call)
        return far

    def make_ready(self, peer: PeerId) -> None:
        """See to it that packets to the peer can leave."""
        self.let_sending_succeed()
        if not self.pair.portable.sockets:
            self.attach([False, True])
        current = self.portable_state().peers[peer].keypairs.current
        if current is None or not current.can_send(self.pair.now_ns()):
            self.install(peer, initiator=True)

    def attach(self, families: list[bool]) -> None:
        """Attach the sockets of these families (whether it is IPv6)."""
        self.pair.both(
            lambda side: side.attach(
                [side.lab.socket6 if is_ipv6 else side.lab.socket for is_ipv6 in families]
            )
        )

    def set_endpoint(self, peer: PeerId, endpoint: Endpoint) -> None:
        """Set a peer's endpoint."""
        self.pair.both(lambda side: side.engine.set_endpoint(peer, endpoint))

    def note_received(self, peer: PeerId, endpoint: Endpoint, length: int) -> None:
        """Let the control plane say that a handshake message was authentic."""
        self.pair.both(lambda side: side.engine.note_received(peer, length, endpoint))

    def count_to(self, peer: PeerId, counter: int) -> None:
        """Let the next packet under the current keypair have this counter, if it is greater."""
        session = self.portable_state().peers[peer].keypairs.current
        if session is not None and session.send_counter < counter:
            self.pair.both(lambda side: side.lab.set_send_counter(peer, counter))

    def pass_time(self, duration_ns: int) -> None:
        """Let time pass."""
        for side in self.pair.sides:
            side.lab.clock.advance(max(duration_ns, 0))
        self.pair.both(lambda side: None)

    # -- faults ------------------------------------------------------------------------------------

    def fail(self, number: int, *, of_segments: bool) -> None:
        """Let the next datagram, or the next several at once, fail to be sent."""
        for is_ipv6 in (False, True):
            for socket in self.sockets(is_ipv6=is_ipv6):
                (socket.segment_errors if of_segments else socket.send_errors).append(number)

    def set_max_segments(self, count: int, *, is_ipv6: bool) -> None:
        """Let so many datagrams leave at once."""
        for socket in self.sockets(is_ipv6=is_ipv6):
            socket.max_segments = count

    def let_sending_succeed(self) -> None:
        """Forget the errors to come; batches are possible again."""
        for is_ipv6 in (False, True):
            for socket in self.sockets(is_ipv6=is_ipv6):
                socket.send_errors.clear()
                socket.segment_errors.clear()
                socket.max_segments = 64

    def move(self, *, is_other: bool) -> None:
        """Change our own addresses: pinned sources are not ours any more."""
        self.our_address, self.our_address_6 = (
            (OTHER_ADDRESS, OTHER_ADDRESS_6) if is_other else (OUR_ADDRESS, OUR_ADDRESS_6)
        )
        for side in self.pair.sides:
            side.lab.host.addresses = (self.our_address, self.our_address_6)
