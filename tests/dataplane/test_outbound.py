"""From the TUN to UDP: routing, wire format, padding, staging, and what is dropped on the way."""

import errno
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.dataplane.lab import A_ADDRESS, PORT, A, B, Lab, ipv4, ipv6, prefix
from wgd.addresses import Endpoint, Prefix
from wgd.dataplane.interface import NeedsHandshake

TO_A = ("10.9.9.9", "10.2.0.1")
TO_B = ("10.9.9.9", "10.1.0.1")


def test_wire_format_and_counters_count_up(lab: Lab) -> None:
    far = lab.established()
    packets = [ipv4(*TO_A, size=100), ipv4(*TO_A, size=64)]
    lab.outbound(*packets)
    first, second = lab.sent()
    assert len(first) == 16 + 112 + 16
    assert len(second) == 16 + 64 + 16
    assert far.open(first) == (0, packets[0] + bytes(12))
    assert far.open(second) == (1, packets[1])
    assert lab.engine.counters(A) == (len(first) + len(second), 0, 2, 0)


def test_longest_prefix_chooses_the_peer(lab: Lab) -> None:
    far_a, far_b = lab.established(A), lab.established(B)
    lab.outbound(ipv4(*TO_A), ipv4(*TO_B), ipv6("fd00::9", "fd00::1"))
    to_a = lab.sent(A)
    assert len(to_a) == 2
    assert far_a.open(to_a[0])[1][0] >> 4 == 4
    assert far_a.open(to_a[1])[1][0] >> 4 == 6
    (to_b,) = lab.sent(B)
    far_b.open(to_b)


def test_routes_follow_every_change_at_once(lab: Lab) -> None:
    lab.established(A)
    lab.established(B)
    lab.outbound(ipv4(*TO_B))
    assert (len(lab.sent(A)), len(lab.sent(B))) == (0, 1)
    lab.engine.remove_allowed_ip(A, prefix("10.1.0.0/16"))  # not A's: nothing happens
    lab.outbound(ipv4(*TO_B))
    assert (len(lab.sent(A)), len(lab.sent(B))) == (0, 1)
    lab.engine.remove_allowed_ip(B, prefix("10.1.0.0/16"))
    lab.outbound(ipv4(*TO_B))
    assert (len(lab.sent(A)), len(lab.sent(B))) == (1, 0)
    lab.engine.add_allowed_ip(B, prefix("10.0.0.0/8"))  # taken from A
    lab.outbound(ipv4(*TO_B))
    assert (len(lab.sent(A)), len(lab.sent(B))) == (0, 1)
    lab.engine.remove_peer(B)
    lab.outbound(ipv4(*TO_B))
    assert (lab.sent(A), lab.sent(B)) == ([], [])


def test_a_removed_peers_prefixes_fall_back_to_shorter_ones(lab: Lab) -> None:
    lab.established(A)
    lab.engine.remove_peer(B)
    lab.outbound(ipv4(*TO_B))
    assert len(lab.sent(A)) == 1


def test_what_is_no_packet_or_has_no_peer_is_dropped(lab: Lab) -> None:
    lab.established()
    bad = [
        b"",
        b"\x45",
        ipv4(*TO_A)[:19],
        ipv6("fd00::9", "fd00::1")[:39],
        b"\x55" + ipv4(*TO_A)[1:],
        bytes(100),
        ipv4("10.9.9.9", "11.0.0.1"),
        ipv6("fd00::9", "2001:db8::7"),
    ]
    lab.outbound(*bad)
    assert lab.sent() == []
    assert lab.engine.drain_events() == []
    lab.outbound(ipv4(*TO_A))
    assert len(lab.sent()) == 1


def test_ipv4_destination_at_the_shortest_length(lab: Lab) -> None:
    far = lab.established()
    packet = ipv4(*TO_A, size=20)
    lab.outbound(packet)
    assert far.open(lab.sent()[0]) == (0, packet + bytes(12))


# -- padding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mtu", "size", "padded"),
    [
        (1420, 20, 32),
        (1420, 32, 32),
        (1420, 33, 48),
        (1420, 1408, 1408),
        (1420, 1409, 1420),  # 1424 would be more than the MTU
        (1420, 1419, 1420),
        (1420, 1420, 1420),
        (1420, 1421, 1436),  # beyond: the last unit is 1 byte long
        (1420, 1425, 1436),  # 5 -> 16
        (1420, 2840, 2840),  # two whole units
        (1420, 2839, 2840),  # last unit 1419 -> 1420
        (576, 575, 576),
        (576, 577, 592),
        (1423, 1417, 1423),
        (65535, 65000, 65008),
        (1280, 1279, 1280),
    ],
)
def test_padding_at_the_edges_of_the_mtu(lab: Lab, mtu: int, size: int, padded: int) -> None:
    far = lab.established()
    lab.engine.set_mtu(mtu)
    # What was in the buffer before must not come out as padding.
    lab.outbound(b"\x45" + b"\xff" * 15 + b"\x0a\x02\x00\x01" * 700)
    lab.sent()
    packet = ipv4(*TO_A, size=size)
    lab.outbound(packet)
    _, plaintext = far.open(lab.sent()[-1])
    assert len(plaintext) == padded
    assert plaintext == packet + bytes(padded - size)


def test_a_packet_is_padded_to_sixteen_by_default(lab: Lab) -> None:
    far = lab.established()
    lab.outbound(ipv4(*TO_A, size=1417))
    assert len(far.open(lab.sent()[0])[1]) == 1420  # the default MTU


@given(mtu=st.integers(576, 65_535), size=st.integers(20, 65_460))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_padding_never_exceeds_the_mtu(lab: Lab, mtu: int, size: int) -> None:
    far = lab.install()
    lab.engine.set_mtu(mtu)
    packet = ipv4(*TO_A, size=size)
    lab.outbound(packet)
    (datagram,) = lab.sent()
    plaintext = far.open(datagram)[1]
    assert plaintext[:size] == packet
    assert not any(plaintext[size:])
    assert len(plaintext) - size < 16
    if size <= mtu:
        assert len(plaintext) <= mtu
        assert len(plaintext) in (-(-size // 16) * 16, mtu)


def test_a_packet_too_large_for_udp_is_dropped_and_counted(lab: Lab) -> None:
    lab.established()
    lab.engine.set_mtu(65_535)
    lab.outbound(ipv4(*TO_A, size=65_535))
    assert lab.sent() == []
    assert lab.engine.counters(A).sent_bytes == 0
    assert lab.engine.drops.send_failed == 1
    lab.outbound(ipv4(*TO_A, size=65_472))  # 65,472 + 32 is the most that UDP over IPv4 takes
    (datagram,) = lab.sent()
    assert len(datagram) == 65_504


# -- staging ---------------------------------------------------------------------------------------


def test_packets_wait_for_a_keypair_in_order(lab: Lab) -> None:
    packets = [ipv4(*TO_A, size=64) for _ in range(5)]
    lab.outbound(*packets)
    assert lab.sent() == []
    assert lab.engine.drain_events() == [NeedsHandshake(A)]
    far = lab.complete()
    assert [far.open(datagram) for datagram in lab.sent()] == list(enumerate(packets))


def test_at_most_128_packets_wait_and_the_oldest_go(lab: Lab) -> None:
    packets = [ipv4(*TO_A, size=64) for _ in range(130)]
    lab.outbound(*packets)
    far = lab.complete()
    assert [far.open(datagram)[1] for datagram in lab.sent()] == packets[2:]
    assert lab.engine.drops.staged_full == 2


def test_needs_handshake_is_reported_once_until_something_happens(lab: Lab) -> None:
    packet = ipv4(*TO_A)
    lab.outbound(packet, packet)
    assert lab.engine.drain_events() == [NeedsHandshake(A)]
    lab.outbound(packet)
    lab.engine.send_keepalive(A)
    assert lab.engine.drain_events() == []
    lab.engine.send_staged(A)
    assert lab.engine.drain_events() == [NeedsHandshake(A)]
    lab.outbound(packet)
    assert lab.engine.drain_events() == []
    lab.engine.drop_staged(A)
    assert lab.engine.drain_events() == []
    lab.outbound(packet)
    assert lab.engine.drain_events() == [NeedsHandshake(A)]
    lab.install(initiator=False)  # not confirmed yet: nothing to send with
    lab.outbound(packet)
    assert lab.engine.drain_events() == [NeedsHandshake(A)]
    assert lab.sent() == []


def test_peers_are_reported_apart(lab: Lab) -> None:
    lab.outbound(ipv4(*TO_A), ipv4(*TO_B), ipv4(*TO_A))
    assert lab.engine.drain_events() == [NeedsHandshake(A), NeedsHandshake(B)]


def test_dropped_staged_packets_never_leave(lab: Lab) -> None:
    lab.outbound(ipv4(*TO_A))
    lab.engine.drop_staged(A)
    lab.complete()
    assert lab.sent() == []


def test_send_staged_without_anything_staged_asks_for_nothing(lab: Lab) -> None:
    lab.engine.send_staged(A)
    assert lab.engine.drain_events() == []


def test_no_staged_packet_survives_its_peer(lab: Lab) -> None:
    lab.outbound(ipv4(*TO_A))
    lab.engine.remove_peer(A)
    lab.engine.add_peer(A)
    lab.engine.set_endpoint(A, Endpoint(A_ADDRESS, PORT))
    lab.complete()
    assert lab.sent() == []


# -- keepalives ------------------------------------------------------------------------------------


def test_a_keepalive_is_an_empty_packet(lab: Lab) -> None:
    far = lab.established()
    lab.engine.send_keepalive(A)
    (datagram,) = lab.sent()
    assert len(datagram) == 32
    assert far.open(datagram) == (0, b"")
    assert lab.engine.counters(A).sent_bytes == 32


def test_a_keepalive_without_a_keypair_waits_and_asks_for_one(lab: Lab) -> None:
    lab.engine.send_keepalive(A)
    lab.engine.send_keepalive(A)  # what is staged already is the keepalive
    assert lab.sent() == []
    assert lab.engine.drain_events() == [NeedsHandshake(A)]
    far = lab.complete()
    assert [far.open(datagram) for datagram in lab.sent()] == [(0, b"")]


def test_staged_packets_stand_in_for_a_keepalive(lab: Lab) -> None:
    packet = ipv4(*TO_A, size=32)
    lab.outbound(packet)
    lab.engine.send_keepalive(A)
    far = lab.install()
    assert lab.sent() == []  # installing sends nothing
    lab.engine.send_keepalive(A)
    assert [far.open(datagram) for datagram in lab.sent()] == [(0, packet)]


# -- sockets and endpoints -------------------------------------------------------------------------


def test_no_endpoint_drops(lab: Lab) -> None:
    lab.engine.remove_peer(A)
    lab.engine.add_peer(A)
    lab.engine.add_allowed_ip(A, prefix("10.0.0.0/8"))
    assert lab.engine.endpoint(A) is None
    lab.install()
    lab.outbound(ipv4(*TO_A))
    assert lab.engine.send_to_peer(A, b"handshake") is False
    assert lab.engine.drops.no_endpoint == 2
    assert lab.engine.counters(A).sent_bytes == len(b"handshake")


def test_the_endpoint_chooses_the_family(lab: Lab) -> None:
    far = lab.established()
    lab.engine.set_endpoint(A, Endpoint("2001:db8::1", PORT))
    lab.outbound(ipv4(*TO_A))
    assert lab.sent(A) == []
    (datagram,) = lab.sent(lab.at_a6)
    far.open(datagram)


def test_without_sockets_nothing_is_sent_and_nothing_fails(lab: Lab) -> None:
    lab.established()
    lab.engine.attach_sockets([])
    lab.outbound(ipv4(*TO_A))
    assert lab.engine.send_to_peer(A, b"x") is False
    assert lab.sent() == []
    lab.engine.attach_sockets([lab.socket6])  # the other family does not help
    lab.outbound(ipv4(*TO_A))
    lab.engine.attach_sockets([lab.socket])
    lab.outbound(ipv4(*TO_A))
    assert len(lab.sent()) == 1


@pytest.mark.parametrize(
    "number",
    [
        errno.EMSGSIZE,
        errno.ENOBUFS,
        errno.EAGAIN,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.EADDRNOTAVAIL,
        errno.EINVAL,
        errno.EPERM,
        errno.ECONNREFUSED,
        errno.EBADF,
    ],
)
def test_send_errors_are_counted_never_raised(lab: Lab, number: int) -> None:
    lab.established()
    lab.socket.send_errors.extend([number] * 2)
    lab.outbound(ipv4(*TO_A))
    assert lab.engine.send_to_peer(A, b"x") is False
    assert lab.engine.drops.send_failed == 2
    lab.outbound(ipv4(*TO_A))
    assert len(lab.sent()) == 1


def test_handshake_messages_are_sent_as_they_are(lab: Lab) -> None:
    assert lab.engine.send_to_peer(A, b"initiation") is True
    assert lab.sent(A) == [b"initiation"]
    assert lab.engine.counters(A).sent_bytes == len(b"initiation")
    assert lab.engine.counters(B).sent_bytes == 0


def test_one_wakeup_is_bounded(lab: Lab) -> None:
    lab.established()
    for _ in range(200):
        lab.tun.inject(ipv4(*TO_A))
    lab.engine.receive_from_tun()
    first = len(lab.sent())
    assert 0 < first < 200
    for _ in range(20):
        lab.engine.receive_from_tun()
    assert first + len(lab.sent()) == 200


def test_a_default_route_and_a_zero_length_prefix(lab: Lab) -> None:
    lab.established(B)
    lab.engine.add_allowed_ip(B, Prefix(bytes(4), 0))
    lab.outbound(ipv4("10.9.9.9", "203.0.113.7"))
    assert len(lab.sent(B)) == 1


def test_header_fields_are_little_endian(lab: Lab) -> None:
    lab.established()
    lab.set_send_counter(A, 0x0102030405060708)
    lab.outbound(ipv4(*TO_A))
    (datagram,) = lab.sent()
    assert datagram[8:16] == bytes([8, 7, 6, 5, 4, 3, 2, 1])
    assert struct.unpack("<I", datagram[4:8])[0] > 5000
