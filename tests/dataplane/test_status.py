"""What an engine tells those who watch: packets, sessions, what waits, drops, offloads in use."""

import dataclasses
import errno
from collections.abc import Iterator

import pytest

from tests.dataplane.flows import Segment, new_flows
from tests.dataplane.lab import A_ADDRESS, OUR_ADDRESS, PORT, A, B, Lab, ipv4
from tests.dataplane.test_differential_offload import VirtioLab
from tests.dataplane.traffic import KEYS, HandshakeMessage, packed
from tests.testbed.engines import NATIVE, require_engine
from wgd.addresses import Endpoint
from wgd.constants import REJECT_AFTER_MESSAGES
from wgd.dataplane.interface import Counters, PeerId, QueueDepths
from wgd.dataplane.portable_state import Drops

OUT = ipv4("10.9.9.9", "10.2.0.1", 96)
TO_B = ipv4("10.9.9.9", "10.1.0.1", 96)
IN = ipv4("10.2.0.1", "10.9.9.9", 96)

# -- packets ---------------------------------------------------------------------------------------


def test_every_datagram_is_a_packet_joined_or_not(lab: Lab) -> None:
    far = lab.established()
    size = len(OUT) + 32
    lab.outbound(*[OUT] * 5)  # leave together
    assert lab.socket.segment_sends == 1
    lab.engine.send_keepalive(A)
    lab.engine.send_to_peer(A, b"handshake")
    assert lab.engine.counters(A) == Counters(
        sent_bytes=5 * size + 32 + 9, received_bytes=0, sent_packets=7, received_packets=0
    )
    lab.socket.coalesces = True
    for _ in range(4):  # come together
        lab.at_a.send(far.seal(IN), Endpoint(OUR_ADDRESS, PORT))
    lab.engine.receive_from_socket(lab.socket)
    lab.inbound(far.seal(b""))
    lab.engine.note_received(A, 92, Endpoint(A_ADDRESS, PORT))
    received = lab.engine.counters(A)
    assert (received.received_bytes, received.received_packets) == (4 * size + 32 + 92, 6)
    assert lab.engine.counters(B) == Counters(0, 0, 0, 0)


def test_what_is_not_authentic_is_not_counted(lab: Lab) -> None:
    far = lab.established()
    datagram = far.seal(IN)
    lab.inbound(datagram)
    before = lab.engine.counters(A)
    lab.inbound(datagram)
    lab.inbound(far.seal(IN)[:-1] + b"\0")
    assert lab.engine.counters(A) == before


# -- sessions and what waits for them --------------------------------------------------------------


def test_a_session_lasts_as_long_as_it_may_send(lab: Lab) -> None:
    assert not lab.engine.has_session(A)
    lab.install()
    assert lab.engine.has_session(A)
    assert not lab.engine.has_session(B)
    lab.advance(179.9)
    assert lab.engine.has_session(A)
    lab.advance(0.1)
    assert not lab.engine.has_session(A)


def test_a_responder_has_one_when_it_is_confirmed(lab: Lab) -> None:
    far = lab.install(initiator=False)
    assert not lab.engine.has_session(A)
    lab.inbound(far.seal(b""))
    assert lab.engine.has_session(A)


@pytest.mark.parametrize("end", ["expire", "drop", "count"])
def test_a_session_that_was_ended_is_none(lab: Lab, end: str) -> None:
    lab.established()
    if end == "expire":
        lab.engine.expire_keypairs(A)
    elif end == "drop":
        lab.engine.drop_keypairs(A)
    else:
        lab.set_send_counter(A, REJECT_AFTER_MESSAGES - 2)
        lab.outbound(OUT)
        assert lab.engine.has_session(A)  # for one more
        lab.outbound(OUT)
        assert len(lab.sent()) == 2
    assert not lab.engine.has_session(A)
    lab.outbound(OUT)
    assert lab.engine.staged_packets(A) == 1


def test_staged_packets_are_counted_by_peer_and_together(lab: Lab) -> None:
    assert lab.engine.queue_depths() == QueueDepths(handshakes=0, staged=0)
    lab.outbound(OUT, OUT, TO_B)
    assert (lab.engine.staged_packets(A), lab.engine.staged_packets(B)) == (2, 1)
    assert lab.engine.queue_depths() == QueueDepths(handshakes=0, staged=3)
    lab.complete()
    assert (lab.engine.staged_packets(A), lab.engine.staged_packets(B)) == (0, 1)
    lab.engine.drop_staged(B)
    assert lab.engine.queue_depths().staged == 0
    lab.outbound(TO_B)
    lab.engine.remove_peer(B)
    assert lab.engine.queue_depths().staged == 0


def test_handshake_messages_of_all_kinds_are_counted(lab: Lab) -> None:
    lab.engine.set_handshake_keys(KEYS)
    lab.engine.send_to_peer(A, HandshakeMessage(1).build(7))
    for number, kind in enumerate((1, 2, 3), start=1):
        lab.inbound(HandshakeMessage(kind).build(number, answers=7))
    assert lab.engine.queue_depths().handshakes == 3
    lab.engine.take_handshakes(2)
    assert lab.engine.queue_depths().handshakes == 1
    lab.engine.take_handshakes(1)
    assert lab.engine.queue_depths().handshakes == 0


def test_drops_have_the_names_of_the_portable_engine(lab: Lab) -> None:
    lab.outbound(ipv4("10.9.9.9", "203.0.113.1"))
    expected = dict.fromkeys((field.name for field in dataclasses.fields(Drops)), 0)
    assert lab.engine.drop_counts() == expected | {"no_route": 1}


def test_a_peer_that_is_not_known_is_a_mistake_of_the_callers(lab: Lab) -> None:
    nobody = PeerId(99)
    for ask in (lab.engine.faults, lab.engine.has_session, lab.engine.staged_packets):
        with pytest.raises(KeyError):
            ask(nobody)


# -- offloads --------------------------------------------------------------------------------------


def test_offloads_are_those_of_the_sockets(lab: Lab) -> None:
    assert lab.engine.offloads() == ("udp_gro", "udp_gso")
    lab.socket.max_segments = 1
    assert lab.engine.offloads() == ("udp_gro", "udp_gso")  # the other family has them
    lab.socket6.max_segments = 1
    assert lab.engine.offloads() == ()
    lab.socket6.max_segments = 64
    lab.engine.attach_sockets([])
    assert lab.engine.offloads() == ()


def test_udp_gso_is_off_when_it_has_failed_to_every_peer(lab: Lab) -> None:
    for peer, packet in ((A, OUT), (B, TO_B)):
        assert "udp_gso" in lab.engine.offloads()
        lab.established(peer)
        lab.socket.segment_errors.append(errno.EIO)
        lab.outbound(packet, packet)
    assert lab.engine.offloads() == ("udp_gro",)
    lab.engine.set_endpoint(A, Endpoint(A_ADDRESS, PORT))
    assert lab.engine.offloads() == ("udp_gro", "udp_gso")


def test_without_peers_nothing_has_failed(lab: Lab) -> None:
    lab.engine.remove_peer(A)
    lab.engine.remove_peer(B)
    assert lab.engine.offloads() == ("udp_gro", "udp_gso")


@pytest.fixture
def virtio_lab() -> Iterator[VirtioLab]:
    require_engine(NATIVE)
    made = VirtioLab()
    yield made
    made.close()


@pytest.mark.parametrize("flow", [0, 4])  # of TCP, of UDP
def test_joined_writes_are_in_use_until_they_fail(virtio_lab: VirtioLab, flow: int) -> None:
    lab = virtio_lab
    assert lab.engine.offloads() == ("tun_gro", "udp_gro", "udp_gso")
    far = lab.established()
    state = new_flows()[flow]
    assert state.flow.is_tcp == (flow == 0)
    lab.virtio_tun.refuses_super_packets = True
    for number in range(2):
        packet = state.build(Segment(flow, 1200), (packed("10.2.0.1"), packed("10.9.9.9")), number)
        lab.at_a.send(far.seal(packet), Endpoint(OUR_ADDRESS, PORT))
    lab.engine.receive_from_socket(lab.socket)
    assert len(lab.delivered()) == 2
    assert lab.engine.offloads() == ("udp_gro", "udp_gso")
