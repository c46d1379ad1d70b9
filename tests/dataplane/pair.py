"""Both engines in lockstep: each gets the same, and all that comes out of them is compared.

`Pair.both` does one thing in the two laboratories, then looks at everything: what was returned, the
datagrams on the wire with their addresses, the packets out of the TUN, events, stamps, counters,
faults, endpoints, drops, what waits, the descriptor, system calls. All of that must be equal, but
for what follows:

1 The native engine writes to the TUN after it has handled all that it received at once, so
  `TunClosed` may come later among the events (and its text is the engine's own). There must be one
  from both, or from none.
2 Of datagrams that the kernel has put together, neighbours under one keypair count as received at
  once by the native engine. If the first of them confirms the keypair, the portable engine sends
  what was staged between the first and the second, the native one after the last. So this peer's
  "first data" stamps may say "sent after received" there instead of the reverse, `BecameActive` may
  come before `KeypairConfirmed`, and a source that turned out to be unusable is not pinned again by
  the second. Datagrams that came one by one do not excuse this.
3 Cookie replies, which an engine makes itself of random numbers, are compared as far as they have
  none: `test_gate` opens them.
4 What `OffloadOff` gives as reason is the engine's own text; and only the native engine has
  offloads of the TUN to give up.
"""

import dataclasses
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from tests.dataplane.lab import OUR_ADDRESS, A, B, FarEnd, Lab, NativeLab
from wgd.addresses import Endpoint
from wgd.dataplane.interface import (
    Counters,
    Fault,
    KeypairConfirmed,
    Load,
    OffloadOff,
    PeerId,
    QueueDepths,
    Report,
    Stamps,
    TunClosed,
)
from wgd.diagnosis import FailureReason
from wgd.net.memory import MemorySocket, Transit

T = TypeVar("T")

OUR_ADDRESS_6: Final = "2001:db8::100"
OTHER_ADDRESS: Final = "192.0.2.101"
OTHER_ADDRESS_6: Final = "2001:db8::101"
ELSEWHERE: Final = "198.51.100.7"
"""A host that neither peer is at to begin with."""

_OURS: Final = {OUR_ADDRESS, OUR_ADDRESS_6, OTHER_ADDRESS, OTHER_ADDRESS_6}


class Side:
    """One engine in its laboratory, and what the tests need around it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.engine = lab.engine
        self.sockets: Sequence[MemorySocket] = ()
        self.attach([lab.socket, lab.socket6])
        elsewhere = lab.network.host("elsewhere", ELSEWHERE).bind(port=4000)
        self.far_ends = (lab.at_a, lab.at_b, lab.at_a6, elsewhere)
        self.wire: list[Transit] = []
        """What we sent, in the order of the system calls."""
        lab.network.fate = self._meet_fate

    def close(self) -> None:
        """Give everything back."""
        self.far_ends[-1].close()
        self.lab.close()

    def _meet_fate(self, transit: Transit) -> Iterable[int]:
        """What we send is noted, and goes no further."""
        if transit.source.host not in _OURS:
            return (0,)
        self.wire.append(transit)
        return ()

    def attach(self, sockets: Sequence[MemorySocket]) -> None:
        """Give the engine these sockets."""
        self.engine.attach_sockets(sockets)
        self.sockets = sockets

    def let_send(self, packets: Sequence[bytes]) -> int:
        """Let the engine send packets; return how many of its steps failed."""
        for packet in packets:
            assert self.lab.tun.inject(packet)
        return self.empty_tun()

    def empty_tun(self) -> int:
        """Let the engine read until the TUN is empty; return how many of its steps failed."""
        waiting = self.lab.tun._outgoing
        failures = 0
        while True:
            before = len(waiting)
            failures += not self.engine.receive_from_tun()
            if not waiting or len(waiting) == before:
                return failures

    def let_receive(self) -> int:
        """Let the engine receive all that waits; return how many of its steps failed."""
        failures = 0
        for socket in self.sockets:
            while socket._received or socket.receive_errors:
                before = len(socket._received) + len(socket.receive_errors)
                failures += not self.engine.receive_from_socket(socket)
                assert len(socket._received) + len(socket.receive_errors) < before
        return failures


@dataclass
class Seen:
    """What came out of one engine; compared field by field."""

    wire: list[Transit]
    drops: dict[str, int]
    counters: dict[PeerId, Counters]
    faults: dict[PeerId, dict[FailureReason, Fault]]
    waiting: dict[PeerId, tuple[bool, int]]
    """Whether there is a session to send under, and how many packets wait for one."""
    load: Load
    queue_depths: QueueDepths
    udp_offloads: list[str]
    endpoints: dict[PeerId, Endpoint | None]
    stamps: dict[PeerId, Stamps]
    events: list[Report]
    """But for those of the next three."""
    closings: int
    paths_without_batches: int
    tun_offloads_off: list[str]
    delivered: list[bytes]
    is_readable: tuple[bool, bool]
    """Whether the event descriptor is: before and after the events are drained."""
    segment_sends: list[int]
    """How many system calls sent several datagrams, by socket: it shows who left with whom."""
    errors_left: list[int]


class Pair:
    """The two laboratories. `peers` says which peers both engines know."""

    def __init__(self, make_native: Callable[[], Lab] = NativeLab) -> None:
        self.portable = Side(Lab())
        self.native = Side(make_native())
        self.peers = [A, B]
        self.far_ends: dict[int, FarEnd] = {}
        """By the index in what we send to them."""
        self.injected = {b""}
        """What may come out of the other end of a session."""
        self.drops_apart: Counter[str] = Counter()
        """How many more drops than the native engine the portable one is expected to count."""
        self._sealed: dict[tuple[int, int], bytes] = {}

    @property
    def sides(self) -> tuple[Side, Side]:
        """The portable and the native one."""
        return self.portable, self.native

    def now_ns(self) -> int:
        """The time in both."""
        return self.portable.lab.clock.boot_ns()

    def close(self) -> None:
        """Give everything back."""
        for side in self.sides:
            side.close()

    def both(
        self, call: Callable[[Side], T], *, coalesced: bool = False, same_calls: bool = True
    ) -> T:
        """Do something in both and compare everything; return what it returned.

        `coalesced` says that sockets have put datagrams together, `same_calls` that datagrams must
        leave in the same batches.
        """
        returned, also = call(self.portable), call(self.native)
        assert also == returned
        portable, native = self._observe(self.portable), self._observe(self.native)
        assert native.wire == portable.wire
        for transit in portable.wire:
            self._check(transit.datagram)
        assert native.drops == {
            name: count - self.drops_apart[name] for name, count in portable.drops.items()
        }
        assert native.counters == portable.counters
        assert native.faults == portable.faults
        assert native.waiting == portable.waiting
        assert native.queue_depths == portable.queue_depths
        assert native.load == portable.load
        assert native.udp_offloads == portable.udp_offloads
        self._compare_events(portable, native, coalesced=coalesced)
        self.compare_delivered(portable.delivered, native.delivered)
        was_readable, is_readable = portable.is_readable
        was_readable |= bool(native.tun_offloads_off)  # see 4 above
        assert native.is_readable == (was_readable, is_readable)
        assert native.errors_left == portable.errors_left
        if same_calls:
            assert native.segment_sends == portable.segment_sends
        return returned

    def _observe(self, side: Side) -> Seen:
        lab, engine = side.lab, side.engine
        was_readable = lab.is_readable()
        reports = engine.drain_events()
        events: list[Report] = []
        offloads_off: list[str] = []
        closings = 0
        for report in reports:
            if isinstance(report, TunClosed | OffloadOff):
                assert report.reason
            if isinstance(report, TunClosed):
                closings += 1
            elif isinstance(report, OffloadOff):
                offloads_off.append(report.name)
            else:
                events.append(report)
        assert engine.drop_counts() == dataclasses.asdict(engine.drops)
        wire, side.wire = [_without_chance(transit) for transit in side.wire], []
        segment_sends = [socket.segment_sends for socket in (lab.socket, lab.socket6)]
        lab.socket.segment_sends = lab.socket6.segment_sends = 0
        return Seen(
            wire=wire,
            drops=dict(engine.drop_counts()),
            counters={peer: engine.counters(peer) for peer in self.peers},
            faults={
                peer: {fault.reason: fault for fault in engine.faults(peer)} for peer in self.peers
            },
            waiting={
                peer: (engine.has_session(peer), engine.staged_packets(peer)) for peer in self.peers
            },
            queue_depths=engine.queue_depths(),
            load=engine.load(),
            udp_offloads=[name for name in engine.offloads() if name.startswith("udp_")],
            endpoints={peer: engine.endpoint(peer) for peer in self.peers},
            stamps={peer: engine.stamps(peer) for peer in self.peers},
            events=events,
            closings=closings,
            paths_without_batches=offloads_off.count("udp_gso"),
            tun_offloads_off=[name for name in offloads_off if name != "udp_gso"],
            delivered=lab.delivered(),
            is_readable=(was_readable, lab.is_readable()),
            segment_sends=segment_sends,
            errors_left=[
                len(errors)
                for socket in (lab.socket, lab.socket6)
                for errors in (socket.send_errors, socket.segment_errors, socket.receive_errors)
            ],
        )

    def _compare_events(self, portable: Seen, native: Seen, *, coalesced: bool) -> None:
        assert native.closings == portable.closings <= 1
        assert native.paths_without_batches == portable.paths_without_batches
        assert portable.tun_offloads_off == []
        self.check_offloads_off(native.tun_offloads_off)
        confirmed = {each.peer for each in portable.events if isinstance(each, KeypairConfirmed)}
        excused = confirmed if coalesced else set()
        if excused:
            assert Counter(native.events) == Counter(portable.events)
        else:
            assert native.events == portable.events
        for peer in self.peers:
            ours = portable.stamps[peer], portable.endpoints[peer]
            theirs = native.stamps[peer], native.endpoints[peer]
            if theirs != ours:
                assert peer in excused
                self._compare_order(ours, theirs)
                self._make_alike(peer)

    def _compare_order(
        self, portable: tuple[Stamps, Endpoint | None], native: tuple[Stamps, Endpoint | None]
    ) -> None:
        """Both have sent and received at this moment; to the native engine sending came last."""
        ours, theirs = portable[0], native[0]
        moment = (0, self.now_ns())
        assert theirs[:2] == ours[:2] == (self.now_ns(), self.now_ns())
        assert theirs.first_data_received_unanswered_ns == 0
        assert theirs.first_data_sent_unanswered_ns in moment
        assert ours.first_data_received_unanswered_ns in moment
        assert ours.first_data_sent_unanswered_ns == 0
        assert portable[1] is not None
        assert native[1] in (portable[1], portable[1]._replace(source=None))

    def _make_alike(self, peer: PeerId) -> None:
        for side in self.sides:
            side.engine.clear_stamps(peer)
            endpoint = side.engine.endpoint(peer)
            assert endpoint is not None
            side.engine.set_endpoint(peer, endpoint._replace(source=None))

    def check_offloads_off(self, names: list[str]) -> None:
        """Check which offloads of the TUN the native engine has given up."""
        assert names == []

    def compare_delivered(self, portable: list[bytes], native: list[bytes]) -> None:
        """Compare the packets that came out of the TUN, in their order."""
        assert native == portable

    def _check(self, datagram: bytes) -> None:
        """What both sent must also be right: open, hold what we sent, and use no nonce twice."""
        if datagram[0] != 4:
            return
        far = self.far_ends[struct.unpack_from("<I", datagram, 4)[0]]
        counter, plaintext = far.open(datagram)
        # A datagram may leave twice: a batch that failed half-way is sent again.
        assert self._sealed.setdefault((far.their_index, counter), datagram) == datagram
        lengths = range(len(plaintext), max(len(plaintext) - 16, -1), -1)
        assert any(
            plaintext[:length] in self.injected and not any(plaintext[length:])
            for length in lengths
        )


def _without_chance(transit: Transit) -> Transit:
    """Return what two engines send alike of a datagram: all, or of a cookie reply the beginning."""
    datagram = transit.datagram
    return transit._replace(datagram=datagram[:8]) if datagram[0] == 3 else transit
