"""From UDP to the TUN: authenticity before anything else, then honesty of the inner packet."""

import errno
import os
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.dataplane.lab import A_ADDRESS, OUR_ADDRESS, PORT, A, B, FarEnd, Lab, ipv4, ipv6
from wgd.addresses import Endpoint, Source
from wgd.dataplane.interface import TunClosed
from wgd.noise.cookie import HandshakeKeys

FROM_A = ("10.2.0.1", "10.9.9.9")
FROM_B = ("10.1.0.1", "10.9.9.9")


def untouched(lab: Lab) -> tuple[object, ...]:
    """All that a datagram which is refused must not change."""
    engine = lab.engine
    return (
        engine.stamps(A),
        engine.counters(A),
        engine.endpoint(A),
        engine.drain_events(),
        lab.delivered(),
        lab.sent(A),
    )


@pytest.mark.parametrize("size", [20, 32, 33, 1420, 65_440])
def test_a_packet_arrives_without_its_padding(lab: Lab, size: int) -> None:
    far = lab.established()
    packet = ipv4(*FROM_A, size=size)
    datagram = far.seal(packet)
    lab.inbound(datagram)
    assert lab.delivered() == [packet]
    assert lab.engine.counters(A) == (0, len(datagram), 0, 1)


@pytest.mark.parametrize("size", [40, 41, 1420])
def test_ipv6_packets_too(lab: Lab, size: int) -> None:
    far = lab.established()
    packet = ipv6("fd00::1", "fd00::9", size=size)
    lab.inbound(far.seal(packet))
    assert lab.delivered() == [packet]


def test_a_datagram_of_65507_bytes(lab: Lab) -> None:
    far = lab.established()
    packet = ipv4(*FROM_A, size=65_472)
    datagram = far.seal(packet)
    assert len(datagram) == 65_504
    lab.inbound(datagram)
    assert lab.delivered() == [packet]
    lab.engine.drain_events()
    before = untouched(lab)
    lab.inbound(struct.pack("<IIQ", 4, far.our_index, 9) + os.urandom(65_491))
    assert untouched(lab) == before


# -- authenticity ----------------------------------------------------------------------------------


def test_a_replayed_packet_changes_nothing(lab: Lab) -> None:
    far = lab.established()
    datagram = far.seal(ipv4(*FROM_A))
    lab.inbound(datagram)
    assert len(lab.delivered()) == 1
    lab.engine.drain_events()
    before = untouched(lab)
    lab.advance(1)
    lab.inbound(datagram, lab.at_b)  # from elsewhere: it must not roam there either
    assert untouched(lab) == before
    assert lab.engine.drops.replayed == 1


def test_reordering_is_fine_within_the_window_of_8128(lab: Lab) -> None:
    far = lab.established()
    packet = ipv4(*FROM_A)
    for counter in (9000, 8999, 872, 9001):
        lab.inbound(far.seal(packet, counter))
    assert len(lab.delivered()) == 4
    lab.inbound(far.seal(packet, 872))  # 8129 behind by now
    lab.inbound(far.seal(packet, 8999))
    assert lab.delivered() == []
    lab.inbound(far.seal(packet, 874))
    assert len(lab.delivered()) == 1


def test_a_forged_packet_does_not_move_the_replay_window(lab: Lab) -> None:
    far = lab.established()
    forged = bytearray(far.seal(ipv4(*FROM_A), counter=10_000_000))
    forged[-1] ^= 1
    before = untouched(lab)
    lab.inbound(bytes(forged))
    assert untouched(lab) == before
    lab.inbound(far.seal(ipv4(*FROM_A), counter=0))
    assert len(lab.delivered()) == 1


@pytest.mark.parametrize("position", [4, 8, 15, 16, 20, -16, -1])
def test_any_flipped_bit_is_noticed(lab: Lab, position: int) -> None:
    far = lab.established()
    forged = bytearray(far.seal(ipv4(*FROM_A)))
    forged[position] ^= 0x80
    before = untouched(lab)
    lab.inbound(bytes(forged))
    assert untouched(lab) == before


@pytest.mark.parametrize("position", [1, 2, 3])
def test_reserved_bytes_are_zero(lab: Lab, position: int) -> None:
    far = lab.established()
    datagram = bytearray(far.seal(ipv4(*FROM_A)))
    datagram[position] = 1
    before = untouched(lab)
    lab.inbound(bytes(datagram))
    assert untouched(lab) == before


def test_the_last_counter_before_the_limit(lab: Lab) -> None:
    far = lab.established()
    lab.inbound(far.seal(ipv4(*FROM_A), counter=2**64 - 2**13 - 2))
    assert len(lab.delivered()) == 1
    lab.engine.drain_events()
    before = untouched(lab)
    for counter in (2**64 - 2**13 - 1, 2**64 - 1):
        lab.inbound(far.seal(ipv4(*FROM_A), counter))
    assert untouched(lab) == before
    assert lab.engine.drops.expired_keypair == 2


def test_a_keypair_opens_nothing_after_180_seconds(lab: Lab) -> None:
    far = lab.established()
    lab.clock.advance(180 * 1_000_000_000 - 1)
    lab.inbound(far.seal(ipv4(*FROM_A)))
    assert len(lab.delivered()) == 1
    lab.engine.drain_events()
    before = untouched(lab)
    lab.clock.advance(1)
    lab.inbound(far.seal(ipv4(*FROM_A)))
    assert untouched(lab) == before
    assert lab.engine.drops.expired_keypair == 1


# -- roaming ---------------------------------------------------------------------------------------


def test_any_authenticated_packet_moves_the_endpoint(lab: Lab) -> None:
    far = lab.established()
    elsewhere = lab.network.host("elsewhere", "198.51.100.7").bind(port=4000)
    lab.inbound(far.seal(b""), elsewhere)  # a keepalive is enough
    expected = Endpoint("198.51.100.7", 4000, 0, Source(OUR_ADDRESS, 1))
    assert lab.engine.endpoint(A) == expected
    lab.outbound(ipv4("10.9.9.9", "10.2.0.1"))
    assert len(lab.sent(elsewhere)) == 1
    lab.inbound(far.seal(ipv4("203.0.113.1", "10.9.9.9")), A)  # even one that is then refused
    moved = lab.engine.endpoint(A)
    assert moved is not None
    assert moved.host == A_ADDRESS


def test_a_handshake_message_moves_the_endpoint(lab: Lab) -> None:
    source = Endpoint("198.51.100.7", 4000, 0, Source(OUR_ADDRESS, 1))
    lab.engine.note_received(A, 148, source)
    assert lab.engine.endpoint(A) == source
    assert lab.engine.counters(A) == (0, 148, 0, 1)
    assert lab.engine.counters(B) == (0, 0, 0, 0)


# -- keepalives ------------------------------------------------------------------------------------


def test_a_keepalive_is_counted_but_neither_delivered_nor_answered(lab: Lab) -> None:
    far = lab.established()
    lab.inbound(far.seal(b""))
    assert lab.delivered() == []
    assert lab.sent() == []
    assert lab.engine.counters(A).received_bytes == 32
    assert lab.engine.drain_events() == []


# -- the inner packet ------------------------------------------------------------------------------


def test_a_source_routed_to_another_peer_is_refused(lab: Lab) -> None:
    far_a, far_b = lab.established(A), lab.established(B)
    lab.inbound(far_a.seal(ipv4(*FROM_B)), A)  # within A's 10.0.0.0/8, but B's /16 is longer
    lab.inbound(far_b.seal(ipv4(*FROM_A)), B)
    lab.inbound(far_a.seal(ipv4("11.0.0.1", "10.9.9.9")), A)  # nobody's
    lab.inbound(far_b.seal(ipv6("fd00::1", "fd00::9")), B)
    assert lab.delivered() == []
    assert lab.engine.drops.wrong_source == 4
    lab.inbound(far_b.seal(ipv4(*FROM_B)), B)
    lab.inbound(far_a.seal(ipv4(*FROM_A)), A)
    assert len(lab.delivered()) == 2


def test_a_refused_packet_was_still_authenticated(lab: Lab) -> None:
    far = lab.established()
    datagram = far.seal(ipv4("11.0.0.1", "10.9.9.9"))
    lab.advance(5)
    lab.inbound(datagram)
    assert lab.delivered() == []
    assert lab.engine.counters(A).received_bytes == len(datagram)
    stamps = lab.engine.stamps(A)
    assert stamps.last_received_ns == lab.clock.boot_ns()
    assert stamps.first_data_received_unanswered_ns == lab.clock.boot_ns()


def _patched(packet: bytes, position: int, *values: int) -> bytes:
    return packet[:position] + bytes(values) + packet[position + len(values) :]


@pytest.mark.parametrize(
    "inner",
    [
        bytes(16),
        b"\xff" * 32,
        ipv4(*FROM_A)[:16],
        b"\x55" + ipv4(*FROM_A)[1:],
        _patched(ipv4(*FROM_A, size=32), 0, 0x44),  # header of 16 bytes
        _patched(ipv4(*FROM_A, size=32), 0, 0x4F),  # header of 60 bytes in 32
        _patched(ipv4(*FROM_A, size=32), 2, 0, 33),  # longer than what came
        _patched(ipv4(*FROM_A, size=32), 2, 0, 19),  # shorter than its header
        _patched(ipv4(*FROM_A, size=32), 2, 0, 0),
        _patched(ipv4(*FROM_A, size=32), 2, 0xFF, 0xFF),
        _patched(ipv6("fd00::1", "fd00::9", size=48), 4, 0, 9),
        _patched(ipv6("fd00::1", "fd00::9", size=48), 4, 0xFF, 0xFF),
        ipv6("fd00::1", "fd00::9", size=48)[:32],
    ],
)
def test_dishonest_inner_packets_are_dropped(lab: Lab, inner: bytes) -> None:
    far = lab.established()
    lab.inbound(far.seal(inner))
    assert lab.delivered() == []
    lab.inbound(far.seal(ipv4(*FROM_A)))
    assert len(lab.delivered()) == 1


@pytest.mark.parametrize(
    ("inner", "arrives"),
    [
        (ipv4(*FROM_A, size=20), True),
        (ipv4(*FROM_A, size=20)[:19], False),
        (ipv6("fd00::1", "fd00::9", size=40), True),
        (ipv6("fd00::1", "fd00::9", size=40)[:39], False),
    ],
)
def test_unpadded_packets_at_the_length_of_a_header(lab: Lab, inner: bytes, arrives: bool) -> None:
    far = lab.established()
    lab.inbound(far.seal(inner, pad=False))
    assert lab.delivered() == ([inner] if arrives else [])
    assert lab.engine.drops.malformed_inner_packet == (0 if arrives else 1)


# -- the TUN fails ---------------------------------------------------------------------------------


def test_a_tun_whose_link_is_down_only_drops(lab: Lab) -> None:
    far = lab.established()
    lab.tun.is_up = False
    lab.inbound(far.seal(ipv4(*FROM_A)))
    lab.tun.is_up = True
    lab.inbound(far.seal(ipv4(*FROM_A)))
    assert len(lab.delivered()) == 1
    assert not any(isinstance(event, TunClosed) for event in lab.engine.drain_events())


def test_a_tun_that_is_gone_is_reported_once(lab: Lab) -> None:
    far = lab.established()
    lab.tun.close()
    lab.inbound(far.seal(ipv4(*FROM_A)))
    lab.inbound(far.seal(ipv4(*FROM_A)))
    lab.engine.receive_from_tun()
    closed = [event for event in lab.engine.drain_events() if isinstance(event, TunClosed)]
    assert len(closed) == 1
    assert closed[0].reason


def test_a_tun_that_is_gone_is_noticed_by_reading(lab: Lab) -> None:
    lab.tun.close()
    lab.engine.receive_from_tun()
    lab.engine.receive_from_tun()
    assert [type(event) for event in lab.engine.drain_events()] == [TunClosed]


# -- the socket fails ------------------------------------------------------------------------------


def test_receive_errors_never_stop_the_receiver(lab: Lab) -> None:
    far = lab.established()
    lab.socket.receive_errors.extend([errno.ECONNREFUSED, errno.ENETDOWN, errno.EIO] * 50)
    lab.at_a.send(far.seal(ipv4(*FROM_A)), Endpoint(OUR_ADDRESS, PORT))
    for _ in range(151):
        lab.engine.receive_from_socket(lab.socket)
    assert len(lab.delivered()) == 1


def test_one_wakeup_is_bounded(lab: Lab) -> None:
    far = lab.established()
    for _ in range(200):
        lab.at_a.send(far.seal(ipv4(*FROM_A)), Endpoint(OUR_ADDRESS, PORT))
    lab.engine.receive_from_socket(lab.socket)
    first = len(lab.delivered())
    assert 0 < first < 200
    for _ in range(200):
        lab.engine.receive_from_socket(lab.socket)
    assert first + len(lab.delivered()) == 200


# -- garbage ---------------------------------------------------------------------------------------

FUZZ = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda kind, rest: bytes([kind, 0, 0, 0]) + rest,
            st.integers(0, 5),
            st.binary(max_size=200),
        ),
        st.builds(
            lambda kind, size: bytes([kind, 0, 0, 0]) + bytes(size - 4),
            st.integers(1, 4),
            st.sampled_from([16, 31, 32, 63, 64, 65, 91, 92, 93, 147, 148, 149, 65_507]),
        ),
    )
)
@FUZZ
def test_random_datagrams_never_raise(lab: Lab, datagram: bytes) -> None:
    lab.established()
    lab.engine.set_handshake_keys(HandshakeKeys(bytes(32), bytes(32)))
    before = untouched(lab)
    lab.inbound(datagram)
    assert untouched(lab) == before


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
@FUZZ
def test_random_bodies_for_a_known_index_never_raise(lab: Lab, body: bytes, counter: int) -> None:
    far = lab.established()
    before = untouched(lab)
    lab.inbound(struct.pack("<IIQ", 4, far.our_index, counter) + body)
    assert untouched(lab) == before


@given(st.binary(max_size=200), st.sampled_from([None, 4, 6]))
@FUZZ
def test_random_inner_packets_never_raise(lab: Lab, inner: bytes, version: int | None) -> None:
    far: FarEnd = lab.established()
    if version and inner:
        inner = bytes([version << 4 | (inner[0] & 15)]) + inner[1:]
    lab.inbound(far.seal(inner))
    for packet in lab.delivered():
        assert (inner + bytes(16)).startswith(packet)


@given(st.binary(max_size=200))
@FUZZ
def test_random_packets_from_the_tun_never_raise(lab: Lab, packet: bytes) -> None:
    lab.established()
    lab.outbound(packet)
