"""What is done to both engines, in whatever order hypothesis finds; `pair` compares.

Peers and sessions are drawn as numbers that count from the youngest, so that any number is good.
Indices and keys are as the control plane makes them: an index is used once, counters only grow.
"""

import ipaddress
from collections import deque
from collections.abc import Callable
from hashlib import blake2s
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.dataplane.lab import (
    OUR_ADDRESS,
    PORT,
    SECOND,
    B,
    FarEnd,
    prefix,
)
from tests.dataplane.pair import (
    OTHER_ADDRESS,
    OTHER_ADDRESS_6,
    OUR_ADDRESS_6,
    Pair,
    Side,
)
from tests.dataplane.traffic import (
    DAMAGES,
    MAC1_KEY,
    MAX_UDP_PAYLOAD,
    REJECT_AFTER_MESSAGES,
    V4_ADDRESSES,
    V4_PREFIXES,
    V6_ADDRESSES,
    V6_PREFIXES,
    Again,
    Burst,
    Datagram,
    Garbage,
    HandshakeMessage,
    Limit,
    Packet,
    Sealed,
    alike,
    bursts,
    endpoints,
    large_sizes,
    packets,
    receive_errors,
    say_nothing_of_batches,
    send_errors,
    trains,
    weighted,
    with_source,
)
from wgd.addresses import Endpoint, Source
from wgd.dataplane.interface import DataPlane, PeerId
from wgd.dataplane.portable import PortableDataPlane
from wgd.dataplane.portable_state import EngineState
from wgd.net.memory import MemorySocket
from wgd.noise.keypair import Keypair

MAX_PEERS: Final = 4
MAX_STEP_BYTES: Final = 120_000
"""Less than fits into both engines' arenas: beyond that, batches may be cut elsewhere."""

SESSION_CALLS: Final[dict[str, Callable[[DataPlane, PeerId], object]]] = {
    "expire_keypairs": lambda engine, peer: engine.expire_keypairs(peer),
    "drop_keypairs": lambda engine, peer: engine.drop_keypairs(peer),
    "drop_staged": lambda engine, peer: engine.drop_staged(peer),
    "send_staged": lambda engine, peer: engine.send_staged(peer),
    "send_keepalive": lambda engine, peer: engine.send_keepalive(peer),
    "clear_source": lambda engine, peer: engine.clear_source(peer),
    "disarm": lambda engine, peer: engine.disarm(peer),
    "clear_stamps": lambda engine, peer: engine.clear_stamps(peer),
    "clear_data_sent_unanswered": lambda engine, peer: engine.clear_data_sent_unanswered(peer),
}

_peers = st.integers(0, MAX_PEERS - 1)


class Machine(RuleBasedStateMachine):
    """The two engines, the far ends of their sessions, and what they were sent."""

    def make_pair(self) -> Pair:
        """The laboratories."""
        return Pair()

    def __init__(self) -> None:
        super().__init__()
        self.pair = self.make_pair()
        self.next_peer = 3
        self.number = 0
        self.sessions: deque[tuple[FarEnd, PeerId, int]] = deque(maxlen=8)
        """The youngest first, each with its peer and the time when it was made."""
        self.received: deque[bytes] = deque([b""], maxlen=24)
        self.our_address, self.our_address_6 = OUR_ADDRESS, OUR_ADDRESS_6
        self.pair.both(lambda side: side.engine.set_mac1_key(MAC1_KEY))
        self.pair.both(lambda side: side.engine.add_allowed_ip(B, prefix("fd00:1::/32")))

    def teardown(self) -> None:
        self.pair.close()

    # -- traffic -----------------------------------------------------------------------------------

    def _number(self) -> int:
        self.number += 1
        return self.number

    def send(self, packets: list[Packet]) -> None:
        """Send packets into the tunnel, as many at once as leave in the same batches."""
        built = [packet.build(self._number()) for packet in packets]
        self.pair.injected.update(built)
        while built:
            size, count = len(built[0]), 1
            while count < len(built) and size + len(built[count]) <= MAX_STEP_BYTES:
                size += len(built[count])
                count += 1
            together, built = built[:count], built[count:]
            self.pair.both(lambda side, together=together: side.let_send(together))  # type: ignore[misc]

    @rule(packets=st.lists(packets(), min_size=1, max_size=8))
    def outbound(self, packets: list[Packet]) -> None:
        self.send(packets)

    @rule(packets=trains)
    def outbound_alike(self, packets: list[Packet]) -> None:
        self.send(packets)

    @rule(packet=packets(large_sizes))
    def outbound_large(self, packet: Packet) -> None:
        self.send([packet])

    @rule(packet=packets(), count=st.sampled_from((63, 64, 65, 129)))
    def outbound_many(self, packet: Packet, count: int) -> None:
        self.send([packet] * count)

    def datagram(self, plan: Datagram) -> list[bytes]:
        """Make the datagrams that a plan stands for; none if there is no session for it."""
        match plan:
            case Again(back):
                return [self.received[back % len(self.received)]]
            case Garbage():
                return [plan.build()]
            case HandshakeMessage():
                return [plan.build(self._number()) for _ in range(plan.count)]
            case Sealed() | Limit():
                if not self.sessions:
                    return []
                far, peer, _ = self.sessions[plan.session % len(self.sessions)]
                if isinstance(plan, Limit):
                    return [far.seal(b"", plan.counter)]
                return [self._sealed(far, peer, plan)]

    def _sealed(self, far: FarEnd, peer: PeerId, plan: Sealed) -> bytes:
        packet = b""
        if plan.packet is not None:
            packet = plan.packet.build(self._number())[: MAX_UDP_PAYLOAD - 32 - 16]
            if plan.is_honest:
                packet = with_source(packet, self.addresses(peer))
        counter = plan.counter
        if counter is not None:
            counter = max(far.counter + counter, 0)
            far.counter = max(far.counter, counter + 1)
        datagram = far.seal(packet, counter, pad=plan.is_padded)
        return DAMAGES[plan.damage](datagram) if plan.damage else datagram

    def addresses(self, peer: PeerId) -> list[bytes]:
        """Inner addresses that belong to the peer."""
        state = self.portable_state()
        addresses = (ipaddress.ip_address(text).packed for text in V4_ADDRESSES + V6_ADDRESSES)
        owned = ((address, state.route(address)) for address in addresses)
        return [address for address, owner in owned if owner is not None and owner.id == peer]

    def receive(self, bursts: list[Burst], *, coalesced: bool) -> None:
        """Receive what the far ends send."""
        sent: list[tuple[int, bytes]] = []
        for burst in bursts:
            for plan in burst.datagrams:
                sent += [(burst.sender, datagram) for datagram in self.datagram(plan)]
        self.arrive(sent, coalesced=coalesced)

    def arrive(self, sent: list[tuple[int, bytes]], *, coalesced: bool) -> None:
        """Receive datagrams, each from the far end that its number stands for."""
        self.received.extendleft(datagram for _, datagram in sent)
        self._let_paths_batch()

        def call(side: Side) -> int:
            side.lab.socket.coalesces = side.lab.socket6.coalesces = coalesced
            for number, datagram in sent:
                sender = side.far_ends[number]
                address = self.our_address_6 if sender.is_ipv6 else self.our_address
                sender.send(datagram, Endpoint(address, PORT))
            return side.let_receive()

        self.pair.both(call, coalesced=coalesced)

    def _let_paths_batch(self) -> None:
        # An open difference: when batches have failed on the path to a peer, the portable engine
        # tries them again as soon as the peer is answered from another source, the native one only
        # when the peer is at another address. So there are no such paths where sources may change.
        for peer in self.pair.peers:
            known = self.portable_state().peers[peer]
            if known.may_batch or known.endpoint is None:
                continue
            endpoint = known.endpoint
            is_ipv6 = endpoint.is_ipv6
            ours = Source(self.our_address_6 if is_ipv6 else self.our_address, 1)
            lab = self.pair.portable.lab
            if endpoint.source != ours or (lab.socket6 if is_ipv6 else lab.socket).send_errors:
                self.set_endpoint_of(peer, endpoint)

    @rule(bursts=st.lists(bursts, max_size=3), coalesced=st.booleans())
    def inbound(self, bursts: list[Burst], coalesced: bool) -> None:
        self.receive(bursts, coalesced=coalesced)

    @rule(burst=alike, coalesced=st.booleans())
    def inbound_alike(self, burst: Burst, coalesced: bool) -> None:
        self.receive([burst], coalesced=coalesced)

    @rule(burst=bursts)
    def inbound_one_by_one(self, burst: Burst) -> None:
        for datagram in burst.datagrams:
            self.receive([Burst(burst.sender, [datagram])], coalesced=False)

    # -- sessions ----------------------------------------------------------------------------------

    def peer(self, number: int) -> PeerId:
        """The peer that a drawn number stands for."""
        return self.pair.peers[-1 - number % len(self.pair.peers)]

    def portable_state(self) -> EngineState:
        """What the portable engine knows, where the plans need to know it, too."""
        engine = self.pair.portable.engine
        assert isinstance(engine, PortableDataPlane)
        return engine._state

    def install(self, peer: PeerId, *, initiator: bool) -> None:
        """Install a keypair as the control plane does after a handshake."""
        index = 1000 + self._number()
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

    def usable_session(self, number: int) -> tuple[FarEnd, PeerId]:
        """One of the sessions that still open, and its peer; a new one if there is none."""
        state = self.portable_state()
        usable = [
            (far, peer)
            for far, peer, made_ns in self.sessions
            if far.our_index in state.sessions and self.pair.now_ns() < made_ns + 180 * SECOND
        ]
        if not usable:
            self.install(self.peer(number), initiator=True)
            usable = [self.sessions[0][:2]]
        return usable[number % len(usable)]

    @initialize(initiators=st.lists(st.booleans(), max_size=2))
    def establish(self, initiators: list[bool]) -> None:
        for number, initiator in enumerate(initiators):
            self.install(self.pair.peers[number], initiator=initiator)
            self.receive([Burst(number, [Sealed(None)])], coalesced=False)

    @rule(peer=_peers, initiator=st.booleans())
    def handshake(self, peer: int, initiator: bool) -> None:
        self.install(self.peer(peer), initiator=initiator)

    @rule(peer=_peers, burst=weighted((1, bursts), (2, alike)), coalesced=st.booleans())
    def handshake_and_traffic(self, peer: int, burst: Burst, coalesced: bool) -> None:
        self.install(self.peer(peer), initiator=False)
        self.receive([burst], coalesced=coalesced)

    @rule(peer=_peers, name=st.sampled_from(tuple(SESSION_CALLS)))
    def session_call(self, peer: int, name: str) -> None:
        self.pair.both(lambda side: SESSION_CALLS[name](side.engine, self.peer(peer)))

    @rule(
        peer=_peers,
        counter=st.sampled_from(
            (2**60 - 2, 2**60, REJECT_AFTER_MESSAGES - 3, REJECT_AFTER_MESSAGES)
        ),
    )
    def set_send_counter(self, peer: int, counter: int) -> None:
        known = self.peer(peer)
        session = self.portable_state().peers[known].keypairs.current
        if session is not None and session.send_counter < counter:
            self.pair.both(lambda side: side.lab.set_send_counter(known, counter))

    # -- handshake messages ------------------------------------------------------------------------

    @rule(limit=st.sampled_from((0, 1, 2, 64, 2000)))
    def take_handshakes(self, limit: int) -> None:
        self.pair.both(lambda side: side.engine.take_handshakes(limit))

    @rule(key=st.sampled_from((MAC1_KEY, MAC1_KEY, None, bytes(32))))
    def set_mac1_key(self, key: bytes | None) -> None:
        self.pair.both(lambda side: side.engine.set_mac1_key(key))

    @rule(peer=_peers, kind=st.sampled_from((1, 2)))
    def send_to_peer(self, peer: int, kind: int) -> None:
        message = HandshakeMessage(kind).build(self._number())
        self.pair.both(lambda side: side.engine.send_to_peer(self.peer(peer), message))

    @rule(endpoint=endpoints)
    def send_to(self, endpoint: Endpoint) -> None:
        reply = HandshakeMessage(3).build(self._number())
        self.pair.both(lambda side: side.engine.send_to(endpoint, reply))

    @rule(peer=_peers, endpoint=endpoints, length=st.sampled_from((92, 148)))
    def note_received(self, peer: int, endpoint: Endpoint, length: int) -> None:
        known = self.peer(peer)
        # An open difference: after a handshake message from elsewhere the native engine tries
        # batches there, while the portable one still believes what it knows of the former path.
        if self.portable_state().peers[known].may_batch:
            source = self.pair.endpoint(endpoint)
            self.pair.both(lambda side: side.engine.note_received(known, length, source))

    # -- configuration -----------------------------------------------------------------------------

    @precondition(lambda self: len(self.pair.peers) < MAX_PEERS)
    @rule(endpoint=st.none() | endpoints)
    def add_peer(self, endpoint: Endpoint | None) -> None:
        peer = PeerId(self.next_peer)
        self.next_peer += 1
        self.pair.both(lambda side: side.engine.add_peer(peer))
        self.pair.peers.append(peer)
        if endpoint is not None:
            self.set_endpoint_of(peer, endpoint)

    @precondition(lambda self: len(self.pair.peers) > 1)
    @rule(peer=_peers)
    def remove_peer(self, peer: int) -> None:
        known = self.peer(peer)
        self.pair.peers.remove(known)
        self.pair.both(lambda side: side.engine.remove_peer(known))

    @rule(peer=_peers, endpoint=endpoints)
    def set_endpoint(self, peer: int, endpoint: Endpoint) -> None:
        self.set_endpoint_of(self.peer(peer), endpoint)

    def set_endpoint_of(self, peer: PeerId, endpoint: Endpoint) -> None:
        """Set a peer's endpoint."""
        known = self.pair.endpoint(endpoint)
        self.pair.both(lambda side: side.engine.set_endpoint(peer, known))

    @rule(peer=_peers, text=st.sampled_from(V4_PREFIXES + V6_PREFIXES))
    def add_allowed_ip(self, peer: int, text: str) -> None:
        self.pair.both(lambda side: side.engine.add_allowed_ip(self.peer(peer), prefix(text)))

    @rule(peer=_peers, text=st.sampled_from(V4_PREFIXES + V6_PREFIXES))
    def remove_allowed_ip(self, peer: int, text: str) -> None:
        self.pair.both(lambda side: side.engine.remove_allowed_ip(self.peer(peer), prefix(text)))

    @rule(mtu=st.sampled_from((0, 1, 68, 576, 1280, 1419, 1420, 1421, 9000, 65_535, 70_000)))
    def set_mtu(self, mtu: int) -> None:
        self.pair.both(lambda side: side.engine.set_mtu(mtu))

    # -- the outside world -------------------------------------------------------------------------

    @rule(families=st.sampled_from(((False, True), (False, True), (False,), (True,), ())))
    def attach_sockets(self, families: tuple[bool, ...]) -> None:
        self.pair.both(
            lambda side: side.attach(
                [side.lab.socket6 if is_ipv6 else side.lab.socket for is_ipv6 in families]
            )
        )

    @rule(count=st.sampled_from((1, 2, 64, 64)), is_ipv6=st.booleans())
    def set_max_segments(self, count: int, is_ipv6: bool) -> None:
        for socket in self.sockets(is_ipv6=is_ipv6):
            if not say_nothing_of_batches(socket.send_errors, socket.segment_errors):
                socket.max_segments = count

    @rule(numbers=send_errors, of_segments=st.booleans(), is_ipv6=st.booleans())
    def fail_to_send(self, numbers: list[int], of_segments: bool, is_ipv6: bool) -> None:
        for socket in self.sockets(is_ipv6=is_ipv6):
            (socket.segment_errors if of_segments else socket.send_errors).extend(numbers)
            # An open difference: if a batch fails with one of these, and its datagrams one by one
            # do not, the portable engine takes it for the path's fault, the native one does not.
            if say_nothing_of_batches(numbers):
                socket.max_segments = 1

    def let_sending_succeed(self) -> None:
        """Forget the errors to come."""
        for is_ipv6 in (False, True):
            for socket in self.sockets(is_ipv6=is_ipv6):
                socket.send_errors.clear()
                socket.segment_errors.clear()

    def sockets(self, *, is_ipv6: bool) -> list[MemorySocket]:
        """The sockets of one family in both laboratories."""
        labs = [side.lab for side in self.pair.sides]
        return [lab.socket6 if is_ipv6 else lab.socket for lab in labs]

    @rule(numbers=receive_errors, is_ipv6=st.booleans())
    def fail_to_receive(self, numbers: list[int], is_ipv6: bool) -> None:
        for socket in self.sockets(is_ipv6=is_ipv6):
            socket.receive_errors.extend(numbers)

    @rule(is_other=st.booleans())
    def move(self, is_other: bool) -> None:
        """Our own addresses change: pinned sources are not ours any more."""
        lab = self.pair.portable.lab
        if lab.socket._received or lab.socket6._received:
            return  # see `_let_paths_batch`: nothing shall be on its way to the former ones
        self.our_address, self.our_address_6 = (
            (OTHER_ADDRESS, OTHER_ADDRESS_6) if is_other else (OUR_ADDRESS, OUR_ADDRESS_6)
        )
        for side in self.pair.sides:
            side.lab.host.addresses = (self.our_address, self.our_address_6)

    @rule(is_up=st.booleans())
    def set_link(self, is_up: bool) -> None:
        for side in self.pair.sides:
            side.lab.tun.is_up = is_up

    @precondition(lambda self: self.number > 150)
    @rule()
    def close_tun(self) -> None:
        for side in self.pair.sides:
            side.lab.tun.close()
        self.pair.both(Side.empty_tun)

    @property
    def is_closed(self) -> bool:
        """Whether the TUN is gone."""
        return self.pair.portable.lab.tun._is_closed

    # -- time --------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((1, 5, 9, 10, 15, 60, 119, 120, 165, 180)))
    def advance(self, seconds: int) -> None:
        self._advance_ns(seconds * SECOND)

    @rule(
        session=st.integers(0, 3),
        limit=st.sampled_from((120, 165, 180)),
        difference_ns=st.sampled_from((-1, 0, 1)),
    )
    def advance_to_a_limit(self, session: int, limit: int, difference_ns: int) -> None:
        if session < len(self.sessions):
            due_ns = self.sessions[session][2] + limit * SECOND + difference_ns
            self._advance_ns(max(due_ns - self.pair.now_ns(), 0))

    def _advance_ns(self, duration_ns: int) -> None:
        for side in self.pair.sides:
            side.lab.clock.advance(duration_ns)
        self.pair.both(lambda side: None)
