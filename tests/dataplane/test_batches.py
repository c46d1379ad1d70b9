"""Neighbours leave in one system call and arrive as themselves; a path that cannot is healed."""

import errno

import pytest

from tests.dataplane.lab import A, B, Lab, ipv4
from wgd.addresses import Endpoint, Source


def to_a(size: int) -> bytes:
    return ipv4("10.9.9.9", "10.0.0.1", size)


def to_b(size: int) -> bytes:
    return ipv4("10.9.9.9", "10.1.0.1", size)


def test_neighbours_of_one_size_leave_together_and_a_shorter_one_is_the_last(lab: Lab) -> None:
    far = lab.established()
    packets = [to_a(size) for size in (1200, 1200, 1200, 400, 1200, 1200)]
    lab.outbound(*packets)
    assert [far.open(datagram) for datagram in lab.sent()] == list(enumerate(packets))
    assert lab.socket.segment_sends == 2  # three and the short one; the other two


def test_a_single_packet_needs_no_batch(lab: Lab) -> None:
    lab.established()
    lab.outbound(to_a(1200))
    assert len(lab.sent()) == 1
    assert lab.socket.segment_sends == 0


def test_a_longer_packet_and_another_peer_begin_a_new_batch(lab: Lab) -> None:
    far_a, far_b = lab.established(A), lab.established(B)
    packets = [to_a(96), to_a(96), to_a(992), to_b(992), to_b(992), to_a(96)]
    lab.outbound(*packets)
    assert [far_a.open(d)[1] for d in lab.sent(A)] == [packets[n] for n in (0, 1, 2, 5)]
    assert [far_b.open(d)[1] for d in lab.sent(B)] == [packets[n] for n in (3, 4)]
    assert lab.socket.segment_sends == 2


@pytest.mark.parametrize("size", [1408, 9008])
def test_a_batch_is_at_most_64_datagrams_and_65507_bytes(lab: Lab, size: int) -> None:
    lab.engine.set_mtu(size)
    far = lab.established()
    packets = [to_a(size) for _ in range(64)]
    lab.outbound(*packets)
    assert [far.open(datagram)[1] for datagram in lab.sent()] == packets
    per_batch = 65_507 // (size + 32)
    assert lab.socket.segment_sends == 64 // per_batch + (64 % per_batch > 1)


def test_small_packets_fill_a_batch_of_64(lab: Lab) -> None:
    far = lab.established()
    packets = [to_a(32) for _ in range(64)]
    lab.outbound(*packets)
    assert [far.open(datagram)[1] for datagram in lab.sent()] == packets
    assert lab.socket.segment_sends == 1


def test_staged_packets_leave_together(lab: Lab) -> None:
    packets = [to_a(1200) for _ in range(10)]
    lab.outbound(*packets)
    far = lab.complete()
    assert [far.open(datagram)[1] for datagram in lab.sent()] == packets
    assert lab.socket.segment_sends == 1


def test_bytes_are_counted_once(lab: Lab) -> None:
    lab.established()
    before = lab.engine.counters(A).sent_bytes
    lab.outbound(*[to_a(1200) for _ in range(5)])
    assert lab.engine.counters(A).sent_bytes - before == 5 * 1232


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.EMSGSIZE])
def test_a_path_without_batches_gets_datagrams_one_by_one_from_then_on(
    lab: Lab, number: int
) -> None:
    far = lab.established()
    lab.socket.segment_errors.append(number)
    packets = [to_a(1200) for _ in range(3)]
    lab.outbound(*packets)
    lab.outbound(*packets)
    assert [far.open(datagram)[1] for datagram in lab.sent()] == packets * 2
    assert lab.socket.segment_sends == 1
    assert lab.engine.drops.send_failed == 0


@pytest.mark.parametrize("change", ["endpoint", "sockets"])
def test_another_endpoint_or_socket_is_tried_with_batches_again(lab: Lab, change: str) -> None:
    lab.established()
    lab.socket.segment_errors.append(errno.EINVAL)
    lab.outbound(to_a(1200), to_a(1200))
    if change == "endpoint":
        lab.engine.set_endpoint(A, Endpoint("192.0.2.1", 51820))
    else:
        lab.engine.attach_sockets([lab.socket, lab.socket6])
    lab.outbound(to_a(1200), to_a(1200))
    assert lab.socket.segment_sends == 2


def test_one_peers_path_says_nothing_about_anothers(lab: Lab) -> None:
    lab.established(A)
    lab.established(B)
    lab.socket.segment_errors.append(errno.EINVAL)
    lab.outbound(to_a(1200), to_a(1200))
    lab.outbound(to_b(1200), to_b(1200))
    assert lab.socket.segment_sends == 2


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EAGAIN])
def test_a_full_queue_drops_the_batch_and_keeps_batching(lab: Lab, number: int) -> None:
    lab.established()
    lab.socket.segment_errors.append(number)
    lab.outbound(to_a(1200), to_a(1200), to_a(1200))
    assert lab.sent() == []
    assert lab.engine.drops.send_failed == 3
    lab.outbound(to_a(1200), to_a(1200))
    assert len(lab.sent()) == 2
    assert lab.socket.segment_sends == 2


def test_a_source_that_is_gone_is_not_held_against_batches(lab: Lab) -> None:
    far = lab.established()
    lab.engine.set_endpoint(A, Endpoint("192.0.2.1", 51820, source=Source("192.0.2.250", 1)))
    packets = [to_a(1200) for _ in range(3)]
    lab.outbound(*packets)
    assert [far.open(datagram)[1] for datagram in lab.sent()] == packets
    before = lab.socket.segment_sends
    lab.outbound(*packets)
    assert lab.socket.segment_sends == before + 1


def test_a_network_that_is_down_is_not_held_against_batches(lab: Lab) -> None:
    lab.established()
    lab.socket.segment_errors.append(errno.ENETUNREACH)
    lab.socket.send_errors.extend([errno.ENETUNREACH] * 2)
    lab.outbound(to_a(1200), to_a(1200))
    assert lab.engine.drops.send_failed == 2
    lab.outbound(to_a(1200), to_a(1200))
    assert lab.socket.segment_sends == 2


def test_a_socket_that_cannot_batch_is_not_asked_to(lab: Lab) -> None:
    lab.established()
    lab.socket.max_segments = 1
    lab.outbound(to_a(1200), to_a(1200))
    assert len(lab.sent()) == 2
    assert lab.socket.segment_sends == 0


def test_what_the_kernel_put_together_is_cut_apart(lab: Lab) -> None:
    far = lab.established()
    lab.socket.coalesces = True
    packets = [ipv4("10.0.0.1", "10.9.9.9", size) for size in (1200, 1200, 1200, 404)]
    for packet in packets[:-1]:
        lab.at_a.send(far.seal(packet), Endpoint("192.0.2.100", 51820))
    lab.inbound(far.seal(packets[-1]))
    assert lab.delivered() == packets


def test_one_bad_datagram_among_many_is_dropped_alone(lab: Lab) -> None:
    far = lab.established()
    lab.socket.coalesces = True
    packets = [ipv4("10.0.0.1", "10.9.9.9", 1200) for _ in range(3)]
    datagrams = [far.seal(packet) for packet in packets]
    datagrams[1] = datagrams[1][:-1] + bytes([datagrams[1][-1] ^ 1])
    for datagram in datagrams[:-1]:
        lab.at_a.send(datagram, Endpoint("192.0.2.100", 51820))
    lab.inbound(datagrams[-1])
    assert lab.delivered() == [packets[0], packets[2]]
    assert lab.engine.drops.not_authentic == 1
