"""Congestion marks go into the tunnel and out of it (RFC 6040), and handshakes are marked AF41."""

import struct

import pytest

from tests.dataplane.flows import Flow, SuperPacket, compose
from tests.dataplane.lab import OUR_ADDRESS, PORT, A, FarEnd, Lab
from tests.dataplane.test_differential_offload import VirtioLab
from tests.dataplane.traffic import packed
from tests.dataplane.virtio import internet_sum
from tests.testbed.engines import NATIVE, require_engine
from wgd.addresses import Endpoint

NOT_ECT, ECT_1, ECT_0, CE = range(4)

# RFC 6040, figure 4: what an inner packet becomes, by its own field and by that of the outer one.
FIGURE_4: dict[int, dict[int, int | None]] = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT_0: NOT_ECT, ECT_1: NOT_ECT, CE: None},
    ECT_0: {NOT_ECT: ECT_0, ECT_0: ECT_0, ECT_1: ECT_1, CE: CE},
    ECT_1: {NOT_ECT: ECT_1, ECT_0: ECT_1, ECT_1: ECT_1, CE: CE},
    CE: {NOT_ECT: CE, ECT_0: CE, ECT_1: CE, CE: CE},
}
AF41 = 0x88

both_versions = pytest.mark.parametrize("is_ipv6", [False, True], ids=["IPv4", "IPv6"])


def packet(traffic_class: int, *, is_ipv6: bool = False, is_ours: bool = True) -> bytes:
    """A UDP packet from us to A, or from A to us."""
    addresses = [packed("fd00::9"), packed("fd00::1")] if is_ipv6 else []
    addresses = addresses or [packed("10.9.9.9"), packed("10.2.0.1")]
    if not is_ours:
        addresses.reverse()
    flow = Flow(is_ipv6=is_ipv6, is_tcp=False, traffic_class=traffic_class)
    return compose(flow, (addresses[0], addresses[1]), bytes(100))


def receive(lab: Lab, *datagrams: bytes, traffic_class: int) -> list[bytes]:
    for datagram in datagrams:
        lab.at_a.send(datagram, Endpoint(OUR_ADDRESS, PORT), traffic_class)
    lab.engine.receive_from_socket(lab.socket)
    return lab.delivered()


def outer(lab: Lab) -> list[int]:
    """The traffic classes of what has reached A."""
    classes: list[int] = []
    while True:
        try:
            *_, traffic_class = lab.at_a.receive_into(memoryview(bytearray(65_535)))
        except BlockingIOError:
            return classes
        classes.append(traffic_class)


# -- into the tunnel -------------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("field", [NOT_ECT, ECT_1, ECT_0, CE])
def test_the_outer_field_is_the_inner_one_without_its_dscp(
    lab: Lab, is_ipv6: bool, field: int
) -> None:
    lab.established()
    for dscp in (0, AF41, 0xFC):
        lab.outbound(packet(dscp | field, is_ipv6=is_ipv6))
    assert outer(lab) == [field] * 3


def test_only_neighbours_of_one_field_leave_together(lab: Lab) -> None:
    lab.established()
    lab.outbound(*(packet(field) for field in (ECT_0, ECT_0, CE, CE, CE, NOT_ECT, NOT_ECT, ECT_0)))
    assert outer(lab) == [ECT_0, ECT_0, CE, CE, CE, NOT_ECT, NOT_ECT, ECT_0]
    assert lab.socket.segment_sends == 3


def test_another_dscp_is_no_reason_to_leave_apart(lab: Lab) -> None:
    lab.established()
    lab.outbound(packet(ECT_0), packet(AF41 | ECT_0), packet(0xFC | ECT_0))
    assert outer(lab) == [ECT_0] * 3
    assert lab.socket.segment_sends == 1


def test_what_was_staged_is_marked(lab: Lab) -> None:
    lab.outbound(packet(ECT_0), packet(NOT_ECT), packet(CE))
    lab.complete()
    assert outer(lab) == [ECT_0, NOT_ECT, CE]


def test_a_path_without_batches_gets_marked_datagrams(lab: Lab) -> None:
    lab.established()
    lab.socket.segment_errors.append(5)
    lab.outbound(packet(ECT_1), packet(ECT_1))
    assert outer(lab) == [ECT_1, ECT_1]


@both_versions
@pytest.mark.parametrize("is_tcp", [False, True], ids=["UDP", "TCP"])
def test_a_super_packet_marks_all_it_becomes(is_ipv6: bool, is_tcp: bool) -> None:
    require_engine(NATIVE)
    lab = VirtioLab()
    try:
        lab.established()
        flow = Flow(is_ipv6, is_tcp, traffic_class=AF41 | ECT_0)
        plan = SuperPacket(flow, payload=5000, segment_size=1200)
        ours, theirs = ("fd00::9", "fd00::1") if is_ipv6 else ("10.9.9.9", "10.2.0.1")
        header, built = plan.build((packed(ours), packed(theirs)), 1)
        lab.virtio_tun.inject_raw(header.to_bytes() + built)
        lab.engine.receive_from_tun()
        assert outer(lab) == [ECT_0] * 5
        assert lab.socket.segment_sends == 1
    finally:
        lab.close()


def test_handshakes_are_marked_and_keepalives_are_not(lab: Lab) -> None:
    lab.established()
    lab.engine.send_to_peer(A, b"handshake")
    lab.engine.send_keepalive(A)
    assert outer(lab) == [AF41, 0]  # and cookie replies are: test_gate


# -- out of the tunnel -----------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("outer_field", [NOT_ECT, ECT_1, ECT_0, CE])
@pytest.mark.parametrize("inner_field", [NOT_ECT, ECT_1, ECT_0, CE])
def test_inner_and_outer_are_joined_as_figure_4_says(
    lab: Lab, is_ipv6: bool, inner_field: int, outer_field: int
) -> None:
    far = lab.established()
    expected: int | None = FIGURE_4[inner_field][outer_field]
    for dscp in (0, AF41, 0xFC):
        sent = packet(dscp | inner_field, is_ipv6=is_ipv6, is_ours=False)
        # The outer DSCP is nothing to us.
        delivered = receive(lab, far.seal(sent), traffic_class=AF41 | outer_field)
        if expected is None:
            assert delivered == []
        else:
            # Which has the right header checksum, too.
            assert delivered == [packet(dscp | expected, is_ipv6=is_ipv6, is_ours=False)]
    assert lab.engine.drops.congested == (3 if expected is None else 0)


def test_what_is_dropped_for_its_mark_was_authentic(lab: Lab) -> None:
    far = lab.established()
    datagram = far.seal(packet(NOT_ECT, is_ours=False))
    receive(lab, datagram, traffic_class=CE)
    counters = lab.engine.counters(A)
    assert (counters.received_packets, counters.received_bytes) == (1, len(datagram))
    assert lab.engine.stamps(A).last_received_ns == lab.clock.boot_ns()


def test_a_marked_keepalive_is_a_keepalive(lab: Lab) -> None:
    far = lab.established()
    assert receive(lab, far.seal(b""), traffic_class=CE) == []
    assert lab.engine.drops.congested == 0
    assert lab.engine.counters(A).received_packets == 1


def test_a_mark_makes_no_wrong_checksum_right(lab: Lab) -> None:
    far = lab.established()
    sent = bytearray(packet(ECT_0, is_ours=False))
    struct.pack_into("!H", sent, 10, 0x1234)
    (delivered,) = receive(lab, far.seal(bytes(sent)), traffic_class=CE)
    assert delivered[1] == CE
    assert internet_sum(delivered[:20]) != 0xFFFF


def test_a_malformed_packet_is_not_touched(lab: Lab) -> None:
    far = lab.established()
    assert receive(lab, far.seal(b"\x45"), traffic_class=CE) == []
    assert lab.engine.drops.malformed_inner_packet == 1


@pytest.mark.parametrize("is_tcp", [False, True], ids=["UDP", "TCP"])
@both_versions
def test_what_came_together_is_marked_and_delivered_together(is_ipv6: bool, is_tcp: bool) -> None:
    require_engine(NATIVE)
    lab = VirtioLab()
    try:
        far = lab.established()

        def segments(traffic_class: int, number: int) -> list[bytes]:
            theirs, ours = ("fd00::1", "fd00::9") if is_ipv6 else ("10.2.0.1", "10.9.9.9")
            flow = Flow(is_ipv6, is_tcp, traffic_class=traffic_class)
            return [
                compose(
                    flow,
                    (packed(theirs), packed(ours)),
                    bytes(1200),
                    sequence=each * 1200,
                    identification=each,
                )
                for each in range(number, number + 4)
            ]

        lab.socket.coalesces = True
        for traffic_class, number in ((CE, 0), (ECT_0, 4)):
            for each in sealed(far, segments(ECT_0, number)):
                lab.at_a.send(each, Endpoint(OUR_ADDRESS, PORT), traffic_class)
        lab.engine.receive_from_socket(lab.socket)
        assert lab.delivered() == segments(CE, 0) + segments(ECT_0, 4)
        assert lab.virtio_tun.super_packets == 2  # a receiver must see where the marks end
    finally:
        lab.close()


def sealed(far: FarEnd, packets: list[bytes]) -> list[bytes]:
    return [far.seal(each) for each in packets]
