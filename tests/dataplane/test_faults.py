"""What goes wrong with packets is told of the right peer, with a count, a time and an errno."""

import errno
from collections.abc import Callable

import pytest

from tests.dataplane.lab import (
    A_ADDRESS,
    B_ADDRESS,
    OUR_ADDRESS,
    PORT,
    A,
    B,
    FarEnd,
    Lab,
    ipv4,
)
from wgd.addresses import Endpoint, Source
from wgd.dataplane.interface import Fault, PeerId
from wgd.diagnosis import FailureReason

TO_A = ("10.9.9.9", "10.2.0.1")
FROM_A = ("10.2.0.1", "10.9.9.9")
FROM_B = ("10.1.0.1", "10.9.9.9")


def assert_only_fault(
    lab: Lab, reason: FailureReason, count: int, *, errno: int = 0, peer: PeerId = A
) -> None:
    """This is all that has gone wrong, and now is when it happened last."""
    assert lab.engine.faults(peer) == (Fault(reason, count, lab.clock.boot_ns(), errno),)
    assert lab.engine.faults(B if peer == A else A) == ()


def test_what_goes_well_is_no_fault(lab: Lab) -> None:
    lab.outbound(ipv4(*TO_A))
    far = lab.complete()
    lab.inbound(far.seal(ipv4(*FROM_A)))
    lab.inbound(far.seal(b""))
    assert lab.engine.send_to_peer(A, b"handshake")
    assert lab.engine.faults(A) == lab.engine.faults(B) == ()


# -- what comes in ---------------------------------------------------------------------------------


def replay(lab: Lab, far: FarEnd) -> None:
    lab.inbound(far.seal(b"", counter=0))


def damage(lab: Lab, far: FarEnd) -> None:
    datagram = bytearray(far.seal(ipv4(*FROM_A)))
    datagram[-1] ^= 1
    lab.inbound(bytes(datagram))


def send_from_elsewhere(lab: Lab, far: FarEnd) -> None:
    lab.inbound(far.seal(ipv4("203.0.113.1", "10.9.9.9")))


def send_from_the_other_peer(lab: Lab, far: FarEnd) -> None:
    lab.inbound(far.seal(ipv4(*FROM_B)))


def send_no_packet(lab: Lab, far: FarEnd) -> None:
    lab.inbound(far.seal(b"\x01" * 32))


def send_beyond_the_last_counter(lab: Lab, far: FarEnd) -> None:
    lab.inbound(far.seal(b"", counter=2**64 - 1))


@pytest.mark.parametrize(
    ("provoke", "reason"),
    [
        (replay, FailureReason.PACKET_REPLAYED),
        (damage, FailureReason.PACKET_NOT_AUTHENTIC),
        (send_from_elsewhere, FailureReason.NOT_AN_ALLOWED_IP),
        (send_from_the_other_peer, FailureReason.NOT_AN_ALLOWED_IP),
        (send_no_packet, FailureReason.MALFORMED_PACKET),
        (send_beyond_the_last_counter, FailureReason.SESSION_EXPIRED),
    ],
)
def test_a_packet_that_is_refused_is_a_fault_of_its_sender(
    lab: Lab, provoke: Callable[[Lab, FarEnd], None], reason: FailureReason
) -> None:
    far = lab.established(A)
    lab.established(B)
    lab.inbound(far.seal(b"", counter=0))
    far.counter = 1
    for count in (1, 2, 3):
        lab.advance(5)
        provoke(lab, far)
        assert_only_fault(lab, reason, count)
    lab.advance(5)
    lab.inbound(far.seal(ipv4(*FROM_A)))  # what goes well leaves the time alone
    (fault,) = lab.engine.faults(A)
    assert fault.last_ns < lab.clock.boot_ns()


def test_a_session_that_is_over_is_a_fault_and_not_a_forgery(lab: Lab) -> None:
    far = lab.established(B)
    lab.advance(180)
    lab.inbound(far.seal(ipv4(*FROM_B)), B)
    assert_only_fault(lab, FailureReason.SESSION_EXPIRED, 1, peer=B)


def test_datagrams_received_together_are_counted_one_by_one(lab: Lab) -> None:
    far = lab.established()
    lab.socket.coalesces = True
    for _ in range(5):
        lab.at_a.send(far.seal(ipv4("203.0.113.1", "10.9.9.9")), Endpoint(OUR_ADDRESS, PORT))
    lab.engine.receive_from_socket(lab.socket)
    assert_only_fault(lab, FailureReason.NOT_AN_ALLOWED_IP, 5)


def test_what_belongs_to_no_session_is_nobodys_fault(lab: Lab) -> None:
    far = lab.established()
    lab.engine.drop_keypairs(A)
    lab.inbound(far.seal(b""))
    lab.inbound(b"\x01" * 148)
    lab.socket.receive_errors.append(errno.ECONNREFUSED)
    lab.engine.receive_from_socket(lab.socket)
    assert lab.engine.faults(A) == lab.engine.faults(B) == ()
    drops = lab.engine.drop_counts()
    assert drops["unknown_index"] == drops["malformed_datagram"] == drops["receive_failed"] == 1


# -- what goes out ---------------------------------------------------------------------------------

SEND_ERRNOS = (
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.EPERM,
    errno.EMSGSIZE,
    errno.ECONNREFUSED,
    errno.ENOBUFS,
    errno.EAGAIN,
)


@pytest.mark.parametrize("number", SEND_ERRNOS)
def test_a_send_error_is_a_fault_of_the_receiver(lab: Lab, number: int) -> None:
    lab.established(A)
    lab.established(B)
    lab.socket.send_errors.append(number)
    lab.outbound(ipv4(*TO_A))
    assert_only_fault(lab, FailureReason.SEND_FAILED, 1, errno=number)
    lab.advance(1)
    lab.socket.send_errors.append(number)
    lab.engine.send_keepalive(A)
    assert_only_fault(lab, FailureReason.SEND_FAILED, 2, errno=number)


@pytest.mark.parametrize("number", SEND_ERRNOS)
def test_a_handshake_message_that_was_not_sent_is_a_fault_too(lab: Lab, number: int) -> None:
    lab.socket.send_errors.extend([errno.ENETUNREACH, number])
    assert not lab.engine.send_to_peer(B, b"initiation")
    lab.advance(5)
    assert not lab.engine.send_to_peer(B, b"initiation")
    assert_only_fault(lab, FailureReason.SEND_FAILED, 2, errno=number, peer=B)


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EPERM])
def test_a_batch_that_fails_counts_each_datagram_that_was_lost(lab: Lab, number: int) -> None:
    lab.established()
    lab.socket.segment_errors.append(number)
    lab.socket.send_errors.extend([number] * 3)
    lab.outbound(*[ipv4(*TO_A) for _ in range(3)])
    assert_only_fault(lab, FailureReason.SEND_FAILED, 3, errno=number)
    assert lab.engine.counters(A).sent_packets == 0


def test_a_batch_that_goes_one_by_one_is_no_fault(lab: Lab) -> None:
    lab.established()
    lab.socket.segment_errors.append(errno.EIO)
    lab.outbound(*[ipv4(*TO_A) for _ in range(3)])
    assert lab.engine.faults(A) == ()
    assert lab.engine.counters(A).sent_packets == 3


def test_an_endpoint_of_a_family_without_a_socket_is_a_fault(lab: Lab) -> None:
    lab.established()
    lab.engine.attach_sockets([lab.socket6])
    lab.outbound(ipv4(*TO_A), ipv4(*TO_A))
    assert not lab.engine.send_to_peer(A, b"initiation")
    assert_only_fault(lab, FailureReason.SEND_FAILED, 3, errno=errno.EAFNOSUPPORT)


def test_a_source_that_is_gone_is_no_fault_unless_it_fails_without_it_too(lab: Lab) -> None:
    lab.established()
    pinned = Endpoint(A_ADDRESS, PORT, 0, Source(OUR_ADDRESS, 1))
    lab.engine.set_endpoint(A, pinned)
    lab.socket.send_errors.extend([errno.EINVAL])
    lab.outbound(ipv4(*TO_A))
    assert lab.engine.faults(A) == ()
    lab.engine.set_endpoint(A, pinned)
    lab.socket.send_errors.extend([errno.EINVAL, errno.EHOSTUNREACH])
    lab.outbound(ipv4(*TO_A))
    assert_only_fault(lab, FailureReason.SEND_FAILED, 1, errno=errno.EHOSTUNREACH)


def test_no_endpoint_is_for_the_control_plane_to_tell(lab: Lab) -> None:
    stranger = PeerId(3)
    lab.engine.add_peer(stranger)
    assert not lab.engine.send_to_peer(stranger, b"initiation")
    assert lab.engine.faults(stranger) == ()
    assert lab.engine.drop_counts()["no_endpoint"] == 1


# -- what becomes of them --------------------------------------------------------------------------


def test_reasons_are_kept_apart_and_outlive_sessions(lab: Lab) -> None:
    far = lab.established()
    damage(lab, far)
    send_from_elsewhere(lab, far)
    lab.advance(1)
    damage(lab, far)
    lab.socket.send_errors.extend([errno.EPERM] * 2)  # from the pinned source, and without
    lab.outbound(ipv4(*TO_A))
    lab.engine.drop_keypairs(A)
    lab.engine.set_endpoint(A, Endpoint(B_ADDRESS, PORT))
    lab.established()
    counts = {fault.reason: (fault.count, fault.errno) for fault in lab.engine.faults(A)}
    assert len(lab.engine.faults(A)) == len(counts)
    assert counts == {
        FailureReason.PACKET_NOT_AUTHENTIC: (2, 0),
        FailureReason.NOT_AN_ALLOWED_IP: (1, 0),
        FailureReason.SEND_FAILED: (1, errno.EPERM),
    }


def test_they_go_with_the_peer(lab: Lab) -> None:
    far = lab.established()
    damage(lab, far)
    lab.engine.remove_peer(A)
    with pytest.raises(KeyError):
        lab.engine.faults(A)
    lab.engine.add_peer(A)
    assert lab.engine.faults(A) == ()
