"""The native engine on a TUN with virtio-net headers does what the portable one does without.

Super-packets into the native engine, and the packets they stand for, one by one, into the portable
one, must leave as the same datagrams. What the native engine writes together must, when it is cut
again, be the packets that the portable engine delivers. Everything else happens here, too: this is
the machine of `test_differential` with more to do. See `pair` for what is compared.

More that may differ here:

1 Order is kept within a flow, and around packets whose flow cannot be told; not between flows.
2 IPv4 packets of one flow with DF set may have equal identifications, which mean nothing
  (RFC 6864, section 4.1). Put together and cut again they count up.
3 A super-packet without a route is one drop, and the packets in it are so many.
4 More packets than one step reads may leave in other batches.
"""

import ipaddress
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from tests.dataplane.flows import (
    CONTRADICTIONS,
    DO_NOT_FRAGMENT,
    Flow,
    Segment,
    SuperPacket,
    flow_of,
    new_flows,
    segment_lists,
    super_packets,
    unsummed_packets,
)
from tests.dataplane.lab import A, B, NativeLab, SteppedEngine
from tests.dataplane.machine import MAX_STEP_BYTES, Machine
from tests.dataplane.pair import Pair, Side
from tests.dataplane.traffic import V4_ADDRESSES, V6_ADDRESSES
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
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

_V4 = [ipaddress.ip_address(text).packed for text in V4_ADDRESSES]
_V6 = [ipaddress.ip_address(text).packed for text in V6_ADDRESSES]


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
        assert len(native) == len(portable)
        flows = {flow_of(packet) for packet in portable}
        for flow in flows:
            expected = [packet for packet in portable if flow_of(packet) in (flow, None)]
            found = [each for each in self.tun.taken if flow_of(each.packet) in (flow, None)]
            assert len(found) == len(expected)
            for packet, written in zip(expected, found, strict=True):
                assert written.packet == packet or written == _counted_up(packet, written)


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
        known = _V6 if plan.flow.is_ipv6 else _V4
        return known[0], known[destination % len(known)]

    def _is_routed(self, destination: bytes) -> bool:
        return self.portable_state().route(destination) is not None

    def send_super_packets(self, plans: list[tuple[SuperPacket, int]]) -> None:
        """Send each to the destination with its number."""
        self.usable_session(0)
        wholes: list[tuple[VirtioHeader, bytes]] = []
        packets: list[bytes] = []
        for plan, destination in plans:
            addresses = self._addresses_of(plan, destination)
            header, packet = plan.build(addresses, self._number())
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

    @rule(plan=super_packets, destination=st.integers(0, 4))
    def outbound_super_packet(self, plan: SuperPacket, destination: int) -> None:
        self.send_super_packets([(plan, destination)])

    @rule(
        plans=st.lists(
            st.tuples(st.one_of(super_packets, unsummed_packets), st.integers(0, 4)),
            min_size=1,
            max_size=5,
        )
    )
    def outbound_mixed(self, plans: list[tuple[SuperPacket, int]]) -> None:
        self.send_super_packets(plans)

    @precondition(lambda self: not self.is_closed)
    @rule(
        plan=super_packets.filter(lambda plan: plan.payload > 0),
        how=st.sampled_from(tuple(CONTRADICTIONS)),
    )
    def outbound_contradictory(self, plan: SuperPacket, how: str) -> None:
        header, packet = CONTRADICTIONS[how](
            *plan.build(self._addresses_of(plan, 0), self._number())
        )
        self.pair.drops_apart["malformed_packet"] -= 1

        def call(side: Side) -> int:
            if side is self.pair.native:
                self.pair.tun.inject_raw(header.to_bytes() + packet)
            return side.empty_tun()

        self.pair.both(call)

    # -- into the TUN ------------------------------------------------------------------------------

    @rule(segments=segment_lists, session=st.integers(0, 3), coalesced=st.booleans())
    def inbound_flows(self, segments: list[Segment], session: int, coalesced: bool) -> None:
        far, peer = self.usable_session(session)
        owned = self.addresses(peer)
        sent = []
        for segment in segments:
            state = self.flows[segment.flow]
            known = _V6 if state.flow.is_ipv6 else _V4
            sources = [each for each in owned if each in known] or known[-1:]
            packet = state.build(segment, (sources[0], known[0]), self._number())
            sent.append((0, far.seal(packet)))
        self.arrive(sent, coalesced=coalesced)

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
    machine.inbound_flows(segments=segments, session=0, coalesced=False)
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
