"""The native engine on a TUN with virtio-net headers does what the portable one does without.

Super-packets into the native engine, and the packets they stand for, one by one, into the portable
one, must leave as the same datagrams. What the native engine writes together must, when it is cut
again, be the packets that the portable engine delivers. Everything else happens here, too: this is
the machine of `test_differential` with more to do. See `pair` for what is compared.

More that may differ here:

1 Order is kept within a flow, and around packets whose flow cannot be told; not between flows.
2 IPv4 packets of one flow with DF set may have equal identifications, which mean nothing
  (RFC 6864, section 4.1). Put together and cut again they count up.
3 A super-packet without a route is one drop and gets one answer, and the packets in it are so many;
  what the answers are is not compared here.
4 More packets than one step reads may leave in other batches.
"""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from tests.dataplane.flows import (
    CONTRADICTIONS,
    DO_NOT_FRAGMENT,
    Flow,
    Segment,
    SuperPacket,
    draw_segments,
    draw_super_packet,
    draw_super_packets,
    flow_of,
    new_flows,
)
from tests.dataplane.lab import A, B, NativeLab, SteppedEngine
from tests.dataplane.lockstep import MAX_STEP_BYTES
from tests.dataplane.machine import Machine
from tests.dataplane.pair import Pair, Side
from tests.dataplane.traffic import V4_ADDRESSES, V6_ADDRESSES, packed, seeded
from tests.dataplane.virtio import (
    VirtioHeader,
    VirtioTun,
    Written,
    cut,
    get,
    put,
    with_ipv4_checksum,
)
from tests.testbed.engines import NATIVE, require_engine

PACKETS_PER_STEP = 64

SETTINGS = settings(
    max_examples=50,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class VirtioLab(NativeLab):
    """The native engine on a TUN with virtio-net headers."""

    def make_engine(self) -> SteppedEngine:
        self.tun = self.virtio_tun = VirtioTun()
        return super().make_engine()


class OffloadPair(Pair):
    """The portable engine and the native one on a TUN with virtio-net headers."""

    def __init__(self) -> None:
        super().__init__(VirtioLab)
        assert isinstance(self.native.lab, VirtioLab)
        self.tun = self.native.lab.virtio_tun

    def check_offloads_off(self, names: list[str]) -> None:
        assert len(set(names)) == len(names)
        assert set(names) <= {"tun_tcp_gro", "tun_udp_gro"}
        assert not names or self.tun.refuses_super_packets

    def compare_delivered(self, portable: list[bytes], native: list[bytes]) -> None:
        portable = [packet for packet in portable if not _is_refusal(packet)]
        native = [packet for packet in native if not _is_refusal(packet)]
        self.tun.taken = [each for each in self.tun.taken if not _is_refusal(each.packet)]
        assert len(native) == len(portable)
        flows = {flow_of(packet) for packet in portable}
        for flow in flows:
            expected = [packet for packet in portable if flow_of(packet) in (flow, None)]
            found = [each for each in self.tun.taken if flow_of(each.packet) in (flow, None)]
            assert len(found) == len(expected)
            for packet, written in zip(expected, found, strict=True):
                assert written.packet == packet or written == _counted_up(packet, written)


def _is_refusal(packet: bytes) -> bool:
    """Whether it is ICMP's "host unreachable" or ICMPv6's "address unreachable"."""
    if packet[0] >> 4 == 4:
        return packet[9] == 1 and packet[20:22] == b"\3\1"
    return packet[6] == 58 and packet[40:42] == b"\1\3"


def _counted_up(packet: bytes, written: Written) -> Written:
    """The packet as it comes out if all of its run had its identification."""
    if packet[0] >> 4 == 4 and get(packet, 6) & DO_NOT_FRAGMENT:
        identification = (get(packet, 4) + written.place) % 2**16
        packet = with_ipv4_checksum(put(packet, 4, identification))
    return Written(packet, written.place)


class OffloadMachine(Machine):
    """The same, with what a kernel puts together and takes together."""

    pair: OffloadPair

    def make_pair(self) -> Pair:
        return OffloadPair()

    def __init__(self) -> None:
        super().__init__()
        self.flows = new_flows()

    # -- out of the TUN ----------------------------------------------------------------------------

    def _addresses_of(self, plan: SuperPacket, destination: int) -> tuple[bytes, bytes]:
        known = V6_ADDRESSES if plan.flow.is_ipv6 else V4_ADDRESSES
        return packed(known[0]), packed(known[destination % len(known)])

    def _is_routed(self, destination: bytes) -> bool:
        return self.portable_state().route(destination) is not None

    def send_super_packets(self, plans: list[tuple[SuperPacket, int]]) -> None:
        """Send each to the destination with its number."""
        wholes: list[tuple[VirtioHeader, bytes]] = []
        packets: list[bytes] = []
        for plan, destination in plans:
            addresses = self._addresses_of(plan, destination)
            header, packet = plan.build(addresses, self.next_number())
            wholes.append((header, packet))
            segments = cut(header, packet)
            packets += segments
            if not self._is_routed(addresses[1]) and not self.is_closed:
                self.pair.drops_apart["no_route"] += len(segments) - 1
        self.pair.injected.update(packets)

        same_calls = len(packets) <= PACKETS_PER_STEP and sum(map(len, packets)) <= MAX_STEP_BYTES
        if not same_calls:
            self.let_sending_succeed()

        def call(side: Side) -> int:
            if side is self.pair.portable:
                return side.let_send(packets)
            for header, packet in wholes:
                self.pair.tun.inject_raw(header.to_bytes() + packet)
            return side.empty_tun()

        self.pair.both(call, same_calls=same_calls)

    @rule(plans=seeded(draw_super_packets), destinations=st.integers(0, 5**4))
    def outbound_super_packets(self, plans: list[SuperPacket], destinations: int) -> None:
        note(f"super-packets: {plans}")
        if destinations % 4:
            self.make_ready(self.peer(destinations))
        self.send_super_packets(
            [(plan, destinations // 5**place) for place, plan in enumerate(plans)]
        )

    @precondition(lambda self: not self.is_closed)
    @rule(plan=seeded(draw_super_packet), how=st.sampled_from(tuple(CONTRADICTIONS)))
    def outbound_contradictory(self, plan: SuperPacket, how: str) -> None:
        note(f"super-packet: {plan}")
        header, packet = CONTRADICTIONS[how](
            *plan.build(self._addresses_of(plan, 0), self.next_number())
        )
        self.pair.drops_apart["malformed_packet"] -= 1

        def call(side: Side) -> int:
            if side is self.pair.native:
                self.pair.tun.inject_raw(header.to_bytes() + packet)
            return side.empty_tun()

        self.pair.both(call)

    # -- into the TUN ------------------------------------------------------------------------------

    @rule(segments=seeded(draw_segments), session=st.integers(0, 3), coalesced=st.booleans())
    def inbound_flows(self, segments: list[Segment], session: int, coalesced: bool) -> None:
        note(f"segments: {segments}")
        self.receive_flows(segments, session, coalesced=coalesced)

    def receive_flows(self, segments: list[Segment], session: int, *, coalesced: bool) -> None:
        """Receive packets of TCP and UDP flows under one session."""
        far, peer = self.session(session)
        owned = self.addresses(peer)
        sent = []
        for segment in segments:
            state = self.flows[segment.flow]
            known = V6_ADDRESSES if state.flow.is_ipv6 else V4_ADDRESSES
            source = next((each for each in owned if each in known), known[-1])
            addresses = packed(source), packed(known[0])
            packet = state.build(segment, addresses, self.next_number())
            sent.append((0, far.seal(packet)))
        self.receive(sent, coalesced=coalesced)

    @precondition(lambda self: self.number > 300)  # once may be enough for the whole example
    @rule(refuses=st.booleans())
    def refuse_super_packets(self, refuses: bool) -> None:
        self.pair.tun.refuses_super_packets = refuses


def test_both_engines_do_the_same_with_offloads() -> None:
    require_engine(NATIVE)
    run_state_machine_as_test(OffloadMachine, settings=SETTINGS)


# -- what the machine relies on --------------------------------------------------------------------


@pytest.fixture
def machine() -> Iterator[OffloadMachine]:
    require_engine(NATIVE)
    made = OffloadMachine()
    yield made
    made.teardown()


@pytest.mark.parametrize("flow", range(8))
def test_neighbours_of_a_flow_are_written_together(machine: OffloadMachine, flow: int) -> None:
    state = machine.flows[flow]
    machine.establish(initiators=[True])
    segments = [Segment(flow, 1200)] * 7 + [Segment(flow, 600)]
    machine.receive_flows(segments, 0, coalesced=False)
    # Fragments of packets with equal identifications could be taken for one another's.
    may_fragment = not state.flow.is_ipv6 and not state.flow.do_not_fragment
    is_apart = may_fragment and not state.counts_identification
    assert machine.pair.tun.super_packets == (0 if is_apart else 1)
    assert len(machine.pair.tun.taken) == 8


@pytest.mark.parametrize("is_ipv6", [False, True])
@pytest.mark.parametrize("is_tcp", [False, True])
def test_a_super_packet_leaves_as_its_packets(
    machine: OffloadMachine, is_ipv6: bool, is_tcp: bool
) -> None:
    machine.establish(initiators=[True, True])
    before = [machine.pair.native.engine.counters(peer).sent_bytes for peer in (A, B)]
    plan = SuperPacket(Flow(is_ipv6=is_ipv6, is_tcp=is_tcp), payload=5000, segment_size=1200)
    machine.send_super_packets([(plan, 0)])
    after = [machine.pair.native.engine.counters(peer).sent_bytes for peer in (A, B)]
    headers = (40 if is_ipv6 else 20) + (20 if is_tcp else 8)
    # Four full ones and one of 200 bytes, each in multiples of 16 and with 32 bytes around it.
    full, last = (-(-(size + headers) // 16) * 16 + 32 for size in (1200, 200))
    assert sum(after) - sum(before) == 4 * full + last
