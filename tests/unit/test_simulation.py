"""The protocol as two devices speak it, on a virtual clock: every timer and limit of the paper.

Numbers are typed again from the paper, section 6, on purpose.
"""

import errno
import itertools

import pytest

from tests.unit.simulation import (
    COOKIE_REPLY,
    INITIATION,
    MILLISECOND,
    RESPONSE,
    SECOND,
    TRANSPORT,
    Host,
    Sent,
    Simulation,
    acquaintances,
    ip_packet,
    pair,
)
from wgd.configuration import PeerChange
from wgd.errors import ConfigurationError
from wgd.noise.handshake import HandshakeState
from wgd.noise.primitives import PrivateKey

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
JITTER = 333 * MILLISECOND


def nothing_gets_through(_sent: Sent) -> tuple[int, ...]:
    return ()


def talk(simulation: Simulation, one: Host, other: Host, duration_ns: int, every_ns: int) -> None:
    """Send a packet each way every `every_ns`, which is more often than any timer needs."""
    end_ns = simulation.now_ns + duration_ns
    while simulation.now_ns < end_ns:
        one.send(other, b"ping")
        other.send(one, b"pong")
        simulation.run(every_ns)


# -- a handshake when one is needed ----------------------------------------------------------------


def test_the_first_packet_makes_the_session_and_arrives() -> None:
    simulation, alice, bob = pair()
    packet = alice.send(bob)
    assert [sent.kind for sent in simulation.log] == [INITIATION, RESPONSE, TRANSPORT]
    assert [sent.size for sent in simulation.log] == [148, 92, 32 + 32]
    assert bob.received == [packet]
    answer = bob.send(alice)
    assert alice.received == [answer]
    assert len(simulation.log) == 4


def test_nobody_speaks_before_there_is_something_to_say() -> None:
    simulation, _alice, _bob = pair()
    simulation.run(24 * HOUR)
    assert simulation.log == []
    assert simulation.next_deadline() is None


def test_the_handshake_time_is_shown_on_both_sides() -> None:
    simulation, alice, bob = pair()
    assert alice.peer(bob).last_handshake_ns == 0
    alice.send(bob)
    now_ns = simulation.clock.now().wall_ns
    assert alice.peer(bob).last_handshake_ns == now_ns
    assert bob.peer(alice).last_handshake_ns == now_ns


def test_counters_count_every_datagram_of_the_peer() -> None:
    _simulation, alice, bob = pair()
    alice.send(bob)
    assert alice.peer(bob).sent_bytes == 148 + 64
    assert alice.peer(bob).received_bytes == 92
    assert bob.peer(alice).sent_bytes == 92
    assert bob.peer(alice).received_bytes == 148 + 64


def test_without_an_endpoint_the_sender_is_told_until_there_is_one() -> None:
    simulation = Simulation()
    alice = simulation.host("alice", "192.0.2.1", "10.0.0.1")
    bob = simulation.host("bob", "192.0.2.2", "10.0.0.2")
    alice.add_peer(bob, endpoint=False)
    bob.add_peer(alice, endpoint=False)
    refused = [alice.send(bob), alice.send(bob)]
    simulation.run(10 * MINUTE)
    assert simulation.log == []
    # IPv4 and ICMP headers of 28 bytes: host unreachable.
    assert [(each[20:22], each[28:]) for each in alice.received] == [
        (b"\3\1", packet) for packet in refused
    ]
    alice.received.clear()
    alice.change_peer(bob, endpoint=bob.endpoint)
    packet = alice.send(bob)
    simulation.settle()
    assert bob.received == [packet]
    # Bob has learnt the way back from the handshake.
    assert alice.received == [] and bob.send(alice) == alice.received[0]


def test_without_a_private_key_packets_wait_until_there_is_one() -> None:
    simulation, alice, bob = pair()
    alice.configure(private_key=bytes(32))
    packet = alice.send(bob)
    assert simulation.log == []
    alice.configure(private_key=alice.private_key)
    simulation.settle()
    assert bob.received == [packet]


def test_the_newest_128_packets_are_staged() -> None:
    simulation, alice, bob = pair()
    simulation.fate = nothing_gets_through
    packets = [alice.send(bob, number.to_bytes(2, "big")) for number in range(200)]
    simulation.fate = lambda _sent: (0,)
    simulation.run(6 * SECOND)
    assert bob.received == packets[-128:]


def test_a_peer_with_a_public_key_of_low_order_never_gets_a_message() -> None:
    simulation, alice, bob = pair()
    bob.public_key = bytes(32)
    alice.add_peer(bob)
    alice.send(bob)
    simulation.run(MINUTE)
    assert simulation.log == []


# -- retransmit handshake --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_initiations_are_retried_every_five_seconds_and_jitter_for_ninety(seed: int) -> None:
    simulation, alice, bob = pair(seed)
    simulation.fate = nothing_gets_through
    alice.send(bob)
    simulation.run(10 * MINUTE)
    times = [sent.at_ns for sent in simulation.sent(INITIATION)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(5 * SECOND <= gap <= 5 * SECOND + JITTER for gap in gaps)
    assert max(gaps) > 5 * SECOND + JITTER // 2, "the jitter uses its whole range"
    assert len(set(gaps)) > 1, "the jitter is drawn anew each time"
    assert times[-1] < 90 * SECOND <= times[-1] + 5 * SECOND + JITTER
    assert len({sent.transit.datagram[4:8] for sent in simulation.log}) == len(times)


def test_giving_up_drops_what_was_staged_and_the_next_packet_tries_again() -> None:
    simulation, alice, bob = pair()
    simulation.fate = nothing_gets_through
    alice.send(bob, b"old")
    simulation.run(2 * MINUTE)
    simulation.fate = lambda _sent: (0,)
    simulation.run(10 * MINUTE)
    assert bob.received == []
    packet = alice.send(bob, b"new")
    assert bob.received == [packet]


def test_a_lost_initiation_costs_five_seconds() -> None:
    simulation, alice, bob = pair()
    simulation.fate = lambda sent: () if sent.at_ns == 0 else (0,)
    packet = alice.send(bob)
    simulation.run(5 * SECOND + JITTER)
    assert bob.received == [packet]


def test_a_lost_response_costs_five_seconds() -> None:
    simulation, alice, bob = pair()
    simulation.fate = lambda sent: () if (sent.at_ns, sent.kind) == (0, RESPONSE) else (0,)
    packet = alice.send(bob)
    simulation.run(5 * SECOND + JITTER)
    assert bob.received == [packet]
    assert len(simulation.sent(RESPONSE)) == 2


def test_a_handshake_of_more_than_a_second_is_still_taken() -> None:
    simulation, alice, bob = pair()
    simulation.fate = lambda _sent: (2 * SECOND,)
    packet = alice.send(bob)
    simulation.run(7 * SECOND)
    assert bob.received == [packet]
    assert len(simulation.sent(INITIATION)) == 1


def test_a_new_port_amid_a_handshake_costs_milliseconds_not_seconds() -> None:
    simulation, alice, bob = pair()
    simulation.fate = lambda _sent: (30 * MILLISECOND,)
    packet = alice.send(bob)
    simulation.run(10 * MILLISECOND)
    for sock in alice.sockets:
        sock.close()
    alice.sockets = [alice.host.bind(port=4444)]
    alice.dataplane.attach_sockets(alice.sockets)
    alice.device.sockets_replaced(simulation.clock.now())
    simulation.run(200 * MILLISECOND)
    assert bob.received == [packet]
    assert len(simulation.sent(INITIATION)) == 2


@pytest.mark.parametrize("seed", range(30))
def test_crossing_initiations_end_in_a_session(seed: int) -> None:
    simulation, alice, bob = pair(seed)
    simulation.fate = lambda _sent: (20 * MILLISECOND,)
    to_bob = ip_packet("10.0.0.1", "10.0.0.2", b"ping")
    to_alice = ip_packet("10.0.0.2", "10.0.0.1", b"pong")
    assert alice.tun.inject(to_bob)
    assert bob.tun.inject(to_alice)
    simulation.run(30 * SECOND)
    assert bob.received == [to_bob]
    assert alice.received == [to_alice]


def test_after_a_response_we_wait_five_seconds_before_we_initiate() -> None:
    simulation, alice, bob = pair()
    simulation.fate = lambda sent: () if sent.kind in (RESPONSE, TRANSPORT) else (0,)
    alice.send(bob)
    alice.change_peer(bob, remove=True)  # nobody will confirm the session
    bob.send(alice)
    assert simulation.sent(INITIATION, by=bob) == []
    simulation.run(6 * SECOND)
    assert [sent.at_ns for sent in simulation.sent(INITIATION, by=bob)] == [5 * SECOND]


def test_a_new_port_and_a_changed_peer_in_one_set_do_not_flood_the_responder() -> None:
    simulation, alice, bob = pair()
    simulation.fate = lambda _sent: (MILLISECOND,)
    alice.send(bob)
    simulation.fate = lambda sent: (
        () if sent.kind == RESPONSE and sent.at_ns == 0 else (MILLISECOND,)
    )
    simulation.run(0)
    simulation.clock.advance(MILLISECOND)
    alice.device.sockets_replaced(simulation.clock.now())
    alice.change_peer(bob, endpoint=bob.endpoint)
    simulation.settle()
    assert len(simulation.sent(INITIATION)) == 1
    simulation.run(100 * MILLISECOND)
    assert len(bob.received) == 1


@pytest.mark.parametrize("has_session", [True, False])
def test_silence_lets_the_kernel_choose_the_source_anew(has_session: bool) -> None:
    """On data that nothing answers, and on an initiation that has to be retried."""
    simulation, alice, bob = pair()
    alice.send(bob)
    bob.send(alice)
    endpoint = alice.peer(bob).endpoint
    assert endpoint is not None and endpoint.source is not None
    simulation.fate = nothing_gets_through
    if not has_session:
        (peer_id,) = alice.device.peer_ids()
        alice.dataplane.expire_keypairs(peer_id)
    alice.send(bob)
    simulation.run(16 * SECOND if has_session else 11 * SECOND)
    endpoint = alice.peer(bob).endpoint
    assert endpoint is not None and endpoint.source is None


# -- keepalives ------------------------------------------------------------------------------------


def test_data_is_answered_by_one_keepalive_after_ten_seconds() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    simulation.run(3 * SECOND)
    alice.send(bob)
    simulation.run(HOUR)
    # Ten seconds after the first packet that nothing answered, not after the last.
    (keepalive,) = [sent for sent in simulation.log if sent.is_keepalive]
    assert (keepalive.sender, keepalive.at_ns) == ("bob", 10 * SECOND)


def test_a_keepalive_is_never_answered() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    simulation.run(24 * HOUR)
    assert len([sent for sent in simulation.log if sent.is_keepalive]) == 1
    assert max(sent.at_ns for sent in simulation.log) == 10 * SECOND


def test_data_that_is_answered_by_data_needs_no_keepalive() -> None:
    simulation, alice, bob = pair()
    talk(simulation, alice, bob, 100 * SECOND, SECOND)
    assert [sent for sent in simulation.log if sent.is_keepalive] == []


@pytest.mark.parametrize("seed", range(20))
def test_who_spoke_first_answers_an_answer_in_time(seed: int) -> None:
    simulation, alice, bob = pair(seed)
    simulation.fate = lambda _sent: (10 * MILLISECOND,)
    alice.send(bob)
    simulation.run(30 * MILLISECOND)
    bob.send(alice)
    simulation.run(60 * SECOND)
    began = simulation.now_ns
    alice.send(bob)
    simulation.run(20 * MILLISECOND)
    bob.send(alice)
    simulation.run(60 * SECOND)
    # Data, answer, and a keepalive ten seconds after the answer came; no handshake.
    data, answer, keepalive = (s for s in simulation.log if s.at_ns >= began)
    assert (data.sender, answer.sender, keepalive.sender) == ("alice", "bob", "alice")
    assert keepalive.is_keepalive
    assert keepalive.at_ns == answer.at_ns + 10 * MILLISECOND + 10 * SECOND


def test_a_stamp_that_is_cleared_before_it_was_reported_stops_no_timer() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    simulation.run(30 * SECOND)
    (peer_id,) = bob.device.peer_ids()
    bob.dataplane.send_keepalive(peer_id)
    assert alice.tun.inject(ip_packet("10.0.0.1", "10.0.0.2", b"ping"))  # sent and answered at once
    simulation.run(40 * SECOND)
    simulation.fate = nothing_gets_through
    began = simulation.now_ns
    alice.send(bob)
    simulation.run(20 * SECOND)
    (first, *_rest) = simulation.sent(INITIATION, since_ns=began)
    assert 15 * SECOND <= first.at_ns - began <= 15 * SECOND + JITTER


def test_setting_the_same_persistent_keepalive_again_does_not_postpone_it() -> None:
    simulation, alice, bob = pair()
    alice.change_peer(bob, persistent_keepalive_seconds=25)
    for _ in range(20):
        simulation.run(20 * SECOND)
        alice.change_peer(bob, persistent_keepalive_seconds=25)
    assert len([sent for sent in simulation.log if sent.is_keepalive]) >= 400 // 25


def test_an_initiator_with_nothing_staged_confirms_with_a_keepalive() -> None:
    simulation, alice, bob = pair()
    alice.change_peer(bob, persistent_keepalive_seconds=25)
    simulation.settle()
    assert [sent.kind for sent in simulation.log] == [INITIATION, RESPONSE, TRANSPORT]
    assert simulation.log[2].is_keepalive


def test_persistent_keepalive_speaks_at_once_and_then_every_interval() -> None:
    simulation, alice, bob = pair()
    alice.change_peer(bob, persistent_keepalive_seconds=25)
    simulation.settle()
    assert simulation.now_ns == 0 and len(simulation.sent(INITIATION)) == 1
    simulation.run(110 * SECOND)
    times = [sent.at_ns for sent in simulation.log if sent.is_keepalive]
    assert times == [0, 25 * SECOND, 50 * SECOND, 75 * SECOND, 100 * SECOND]


def test_persistent_keepalive_is_silent_while_there_is_traffic() -> None:
    simulation, alice, bob = pair()
    alice.change_peer(bob, persistent_keepalive_seconds=5)
    simulation.settle()
    began = simulation.now_ns
    talk(simulation, alice, bob, 60 * SECOND, SECOND)
    # Received packets count, too: only bob speaks now, and nobody needs a keepalive but his own.
    keepalives = [s for s in simulation.log if s.is_keepalive and s.at_ns > began]
    assert keepalives == []


def test_persistent_keepalive_keeps_a_session_for_days() -> None:
    simulation, alice, bob = pair()
    alice.change_peer(bob, persistent_keepalive_seconds=25)
    simulation.run(24 * HOUR)
    since_ns = 23 * HOUR
    assert len([s for s in simulation.log if s.is_keepalive and s.at_ns > since_ns]) >= 143
    # One handshake every 120 s and a bit, as the initiator sends every 25 s: at 125, 250, …
    handshakes = len(simulation.sent(INITIATION, since_ns=since_ns))
    assert 28 <= handshakes <= 29


def test_switching_persistent_keepalive_off_ends_it() -> None:
    simulation, alice, bob = pair()
    alice.change_peer(bob, persistent_keepalive_seconds=25)
    simulation.run(30 * SECOND)
    count = len(simulation.log)
    alice.change_peer(bob, persistent_keepalive_seconds=0)
    simulation.run(HOUR)
    assert len(simulation.log) == count


def test_a_persistent_keepalive_without_an_endpoint_does_not_spin() -> None:
    simulation = Simulation()
    alice = simulation.host("alice", "192.0.2.1", "10.0.0.1")
    bob = simulation.host("bob", "192.0.2.2", "10.0.0.2")
    alice.add_peer(bob, endpoint=False, persistent_keepalive_seconds=1)
    simulation.run(MINUTE)
    assert simulation.activity <= 61 * 2


# -- new handshake after silence -------------------------------------------------------------------


def test_data_without_any_answer_makes_a_new_handshake_after_fifteen_seconds() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    bob.send(alice)
    simulation.run(20 * SECOND)
    simulation.fate = nothing_gets_through
    began = simulation.now_ns
    alice.send(bob)
    simulation.run(5 * SECOND)
    alice.send(bob)
    simulation.run(20 * SECOND)
    initiations = simulation.sent(INITIATION, since_ns=began)
    first = initiations[0].at_ns - began
    assert 15 * SECOND <= first <= 15 * SECOND + JITTER


# -- rekey and rejection ---------------------------------------------------------------------------


def test_only_the_initiator_renews_after_120_seconds_and_nothing_is_lost() -> None:
    simulation, alice, bob = pair()
    talk(simulation, alice, bob, 1000 * SECOND, SECOND)
    initiations = simulation.sent(INITIATION)
    assert {sent.sender for sent in initiations} == {"alice"}
    # The packet sent at 120 s asks for the handshake that is done at once, and so on.
    assert [sent.at_ns for sent in initiations] == [120 * SECOND * n for n in range(9)]
    assert len(alice.received) == len(bob.received) == 1000


def test_an_initiator_that_only_receives_renews_after_165_seconds() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    simulation.run(164 * SECOND)
    bob.send(alice)
    assert len(simulation.sent(INITIATION)) == 1
    simulation.run(SECOND)
    bob.send(alice)
    assert [sent.at_ns for sent in simulation.sent(INITIATION)] == [0, 165 * SECOND]


def test_a_session_is_not_used_after_180_seconds() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    simulation.run(180 * SECOND - 1)
    bob.send(alice)
    assert len(alice.received) == 1
    simulation, alice, bob = pair()
    alice.send(bob)
    simulation.run(180 * SECOND)
    packet = bob.send(alice)
    assert [sent.sender for sent in simulation.sent(INITIATION)] == ["alice", "bob"]
    assert alice.received == [packet]


def test_keys_are_erased_after_540_seconds() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    simulation.run(540 * SECOND - 1)
    assert simulation.next_deadline() == simulation.began_ns + 540 * SECOND
    simulation.run(1)
    assert simulation.next_deadline() is None
    for host in (alice, bob):
        (peer_id,) = host.device.peer_ids()
        assert host.dataplane.drop_keypairs(peer_id) == ()


# -- roaming ---------------------------------------------------------------------------------------


def test_a_peer_that_moves_is_followed_after_its_first_packet() -> None:
    _simulation, alice, bob = pair()
    alice.send(bob)
    bob.host.addresses = ("192.0.2.99",)
    bob.send(alice)
    endpoint = alice.peer(bob).endpoint
    assert endpoint is not None and endpoint.host == "192.0.2.99"
    packet = alice.send(bob)
    assert bob.received[-1] == packet


def test_a_keepalive_moves_the_endpoint_too() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    bob.host.addresses = ("192.0.2.99",)
    simulation.run(10 * SECOND)  # bob's passive keepalive
    endpoint = alice.peer(bob).endpoint
    assert endpoint is not None and endpoint.host == "192.0.2.99"


def test_a_replayed_packet_from_elsewhere_does_not_move_the_endpoint() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    bob.send(alice)
    mallory = simulation.network.host("mallory", "203.0.113.9").bind(port=7)
    for sent in simulation.sent(RESPONSE, TRANSPORT, by=bob):
        simulation.fate = lambda _sent: (0,)
        simulation.network.fate = lambda _transit: (0,)
        mallory.send(sent.transit.datagram, alice.endpoint)
    simulation.settle()
    endpoint = alice.peer(bob).endpoint
    assert endpoint is not None and endpoint.host == "192.0.2.2"
    assert len(alice.received) == 1


# -- configuration changes -------------------------------------------------------------------------


def test_a_new_private_key_makes_a_new_session_and_keeps_the_peers() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    old_public_key = alice.public_key
    alice.private_key = simulation.random.randbytes(32)
    alice.public_key = PrivateKey(alice.private_key).public_key
    alice.configure(private_key=alice.private_key)
    bob.change_peer(alice, endpoint=alice.endpoint)
    bob.add_peer(alice)
    assert alice.peer(bob).allowed_ips
    packet = alice.send(bob, b"from a new key")
    simulation.run(50 * MILLISECOND)
    assert bob.received[-1] == packet
    assert len(simulation.sent(INITIATION)) == 2
    assert old_public_key != alice.public_key


def test_setting_the_same_private_key_disturbs_nothing() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    alice.configure(private_key=alice.private_key)
    alice.send(bob)
    assert len(simulation.sent(INITIATION)) == 1


def test_a_preshared_key_counts_from_the_next_handshake_on() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    alice.change_peer(bob, preshared_key=b"\x05" * 32)
    packet = alice.send(bob)
    assert bob.received[-1] == packet, "the running session goes on"
    simulation.run(200 * SECOND)
    alice.send(bob)
    simulation.run(SECOND)
    assert len(bob.received) == 2, "one side only: no new session"
    bob.change_peer(alice, preshared_key=b"\x05" * 32)
    simulation.run(6 * SECOND)
    assert len(bob.received) == 3


def test_changing_a_peer_leaves_its_session_alone() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    for change in (
        {"endpoint": bob.endpoint},
        {"persistent_keepalive_seconds": 30},
        {"replace_allowed_ips": True},
    ):
        alice.change_peer(bob, **change)
    alice.add_peer(bob)
    alice.send(bob)
    assert len(simulation.sent(INITIATION)) == 1
    assert len(bob.received) == 2


def test_our_own_key_as_a_peer_is_ignored_and_removed_when_it_becomes_ours() -> None:
    _simulation, alice, bob = pair()
    alice.change_peer(alice)
    assert [p.public_key for p in alice.device.state().peers] == [bob.public_key]
    alice.configure(private_key=bob.private_key)
    assert alice.device.state().peers == ()


def test_a_removed_peer_is_gone_with_everything() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    alice.change_peer(bob, remove=True)
    assert alice.device.state().peers == ()
    count = len(simulation.log)
    alice.send(bob)
    bob.send(alice)
    simulation.run(HOUR)
    assert simulation.sent(*(1, 2, 3, 4), by=alice)[-1].at_ns == 0
    assert len(simulation.sent(*(1, 2, 3, 4), by=alice)) == count - len(
        simulation.sent(RESPONSE, by=bob)
    )


def test_the_session_ends_with_the_link_and_comes_back_with_it() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    alice.device.set_link_up(False, simulation.clock.now())
    bob.send(alice)
    assert alice.received == []
    alice.device.set_link_up(True, simulation.clock.now())
    simulation.run(6 * SECOND)
    packet = alice.send(bob)
    assert bob.received[-1] == packet
    assert len(simulation.sent(INITIATION, by=alice)) == 2


def test_a_link_that_comes_back_at_once_does_not_cost_a_retry() -> None:
    """A responder takes one initiation in 20 ms from a peer, and drops the next as a flood."""
    simulation, alice, bob = pair()
    alice.send(bob)
    for payload in (b"first", b"second", b"third"):
        alice.device.set_link_up(False, simulation.clock.now())
        alice.device.set_link_up(True, simulation.clock.now())
        packet = alice.send(bob, payload)
        simulation.run(50 * MILLISECOND)
        assert bob.received[-1] == packet


def test_a_persistent_keepalive_speaks_when_the_link_comes_up() -> None:
    simulation, alice, bob = pair()
    alice.device.set_link_up(False, simulation.clock.now())
    alice.change_peer(bob, persistent_keepalive_seconds=25)
    simulation.run(MINUTE)
    assert simulation.log == []
    alice.device.set_link_up(True, simulation.clock.now())
    simulation.settle()
    assert [sent.kind for sent in simulation.log] == [INITIATION, RESPONSE, TRANSPORT]


@pytest.mark.parametrize("keepalive", [0, 25])
def test_what_was_staged_while_the_link_was_down_makes_a_handshake_when_it_is_up(
    keepalive: int,
) -> None:
    simulation, alice, bob = pair()
    alice.device.set_link_up(False, simulation.clock.now())
    alice.change_peer(bob, persistent_keepalive_seconds=keepalive)
    packet = alice.send(bob)
    assert simulation.log == []
    alice.device.set_link_up(True, simulation.clock.now())
    simulation.settle()
    assert bob.received == [packet]


@pytest.mark.parametrize("speaker", ["alice", "bob"])
def test_timers_neither_survive_the_link_nor_die_with_it(speaker: str) -> None:
    simulation, alice, bob = pair()
    one, other = (alice, bob) if speaker == "alice" else (bob, alice)
    one.send(other)
    simulation.run(SECOND)
    alice.device.set_link_up(False, simulation.clock.now())
    simulation.run(HOUR)
    count = len(simulation.log)
    alice.device.set_link_up(True, simulation.clock.now())
    simulation.run(HOUR)
    assert len(simulation.log) == count, "nobody wants anything"
    bob.send(alice)
    simulation.run(10 * SECOND)
    (keepalive,) = [sent for sent in simulation.log[count:] if sent.is_keepalive]
    assert keepalive.sender == "alice"


def test_an_attempt_that_never_made_a_session_is_erased_too() -> None:
    simulation, alice, bob = pair()
    simulation.fate = nothing_gets_through
    alice.send(bob)
    simulation.run(100 * SECOND)
    (peer,) = alice.device._peers.values()
    states = [peer._handshake.state]
    simulation.run(540 * SECOND)
    states.append(peer._handshake.state)
    assert states == [HandshakeState.INITIATION_CREATED, HandshakeState.NONE]
    assert len(alice.device._indices) == 0
    assert simulation.next_deadline() is None


def test_a_device_has_at_most_65536_peers() -> None:
    simulation = Simulation()
    alice = simulation.host("alice", "192.0.2.1", "10.0.0.1")
    peers = tuple(PeerChange(number.to_bytes(32, "big")) for number in range(1, 65_538))
    with pytest.raises(ConfigurationError) as refused:
        alice.configure(peers=peers)
    assert refused.value.errno == errno.EINVAL
    assert alice.device.state().peers == ()
    alice.configure(peers=peers[1:])
    with pytest.raises(ConfigurationError):
        alice.configure(peers=peers[:1])
    alice.configure(peers=(PeerChange(peers[1].public_key, remove=True), peers[0]))
    assert len(alice.device.state().peers) == 65_536


def test_thousands_of_due_peers_do_not_act_in_one_turn() -> None:
    simulation = Simulation()
    alice = simulation.host("alice", "192.0.2.1", "10.0.0.1")
    peers = tuple(
        PeerChange(PrivateKey(simulation.random.randbytes(32)).public_key, endpoint=alice.endpoint)
        for _ in range(200)
    )
    alice.configure(peers=peers)
    for peer in alice.device._peers.values():
        peer.set_persistent_keepalive(1, simulation.clock.now())
        alice.device._reschedule(peer)
    simulation.settle()
    simulation.clock.advance(6 * SECOND)
    before = len(simulation.log)
    turns = 0
    while (due := alice.device.next_deadline()) is not None and due <= simulation.clock.boot_ns():
        alice.device.on_deadline(simulation.clock.now())
        turns += 1
        assert len(simulation.log) - before <= 64 * turns
    assert len(simulation.log) - before == 200


# -- load ------------------------------------------------------------------------------------------


def test_under_load_an_initiation_is_answered_by_a_cookie_that_the_next_one_uses() -> None:
    simulation, alice, bob = acquaintances()
    bob.flood()
    packet = alice.send(bob)
    assert [sent.kind for sent in simulation.sent_between(alice, bob)] == [INITIATION, COOKIE_REPLY]
    simulation.run(5 * SECOND - 1)
    assert len(simulation.sent_between(alice, bob)) == 2, "the cookie waits for the next retry"
    bob.flood()
    simulation.run(1 * SECOND)
    retry = simulation.sent(INITIATION)[1].transit.datagram
    assert retry[-16:] != bytes(16)
    assert bob.received == [packet]
    assert len(simulation.sent(COOKIE_REPLY)) == 1


def test_load_is_over_a_second_after_it_was_last_seen() -> None:
    simulation, alice, bob = acquaintances()
    bob.flood()
    simulation.run(SECOND)
    alice.send(bob)
    assert simulation.sent_between(alice, bob, COOKIE_REPLY) == []
    assert len(bob.received) == 1


def test_a_queue_of_127_is_no_load_and_many_handshakes_bring_no_cookie() -> None:
    simulation, alice, bob = acquaintances()
    for _ in range(3):
        bob.flood(127)
        simulation.settle()
    alice.send(bob)
    assert simulation.sent(COOKIE_REPLY) == []
    assert len(bob.received) == 1


def test_a_cookie_reply_does_not_move_the_endpoint() -> None:
    simulation, alice, bob = acquaintances()
    bob.flood()
    simulation.fate = lambda sent: () if sent.kind == COOKIE_REPLY else (0,)
    alice.send(bob)
    (reply,) = simulation.sent_between(alice, bob, COOKIE_REPLY)
    mallory = simulation.network.host("mallory", "203.0.113.9").bind(port=7)
    simulation.network.fate = lambda _transit: (0,)
    mallory.send(reply.transit.datagram, alice.endpoint)
    simulation.settle()
    endpoint = alice.peer(bob).endpoint
    assert endpoint is not None and endpoint.host == "192.0.2.2"


def test_under_load_a_source_with_a_cookie_gets_its_burst_and_no_more() -> None:
    simulation, alice, bob = acquaintances()
    bob.flood()
    alice.send(bob)
    simulation.run(6 * SECOND)
    source = simulation.sent(INITIATION)[-1].transit.source
    # Alice has bob's cookie now. Let her make many initiations with it, 20 ms apart, that get lost.
    simulation.fate = nothing_gets_through
    (peer,) = alice.device._peers.values()
    datagrams = []
    for _ in range(30):
        simulation.clock.advance(20 * MILLISECOND)
        peer.initiator._last_sent_ns = peer.initiator._initiated_ns = None
        peer.initiator._initiate(simulation.clock.now())
        datagrams.append(simulation.sent(INITIATION)[-1].transit.datagram)
    simulation.clock.advance(SECOND)
    bob.flood()
    began = len(simulation.sent(RESPONSE))
    cookies = len(simulation.sent_between(alice, bob, COOKIE_REPLY))
    for datagram in datagrams:
        simulation.clock.advance(20 * MILLISECOND)
        bob.hear(datagram, source)
        simulation.settle()
    # Five at once and one for each 50 of the 600 ms; and five because bob knows where she is.
    answered = len(simulation.sent(RESPONSE)) - began
    assert 21 <= answered <= 22
    assert len(simulation.sent_between(alice, bob, COOKIE_REPLY)) == cookies == 1


def test_under_load_a_response_proves_itself_by_the_index_that_it_answers() -> None:
    simulation, alice, bob = pair()
    alice.flood()
    packet = alice.send(bob)
    sent = simulation.sent_between(alice, bob)
    assert [each.kind for each in sent[:2]] == [INITIATION, RESPONSE]
    assert simulation.sent_between(alice, bob, COOKIE_REPLY) == []
    assert bob.received == [packet]


def test_a_peer_whose_place_is_known_needs_no_cookie_under_load() -> None:
    simulation, alice, bob = pair()
    bob.flood()
    packet = alice.send(bob)
    assert simulation.sent_between(alice, bob, COOKIE_REPLY) == []
    assert bob.received == [packet]


def test_a_cookie_is_asked_for_under_the_new_public_key() -> None:
    simulation, alice, bob = acquaintances()
    bob.private_key = simulation.random.randbytes(32)
    bob.public_key = PrivateKey(bob.private_key).public_key
    bob.configure(private_key=bob.private_key)
    alice.add_peer(bob)
    bob.flood()
    packet = alice.send(bob)
    assert len(simulation.sent_between(alice, bob, COOKIE_REPLY)) == 1
    bob.flood()
    simulation.run(6 * SECOND)
    assert bob.received == [packet]


# -- a bad network and a long time -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_a_day_on_a_bad_network_ends_in_a_working_tunnel(seed: int) -> None:
    simulation, alice, bob = pair(seed)
    rng = simulation.random

    def bad(_sent: Sent) -> tuple[int, ...]:
        copies = rng.choice((0, 1, 1, 1, 2))
        return tuple(rng.randrange(200) * MILLISECOND for _ in range(copies))

    simulation.fate = bad
    sent = set()
    end_ns = 24 * HOUR
    while simulation.now_ns < end_ns:
        one, other = rng.sample((alice, bob), 2)
        for _ in range(rng.randrange(5)):
            sent.add(one.send(other, rng.randbytes(16)))
        simulation.run(int(rng.expovariate(1 / 60) * SECOND))
        simulation.clock.step_wall_clock(rng.randrange(-2, 3) * SECOND)
    assert len(alice.received) == len(set(alice.received)), "nothing arrives twice"
    assert len(bob.received) == len(set(bob.received))
    assert set(alice.received) | set(bob.received) <= sent
    assert len(alice.received) + len(bob.received) > len(sent) / 2
    simulation.fate = lambda _sent: (0,)
    simulation.run(10 * MINUTE)
    packet = alice.send(bob, b"the end")
    simulation.run(6 * SECOND)
    assert bob.received[-1] == packet


def test_a_wall_clock_that_steps_back_does_not_lock_a_peer_out() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    simulation.clock.step_wall_clock(-1000 * SECOND)
    simulation.run(200 * SECOND)
    packet = alice.send(bob)
    assert bob.received[-1] == packet


def test_receiver_indices_do_not_leak() -> None:
    simulation, alice, bob = pair()
    talk(simulation, alice, bob, 2000 * SECOND, 5 * SECOND)
    simulation.run(HOUR)
    for host in (alice, bob):
        assert len(host.device._indices) == 0


def test_a_confirmation_that_comes_after_the_keys_were_dropped_is_no_handshake() -> None:
    simulation, alice, bob = pair()
    simulation.fate = lambda sent: () if sent.kind == TRANSPORT else (0,)
    packet = alice.send(bob)
    simulation.fate = lambda _sent: (0,)
    alice.tun.inject(packet)
    alice.dataplane.receive_from_tun()
    bob.dataplane.receive_from_socket(bob.sockets[0])  # confirmed, and not told to the device yet
    bob.device.set_link_up(False, simulation.clock.now())
    bob.step()
    assert bob.peer(alice).last_handshake_ns == 0
