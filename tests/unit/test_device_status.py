"""What a device says of itself: why it does not work, its handshakes and all else."""

import base64
import errno
import json
import logging
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.unit.simulation import (
    COOKIE_REPLY,
    INITIATION,
    MILLISECOND,
    PORT,
    RESPONSE,
    SECOND,
    TRANSPORT,
    Host,
    Sent,
    Simulation,
    acquaintances,
    pair,
)
from wgd.addresses import Endpoint
from wgd.core.device import Device
from wgd.dataplane.interface import HandshakeMessage
from wgd.diagnosis import Failure, FailureReason
from wgd.noise.messages import CookieReply
from wgd.status import LATENCY_BOUNDS_SECONDS, Handshakes, PeerStatus, as_json, from_json

JITTER = 333 * MILLISECOND
STRANGER = Endpoint("203.0.113.9", 7)


def nothing_gets_through(_sent: Sent) -> tuple[int, ...]:
    return ()


def handshakes(host: Host) -> Handshakes:
    return host.device.status(host.simulation.clock.now()).handshakes


def tell(host: Host, datagram: bytes, source: Endpoint = STRANGER) -> None:
    """Hand a handshake message to the device, as if the data plane had let it through."""
    message = HandshakeMessage(datagram, source)
    host.device.receive_handshake(message, host.simulation.clock.now())
    host.simulation.settle()


def changed(datagram: bytes, offset: int) -> bytes:
    """Return the datagram with one bit of the byte at `offset` changed."""
    data = bytearray(datagram)
    data[offset] ^= 1
    return bytes(data)


# -- what goes wrong with one peer -----------------------------------------------------------------


def test_every_initiation_that_is_not_answered_counts() -> None:
    simulation, alice, bob = pair()
    simulation.fate = nothing_gets_through
    alice.send(bob)
    assert alice.status(bob).failures == ()
    simulation.run(2 * (5 * SECOND + JITTER))
    failure = alice.failure(FailureReason.NOT_ANSWERED, bob)
    assert failure is not None
    assert failure.count == 2
    assert failure.detail == str(bob.endpoint)
    third = simulation.sent(INITIATION)[2]
    began_wall_ns = simulation.clock.now().wall_ns - simulation.now_ns
    assert failure.last_ns == began_wall_ns + third.at_ns, "noted when the next one went out"
    assert alice.status(bob).unanswered_initiations == 2
    assert handshakes(alice) == Handshakes(initiated=3, unanswered=2)


def test_an_initiation_that_never_left_counts_for_nothing() -> None:
    simulation, alice, bob = pair()
    home, alice.host.addresses = alice.host.addresses, ()
    alice.send(bob)
    simulation.run(12 * SECOND)
    assert handshakes(alice) == Handshakes()
    assert alice.failure(FailureReason.SEND_FAILED, bob) is not None
    alice.host.addresses = home
    simulation.run(6 * SECOND)
    assert handshakes(alice) == Handshakes(initiated=1, answered=1)


def test_an_attempt_that_is_given_up_counts_and_an_answer_ends_the_row() -> None:
    simulation, alice, bob = pair()
    simulation.fate = nothing_gets_through
    alice.send(bob)
    simulation.run(120 * SECOND)
    sent = len(simulation.sent(INITIATION))
    assert handshakes(alice) == Handshakes(initiated=sent, unanswered=sent, given_up=1)
    assert alice.status(bob).unanswered_initiations == sent
    simulation.fate = lambda _sent: (0,)
    alice.send(bob)
    assert alice.status(bob).unanswered_initiations == 0
    assert alice.failure(FailureReason.NOT_ANSWERED, bob) is not None, "it is still to be seen"


def test_something_to_send_and_no_endpoint() -> None:
    simulation = Simulation()
    alice = simulation.host("alice", "192.0.2.1", "10.0.0.1")
    bob = simulation.host("bob", "192.0.2.2", "10.0.0.2")
    alice.add_peer(bob, endpoint=False)
    assert alice.status(bob).failures == ()
    alice.send(bob)
    failure = alice.failure(FailureReason.NO_ENDPOINT, bob)
    assert failure is not None and failure.count == 1
    assert alice.status(bob).endpoint == ""
    assert alice.status(bob).staged_packets == 0  # its sender was told instead
    alice.send(bob)
    failure = alice.failure(FailureReason.NO_ENDPOINT, bob)
    assert failure is not None and failure.count == 2


def test_something_to_send_and_no_private_key() -> None:
    _simulation, alice, bob = pair()
    alice.configure(private_key=bytes(32))
    alice.send(bob)
    assert [failure.reason for failure in alice.status(bob).failures] == [
        FailureReason.NO_PRIVATE_KEY
    ]


def test_a_public_key_of_low_order() -> None:
    _simulation, alice, bob = pair()
    bob.public_key = bytes(32)
    alice.add_peer(bob)
    alice.send(bob)
    failure = alice.failure(FailureReason.WEAK_KEY, bob)
    assert failure is not None and failure.count == 1


def test_a_system_that_cannot_send_says_why() -> None:
    simulation, alice, bob = pair()
    alice.sockets[0].send_errors.append(errno.ENETUNREACH)
    alice.send(bob)
    failure = alice.failure(FailureReason.SEND_FAILED, bob)
    assert failure == Failure(
        FailureReason.SEND_FAILED,
        1,
        simulation.clock.now().wall_ns,
        f"ENETUNREACH to {bob.endpoint}",
    )


def test_a_copy_of_an_initiation_and_one_too_soon() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    first = simulation.sent(INITIATION)[0].transit.datagram
    simulation.run(SECOND)
    tell(bob, first)
    replayed = bob.failure(FailureReason.REPLAYED_TIMESTAMP, alice)
    assert replayed is not None and replayed.count == 1
    assert str(STRANGER) in replayed.detail

    for _ in range(2):
        (peer,) = alice.device._peers.values()
        peer.initiator._last_sent_ns = peer.initiator._initiated_ns = None
        peer.initiator._initiate(simulation.clock.now())
        simulation.clock.step_wall_clock(SECOND)
        simulation.settle()
    flood = bob.failure(FailureReason.INITIATION_FLOOD, alice)
    assert flood is not None and flood.count == 1
    assert handshakes(bob).refused == 2
    assert handshakes(bob).accepted == 2


def test_an_initiation_that_only_claims_to_be_of_a_peer() -> None:
    simulation, alice, bob = pair()
    simulation.fate = nothing_gets_through
    alice.send(bob)
    # The sealed timestamp, bytes 88 to 115, is what proves the key.
    tell(bob, changed(simulation.sent(INITIATION)[0].transit.datagram, 100))
    failure = bob.failure(FailureReason.INITIATION_NOT_AUTHENTIC, alice)
    assert failure is not None and str(STRANGER) in failure.detail
    assert simulation.sent(RESPONSE) == []


def test_preshared_keys_that_differ() -> None:
    simulation, alice, bob = pair()
    alice.change_peer(bob, preshared_key=b"\x05" * 32)
    bob.change_peer(alice, preshared_key=b"\x06" * 32)
    alice.send(bob)
    failure = alice.failure(FailureReason.RESPONSE_NOT_AUTHENTIC, bob)
    assert failure is not None and failure.count == 1
    assert failure.detail == f"from {bob.endpoint}"
    assert not alice.status(bob).has_session
    assert alice.status(bob).has_preshared_key
    assert handshakes(alice).refused == 1 and handshakes(alice).answered == 0
    assert simulation.sent(TRANSPORT) == []


def test_a_forged_cookie_reply() -> None:
    simulation, alice, bob = pair()
    simulation.fate = nothing_gets_through
    alice.send(bob)
    initiation = simulation.sent(INITIATION)[0].transit.datagram
    index = int.from_bytes(initiation[4:8], "little")
    tell(alice, CookieReply(index, bytes(24), bytes(32)).to_bytes())
    failure = alice.failure(FailureReason.COOKIE_NOT_AUTHENTIC, bob)
    assert failure is not None and failure.count == 1


# -- what goes wrong with nobody we know -----------------------------------------------------------


def test_a_stranger_is_named_by_the_key_it_claims() -> None:
    simulation, _alice, bob = pair()
    carol = simulation.host("carol", "192.0.2.3", "10.0.0.3")
    carol.add_peer(bob)
    carol.send(bob)
    failure = bob.failure(FailureReason.UNKNOWN_PEER)
    assert failure is not None and failure.count == 1
    key = base64.b64encode(carol.public_key).decode()
    assert failure.detail == f"{key} from {carol.endpoint}"


def test_a_response_and_a_cookie_reply_to_nothing() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    response = simulation.sent(RESPONSE)[0].transit.datagram
    tell(alice, changed(response, 8))
    tell(alice, CookieReply(7, bytes(24), bytes(32)).to_bytes())
    tell(alice, response, bob.endpoint)  # a copy: its index has become a session's
    failure = alice.failure(FailureReason.UNKNOWN_INDEX)
    assert failure is not None and failure.count == 3
    assert alice.status(bob).failures == ()


@pytest.mark.parametrize("datagram", [bytes(148), b"\x01" + bytes(147), b"\x02" * 92, b""])
def test_what_is_no_message(datagram: bytes) -> None:
    _simulation, alice, _bob = pair()
    tell(alice, datagram)
    failure = alice.failure(FailureReason.MALFORMED_MESSAGE)
    assert failure is not None and failure.count == 1


def test_what_the_data_plane_drops() -> None:
    simulation, alice, bob = pair()
    carol = simulation.host("carol", "192.0.2.3", "10.0.0.3")
    alice.send(carol)
    mallory = simulation.network.host("mallory", "203.0.113.9").bind(port=7)
    simulation.network.fate = lambda _transit: (0,)
    mallory.send(b"\x01\0\0\0" + bytes(144), bob.endpoint)
    mallory.send(b"GET / HTTP/1.1", bob.endpoint)
    simulation.settle()
    no_route = alice.failure(FailureReason.NO_ROUTE)
    assert no_route is not None and (no_route.count, no_route.last_ns) == (1, 0)
    for reason in (FailureReason.WRONG_MAC1, FailureReason.MALFORMED_MESSAGE):
        failure = bob.failure(reason)
        assert failure is not None and failure.count == 1


def test_what_both_planes_refuse_is_added_up() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    tell(bob, changed(simulation.sent(RESPONSE)[0].transit.datagram, 8))
    now = simulation.clock.now()
    mallory = simulation.network.host("mallory", "203.0.113.9").bind(port=7)
    simulation.network.fate = lambda _transit: (0,)
    mallory.send(b"\x04\0\0\0" + bytes(44), bob.endpoint)
    simulation.settle()
    failure = bob.failure(FailureReason.UNKNOWN_INDEX)
    assert failure is not None
    assert (failure.count, failure.last_ns) == (2, now.wall_ns)


def test_a_stranger_fills_neither_memory_nor_log(caplog: pytest.LogCaptureFixture) -> None:
    simulation, alice, bob = pair()
    simulation.fate = nothing_gets_through
    alice.send(bob)
    initiation = simulation.sent(INITIATION)[0].transit.datagram
    with caplog.at_level(logging.DEBUG):
        for number in range(1000):
            tell(bob, changed(initiation, 100), Endpoint("203.0.113.9", number + 1))
            tell(bob, number.to_bytes(2, "big") + bytes(146))
            simulation.clock.advance(MILLISECOND)
    refused = [line for line in caplog.messages if "event=handshake_refused" in line]
    assert len(refused) == 2, "one second, two reasons"
    assert len(bob.status(alice).failures) == 1
    forged = bob.failure(FailureReason.INITIATION_NOT_AUTHENTIC, alice)
    assert forged is not None and forged.count == 1000


# -- handshakes ------------------------------------------------------------------------------------


def test_both_ends_count_a_handshake() -> None:
    _simulation, alice, bob = pair()
    alice.send(bob)
    assert handshakes(alice) == Handshakes(initiated=1, answered=1)
    assert handshakes(bob) == Handshakes(accepted=1)


def test_cookies_are_counted_at_both_ends() -> None:
    simulation, alice, bob = acquaintances()
    bob.flood()
    assert bob.device.status(simulation.clock.now()).is_under_load
    alice.send(bob)
    assert len(simulation.sent(COOKIE_REPLY)) == 1
    assert handshakes(bob).cookies_sent == 1
    assert handshakes(alice).cookies_received == 1
    simulation.run(SECOND)
    assert not bob.device.status(simulation.clock.now()).is_under_load


def lose_the_first(sent: Sent) -> tuple[int, ...]:
    return () if sent.at_ns == 0 else (20 * MILLISECOND,)


@pytest.mark.parametrize(
    ("fate", "at_least_seconds", "at_most_seconds"),
    [
        (lambda _sent: (0,), 0.0, 0.0),
        (lambda _sent: (20 * MILLISECOND,), 0.04, 0.04),
        (lose_the_first, 5.04, 5.04 + 0.333),
    ],
)
def test_the_latency_is_that_of_the_whole_attempt(
    fate: Callable[[Sent], tuple[int, ...]], at_least_seconds: float, at_most_seconds: float
) -> None:
    simulation, alice, bob = pair()
    simulation.fate = fate
    alice.send(bob)
    simulation.run(6 * SECOND)
    latency = alice.device.status(simulation.clock.now()).latency
    assert at_least_seconds <= latency.sum_seconds <= at_most_seconds
    expected = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
    expected[bisect_left(LATENCY_BOUNDS_SECONDS, at_least_seconds)] = 1
    assert list(latency.counts) == expected


# -- keys, for who asked for them ------------------------------------------------------------------


class Notes:
    """A key log that remembers the peers' keys."""

    def __init__(self) -> None:
        self.remotes: list[bytes] = []

    def note(self, *, remote_static: bytes, **_secrets: bytes) -> None:
        self.remotes.append(remote_static)


def test_a_key_log_is_told_of_every_handshake_of_the_device() -> None:
    simulation = Simulation()
    notes = Notes()
    alice = simulation.host("alice", "192.0.2.1", "10.0.0.1")
    bob = simulation.host("bob", "192.0.2.2", "10.0.0.2")
    alice.device = Device(alice.dataplane, simulation.random.randbytes, key_log=notes)
    alice.configure(private_key=alice.private_key)
    alice.device.set_link_up(True, simulation.clock.now())
    alice.add_peer(bob)
    bob.add_peer(alice)
    alice.send(bob)
    simulation.run(200 * SECOND)
    bob.send(alice)
    assert len(simulation.sent(INITIATION)) == 2
    assert notes.remotes == [bob.public_key] * 2


# -- the whole -------------------------------------------------------------------------------------


def test_a_status_says_where_and_when_and_how_much() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    alice.change_peer(bob, persistent_keepalive_seconds=25)
    simulation.run(SECOND)
    now = simulation.clock.now()
    shown = alice.status(bob)
    assert shown.endpoint == str(bob.endpoint)
    assert tuple(shown.allowed_ips) == (f"{bob.tunnel_ip}/32",)
    assert shown.persistent_keepalive_seconds == 25
    assert shown.has_session and not shown.has_preshared_key
    sent = [each for each in simulation.log if each.sender == "alice"]
    assert shown.last_sent_ns == now.wall_ns - SECOND
    assert shown.last_received_ns == now.wall_ns - SECOND
    assert shown.sent_packets == len(sent)
    assert shown.sent_bytes == sum(each.size for each in sent)
    assert shown.received_packets == len(simulation.log) - len(sent)
    assert bob.status(alice).last_handshake_ns == now.wall_ns - SECOND

    device = alice.device.status(now)
    assert base64.b64decode(device.public_key) == alice.public_key
    assert device.is_up
    assert device.now_ns == now.wall_ns
    assert set(device.queues) == set(device.queue_limits)


def test_a_status_holds_no_secret_and_survives_json() -> None:
    simulation, alice, bob = pair(preshared_key=b"\x05" * 32)
    alice.send(bob)
    simulation.fate = nothing_gets_through
    simulation.run(300 * SECOND)
    alice.send(bob)
    simulation.run(30 * SECOND)
    status = alice.device.status(simulation.clock.now())
    assert status.peers[0].failures
    text = json.dumps(as_json(status))
    peers = (replace(each, allowed_ips=tuple(each.allowed_ips)) for each in status.peers)
    assert from_json(json.loads(text)) == replace(status, peers=tuple(peers))
    for secret in (alice.private_key, b"\x05" * 32):
        assert secret.hex() not in text
        assert base64.b64encode(secret).decode() not in text


def test_a_device_without_anything_has_a_status() -> None:
    simulation = Simulation()
    alice = simulation.host("alice", "192.0.2.1", "10.0.0.1")
    alice.configure(private_key=bytes(32), listen_port=PORT)
    status = alice.device.status(simulation.clock.now())
    assert (status.public_key, len(status.peers), status.failures) == ("", 0, ())
    assert status.listen_port == PORT


def test_a_status_may_be_looked_at_after_a_peer_was_removed() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    simulation.run(SECOND)
    status = alice.device.status(simulation.clock.now())
    assert status.peers[0].sent_packets > 0
    alice.change_peer(bob, remove=True)
    (left,) = status.peers[0:9]
    assert left == PeerStatus(public_key=base64.b64encode(bob.public_key).decode())


def test_our_own_key_as_a_peer_is_told() -> None:
    simulation, alice, _bob = pair()
    alice.change_peer(alice)
    (failure,) = alice.device.status(simulation.clock.now()).failures
    assert (failure.reason, failure.count) == (FailureReason.OWN_KEY_AS_PEER, 1)
