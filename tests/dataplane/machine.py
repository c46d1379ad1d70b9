"""What is done to both engines, in whatever order hypothesis finds; `pair` compares.

A rule is a talk with one peer, which is many small actions in a row, or any traffic, or a change of
something. Actions and changes are drawn with a number that decides what they leave open; most of
them matter, because a talk first sees to what it needs.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.dataplane.lab import SECOND, FarEnd, prefix
from tests.dataplane.lockstep import Lockstep
from tests.dataplane.pair import Side
from tests.dataplane.traffic import (
    KEYS,
    RECEIVE_ERRORS,
    REJECT_AFTER_MESSAGES,
    SEND_ERRORS,
    V4_ADDRESSES,
    V4_PREFIXES,
    V6_ADDRESSES,
    V6_PREFIXES,
    Burst,
    HandshakeMessage,
    Packet,
    draw_bursts,
    draw_packets,
    endpoint_of,
    seeded,
)
from wgd.dataplane.interface import DataPlane, PeerId

MAX_PEERS: Final = 4
PREFIXES: Final = V4_PREFIXES + V6_PREFIXES
MTUS: Final = (1420, 1280, 0, 1, 68, 576, 1419, 1421, 9000, 65_535, 70_000)
COUNTERS: Final = (
    2**60 - 2,
    2**60 - 1,
    2**60,
    REJECT_AFTER_MESSAGES - 2,
    REJECT_AFTER_MESSAGES,
)

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

# How often each action is drawn.
TALK: Final = {
    **dict.fromkeys(SESSION_CALLS, 1),
    "send": 6,
    "send several": 3,
    "receive": 5,
    "receive nothing": 2,
    "receive several": 2,
    "receive together": 3,
    "receive another's packet": 1,
    "initiate": 2,
    "respond": 3,
    "wait": 2,
    "send a handshake message": 1,
    "note a handshake message": 1,
}
TALK_AT_LIMITS: Final = TALK | {
    "wait until a limit": 8,
    "count to a limit": 4,
    "receive in the window": 4,
    "receive at a limit": 2,
    "send_staged": 3,
    "respond": 4,
}
TALK_AMID_FAULTS: Final = TALK | {
    "fail to send": 4,
    "fail to send several": 6,
    "send several": 6,
    "attach both sockets": 2,
    "change the endpoint": 2,
    "move": 1,
    "respond": 4,
}

CHANGES: Final = (
    "add a peer",
    "remove a peer",
    "add an allowed IP",
    "remove an allowed IP",
    "attach sockets",
    "set the MTU",
    "set the handshake keys",
    "batch less",
    "fail to receive",
    "set the link",
    "take handshake messages",
)

Action = tuple[str, int]


def _drawn_from(weights: dict[str, int]) -> st.SearchStrategy[list[Action]]:
    names, frequencies = list(weights), list(weights.values())

    def draw(random: Random, most: int) -> list[Action]:
        drawn = random.choices(names, frequencies, k=random.randint(1, 2 * most))
        return [(name, random.randrange(2**16)) for name in drawn]

    return seeded(draw)


_peers = st.integers(0, MAX_PEERS - 1)


class Machine(Lockstep):
    """All that may happen to a data plane, as rules."""

    @initialize(initiators=st.lists(st.booleans(), max_size=2))
    def establish(self, initiators: list[bool]) -> None:
        for number, initiator in enumerate(initiators):
            far = self.install(self.pair.peers[number], initiator=initiator)
            self.receive([(number, far.seal(b""))])

    # -- a talk with one peer ----------------------------------------------------------------------

    @rule(peer=_peers, actions=_drawn_from(TALK), is_ready=st.booleans())
    def talk(self, peer: int, actions: list[Action], is_ready: bool) -> None:
        known = self.peer(peer)
        note(f"actions of {known}: {actions}")
        if is_ready:
            self.make_ready(known)
        for name, number in actions:
            self.act(known, name, number)

    @rule(peer=_peers, actions=_drawn_from(TALK_AT_LIMITS), is_ready=st.booleans())
    def talk_at_limits(self, peer: int, actions: list[Action], is_ready: bool) -> None:
        self.talk(peer=peer, actions=actions, is_ready=is_ready)

    @rule(peer=_peers, actions=_drawn_from(TALK_AMID_FAULTS), is_ready=st.booleans())
    def talk_amid_faults(self, peer: int, actions: list[Action], is_ready: bool) -> None:
        self.talk(peer=peer, actions=actions, is_ready=is_ready)

    def act(self, peer: PeerId, name: str, number: int) -> None:
        """Do one thing."""
        match name:
            case "send":
                self.send([self.packet_of(peer, number)])
            case "send several":
                self.send([self.packet_of(peer, number) for _ in range(2 + number // 32 % 8)])
            case "initiate" | "respond":
                self.install(peer, initiator=name == "initiate")
            case "wait":
                self.pass_time((1, 5, 10, 15, 60)[number % 5] * SECOND)
            case "count to a limit":
                self.count_to(peer, COUNTERS[number % len(COUNTERS)])
                for _ in range(3):
                    self.send([self.packet_of(peer, number)])
            case "send a handshake message":
                self.send_handshake(peer, 1 + number % 2)
            case "note a handshake message":
                self.note_received(peer, endpoint_of(number), (92, 148)[number // 16 % 2])
            case "change the endpoint":
                self.set_endpoint(peer, endpoint_of(number))
            case "fail to send":
                self.fail(SEND_ERRORS[number % len(SEND_ERRORS)], of_segments=False)
            case "fail to send several":
                self.fail(SEND_ERRORS[number % len(SEND_ERRORS)], of_segments=True)
                if number // 64 % 2:
                    self.fail(SEND_ERRORS[number % 7], of_segments=False)
                self.act(peer, "send several", number)
            case "attach both sockets":
                self.attach([False, True])
            case "move":
                self.move(is_other=bool(number % 2))
            case _ if name in SESSION_CALLS:
                self.pair.both(lambda side: SESSION_CALLS[name](side.engine, peer))
            case _:
                for far, owner, made_ns in self.sessions:
                    if owner == peer:
                        self.act_in_session(peer, far, made_ns, name, number)
                        break

    def act_in_session(
        self, peer: PeerId, far: FarEnd, made_ns: int, name: str, number: int
    ) -> None:
        """Do one thing for which there must be a session, most often as its other end."""
        sender = (0, 0, 0, 1, 2, 3)[number % 6]
        packets = [self.packet_of(peer, number)]
        match name:
            case "wait until a limit":
                due_ns = made_ns + (120, 165, 180)[number % 3] * SECOND + number // 3 % 3 - 1
                self.pass_time(due_ns - self.pair.now_ns())
                if number // 9 % 2:
                    self.send([self.packet_of(peer, number)])
            case "receive at a limit":
                counter = REJECT_AFTER_MESSAGES - 1 + number % 2
                self.receive([(sender, far.seal(b"", counter))])
                return
            case "receive in the window":
                far.counter += 8200
                late = max(far.counter - 8128 - number % 3, 0)
                for counter in (far.counter - 1, late, late):
                    self.receive([(sender, far.seal(packets[0], counter))])
                return
            case "receive another's packet":
                packets = [self.packet_of(self.peer(number), number)]
            case "receive nothing":
                packets = [b""]
            case "receive several" | "receive together":
                packets += [self.packet_of(peer, number) for _ in range(1 + number // 32 % 8)]
                if number % 2:
                    packets[0] = b""
        datagrams = [(sender, far.seal(packet)) for packet in packets]
        self.receive(datagrams, coalesced=name == "receive together")

    # -- any traffic -------------------------------------------------------------------------------

    @rule(packets=seeded(draw_packets), peer=_peers, is_ready=st.booleans())
    def outbound(self, packets: list[Packet], peer: int, is_ready: bool) -> None:
        note(f"packets: {packets}")
        if is_ready:
            self.make_ready(self.peer(peer))
        self.send([packet.build(self.next_number()) for packet in packets])

    @rule(number=st.integers(0, 2**16), peer=_peers, count=st.sampled_from((63, 64, 65, 129)))
    def outbound_many(self, number: int, peer: int, count: int) -> None:
        self.send([self.packet_of(self.peer(peer), number) for _ in range(count)])

    @rule(bursts=seeded(draw_bursts), coalesced=st.booleans())
    def inbound(self, bursts: list[Burst], coalesced: bool) -> None:
        note(f"bursts: {bursts}")
        plans = [(burst.sender, plan) for burst in bursts for plan in burst.datagrams]
        sent = [(sender, self.datagram(plan)) for sender, plan in plans]
        self.receive(sent, coalesced=coalesced)

    @rule(
        kinds=st.lists(st.sampled_from((1, 2, 3)), min_size=1, max_size=4),
        count=st.sampled_from((1, 1, 65)),
        limit=st.sampled_from((0, 1, 3, 64, 2000)),
        sender=_peers,
    )
    def inbound_handshakes(self, kinds: list[int], count: int, limit: int, sender: int) -> None:
        self.send_handshake(self.peer(sender), 1)
        plans = [HandshakeMessage(kind) for kind in kinds] * count
        self.receive([(sender, self.datagram(plan)) for plan in plans])
        self.pair.both(lambda side: side.engine.take_handshakes(limit))

    # -- changes -----------------------------------------------------------------------------------

    @rule(name=st.sampled_from(CHANGES), number=st.integers(0, 2**10 - 1))
    def change(self, name: str, number: int) -> None:
        peer = self.peer(number)
        allowed_ip = prefix(PREFIXES[number // MAX_PEERS % len(PREFIXES)])
        is_ipv6 = bool(number % 2)
        match name:
            case "add a peer" if len(self.pair.peers) < MAX_PEERS:
                self.add_peer(number)
            case "remove a peer" if len(self.pair.peers) > 1:
                self.pair.peers.remove(peer)
                self.pair.both(lambda side: side.engine.remove_peer(peer))
                self.send_everywhere()
            case "add an allowed IP":
                self.pair.both(lambda side: side.engine.add_allowed_ip(peer, allowed_ip))
                self.send_everywhere()
            case "remove an allowed IP":
                self.pair.both(lambda side: side.engine.remove_allowed_ip(peer, allowed_ip))
                self.send_everywhere()
            case "attach sockets":
                self.attach(([False, True], [False, True], [False], [True], [])[number % 5])
            case "set the MTU":
                self.pair.both(lambda side: side.engine.set_mtu(MTUS[number % len(MTUS)]))
            case "set the handshake keys":
                keys = (KEYS, None, KEYS._replace(mac1=bytes(32)))[number % 3]
                self.pair.both(lambda side: side.engine.set_handshake_keys(keys))
            case "batch less":
                self.set_max_segments((64, 2, 1)[number // 2 % 3], is_ipv6=is_ipv6)
            case "fail to receive":
                for socket in self.sockets(is_ipv6=is_ipv6):
                    socket.receive_errors.append(RECEIVE_ERRORS[number % len(RECEIVE_ERRORS)])
            case "set the link":
                for side in self.pair.sides:
                    side.lab.tun.is_up = bool(number % 3)
            case "take handshake messages":
                limit = (2000, 0, 1, 2, 64)[number % 5]
                self.pair.both(lambda side: side.engine.take_handshakes(limit))

    def send_everywhere(self) -> None:
        """Send a packet to each address, to see whose it is."""
        plans = [Packet(address, address, 64) for address in V4_ADDRESSES + V6_ADDRESSES]
        self.send([plan.build(self.next_number()) for plan in plans])

    def add_peer(self, number: int) -> None:
        """Add a peer with an endpoint or without, and with up to two prefixes."""
        peer = PeerId(100 + self.next_number())
        self.pair.both(lambda side: side.engine.add_peer(peer))
        self.pair.peers.append(peer)
        if number % 4:
            self.set_endpoint(peer, endpoint_of(number))
        for allowed_ip in map(prefix, PREFIXES[number % 11 : number % 11 + 2]):
            self.pair.both(lambda side, new=allowed_ip: side.engine.add_allowed_ip(peer, new))  # type: ignore[misc]

    @precondition(lambda self: self.number > 1000)
    @rule()
    def close_tun(self) -> None:
        for side in self.pair.sides:
            side.lab.tun.close()
        self.pair.both(Side.empty_tun)
