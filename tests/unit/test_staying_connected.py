"""How a peer is found again: it has moved, its name has, or our own network; on a virtual clock."""

import errno
import itertools
from collections.abc import Callable

import pytest

from tests.unit.simulation import (
    INITIATION,
    MILLISECOND,
    PORT,
    SECOND,
    TRANSPORT,
    Host,
    Sent,
    Simulation,
    pair,
)
from wgd.addresses import Endpoint
from wgd.configuration import DeviceChange, PeerChange
from wgd.core.device import PEERS_PER_DEADLINE
from wgd.diagnosis import FailureReason
from wgd.errors import ConfigurationError

HOUR = 3600 * SECOND
JITTER = 333 * MILLISECOND
NAME = f"bob.example:{PORT}"
SIX = "2001:db8::2"


def named_pair() -> tuple[Simulation, Host, Host]:
    """Return alice, who knows bob by his name, and bob; they have a session and are silent."""
    simulation, alice, bob = pair()
    alice.change_peer(bob, endpoint=bob.endpoint, endpoint_host=NAME)
    alice.names["bob.example"] = [bob.endpoint]
    alice.send(bob)
    simulation.run(30 * SECOND)
    assert len(bob.received) == 1
    return simulation, alice, bob


def lost_after_roaming() -> tuple[Simulation, Host, Host, str]:
    """Return alice, bob, who has roamed and is back without a word, and where he was."""
    simulation, alice, bob = pair()
    home, away = bob.host.addresses, "198.51.100.7"
    alice.send(bob)
    bob.host.addresses = (away,)
    bob.send(alice)
    simulation.run(30 * SECOND)
    assert alice.status(bob).endpoint == f"{away}:{PORT}"
    bob.host.addresses = home
    return simulation, alice, bob, away


def chat(simulation: Simulation, one: Host, other: Host, duration_ns: int) -> None:
    """Send a packet every second."""
    for _ in range(duration_ns // SECOND):
        one.send(other)
        simulation.run(SECOND)


def seconds_until_received(simulation: Simulation, one: Host, other: Host, limit: int) -> float:
    """Send a packet every tenth of a second until one arrives; return how long that took."""
    began_ns, before = simulation.now_ns, len(other.received)
    while len(other.received) == before:
        assert simulation.now_ns - began_ns <= limit * SECOND, "it never arrives"
        one.send(other)
        simulation.run(SECOND // 10)
    return (simulation.now_ns - began_ns) / SECOND


def places(simulation: Simulation, sender: Host, since_ns: int = 0) -> list[str]:
    """Return where initiations went to."""
    sent = simulation.sent(INITIATION, by=sender, since_ns=since_ns)
    return [each.transit.destination.host for each in sent]


def only_to(*hosts: str) -> Callable[[Sent], tuple[int, ...]]:
    return lambda sent: (0,) if sent.transit.destination.host in hosts else ()


# -- a roamed endpoint -----------------------------------------------------------------------------


def test_a_dead_roamed_endpoint_is_given_up_for_the_configured_one() -> None:
    simulation, alice, bob, away = lost_after_roaming()
    assert alice.status(bob).configured_endpoint == str(bob.endpoint)
    began_ns = simulation.now_ns
    took = seconds_until_received(simulation, alice, bob, 30)
    assert places(simulation, alice, began_ns) == [away, bob.endpoint.host]
    assert 20 <= took <= 21, "15 seconds of silence, and 5 between initiations"
    assert alice.status(bob).endpoint == str(bob.endpoint)


def test_both_places_are_tried_in_turns_and_the_next_attempt_begins_at_the_configured_one() -> None:
    simulation, alice, bob, away = lost_after_roaming()
    simulation.run(200 * SECOND)
    began_ns = simulation.now_ns
    simulation.fate = lambda _sent: ()
    alice.send(bob)
    simulation.run(100 * SECOND)
    tried = places(simulation, alice, began_ns)
    assert len(tried) > 15
    in_turns = itertools.cycle([away, bob.endpoint.host])
    assert tried == list(itertools.islice(in_turns, len(tried)))
    assert alice.status(bob).endpoint == str(bob.endpoint)


def test_where_a_peer_is_heard_from_wins_while_others_are_tried() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    bob.host.addresses = ("198.51.100.7",)
    bob.send(alice)
    # Bob hears nothing any more, but goes on speaking.
    simulation.fate = lambda sent: () if sent.sender == "alice" else (0,)
    for _ in range(40):
        alice.send(bob)
        bob.send(alice)
        simulation.run(SECOND)
        assert alice.status(bob).endpoint == f"198.51.100.7:{PORT}"


# -- a name ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_name_that_has_moved_is_followed(is_restarted: bool) -> None:
    simulation, alice, bob = named_pair()
    old = bob.endpoint.host
    bob.host.addresses = ("198.51.100.7",)
    alice.names["bob.example"] = [bob.endpoint]
    if is_restarted:
        for is_up in (False, True):
            bob.device.set_link_up(is_up, simulation.clock.now())
    began_ns = simulation.now_ns
    took = seconds_until_received(simulation, alice, bob, 30)
    if is_restarted:
        assert places(simulation, alice, began_ns) == [old, "198.51.100.7"]
        assert 20 <= took <= 21, "15 seconds of silence, and 5 between initiations"
    else:
        assert 15 <= took <= 16, "the session goes on as soon as the name is looked up"
    assert [(at_ns - began_ns) // SECOND for at_ns, _ in alice.lookups] == [15]
    assert alice.status(bob).endpoint == f"198.51.100.7:{PORT}"
    assert alice.status(bob).configured_endpoint == NAME


def test_a_name_that_moves_late_is_followed_thirty_seconds_later() -> None:
    simulation, alice, bob = named_pair()
    bob.host.addresses = ("198.51.100.7",)
    chat(simulation, alice, bob, 17 * SECOND)
    alice.names["bob.example"] = [bob.endpoint]
    assert seconds_until_received(simulation, alice, bob, 35) <= 30


def test_a_silent_peer_is_looked_up_every_thirty_seconds_at_most() -> None:
    simulation, alice, bob = named_pair()
    simulation.fate = lambda _sent: ()
    began_ns = simulation.now_ns
    chat(simulation, alice, bob, 300 * SECOND)
    times = [at_ns for at_ns, _ in alice.lookups]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert times[0] - began_ns <= 15 * SECOND + JITTER
    assert all(30 * SECOND <= gap <= 36 * SECOND for gap in gaps)
    assert alice.failure(FailureReason.HOST_NOT_FOUND, bob) is None


def test_a_name_whose_addresses_stay_changes_nothing() -> None:
    simulation, alice, bob = named_pair()
    home = bob.endpoint
    simulation.fate = lambda _sent: ()
    chat(simulation, alice, bob, 60 * SECOND)
    assert len(alice.lookups) == 2
    assert set(places(simulation, alice)) == {home.host}
    simulation.fate = lambda _sent: (0,)
    seconds_until_received(simulation, alice, bob, 6)


def test_an_idle_tunnel_with_a_name_does_nothing_at_all() -> None:
    simulation, alice, _bob = named_pair()
    simulation.run(600 * SECOND)
    count = len(simulation.log)
    alice.names["bob.example"] = [Endpoint("198.51.100.7", PORT)]
    assert simulation.next_deadline() is None
    simulation.run(24 * HOUR)
    assert alice.lookups == []
    assert len(simulation.log) == count


def test_a_busy_tunnel_with_a_name_never_looks_it_up() -> None:
    simulation, alice, bob = named_pair()
    for _ in range(600):
        alice.send(bob)
        bob.send(alice)
        simulation.run(SECOND)
    assert alice.lookups == []


def test_a_peer_that_answers_while_its_name_moves_stays_where_it_is() -> None:
    simulation, alice, bob = named_pair()
    simulation.run(200 * SECOND)
    simulation.fate = lambda sent: () if sent.kind == INITIATION else (0,)
    alice.send(bob)
    simulation.run(5 * SECOND + JITTER)
    assert len(alice.lookups) == 1
    home = alice.status(bob).endpoint
    simulation.fate = lambda _sent: (0,)
    simulation.run(6 * SECOND)
    assert alice.status(bob).has_session
    simulation.run(60 * SECOND)
    alice.device.resolved(
        bob.public_key,
        "bob.example",
        PORT,
        [Endpoint("198.51.100.7", PORT)],
        simulation.clock.now(),
    )
    assert alice.status(bob).endpoint == home


def test_a_name_server_that_lies_for_a_while_does_not_lose_the_peer() -> None:
    simulation, alice, bob = named_pair()
    simulation.run(200 * SECOND)
    alice.names["bob.example"] = [Endpoint("198.51.100.66", PORT)]
    simulation.fate = lambda _sent: ()
    chat(simulation, alice, bob, 20 * SECOND)
    assert "198.51.100.66" in places(simulation, alice)
    alice.names.clear()
    simulation.fate = only_to(bob.endpoint.host, alice.endpoint.host)
    assert seconds_until_received(simulation, alice, bob, 12) > 0
    assert alice.status(bob).endpoint == str(bob.endpoint)


def test_routes_that_flap_cause_a_lookup_every_five_seconds_at_most() -> None:
    simulation, alice, bob = named_pair()
    simulation.run(200 * SECOND)
    alice.host.addresses = ()
    alice.send(bob)
    for _ in range(600):
        simulation.run(SECOND // 10)
        alice.device.network_changed((), simulation.clock.now())
    assert 2 <= len(alice.lookups) <= 13


def test_a_lookup_that_fails_is_a_failure_and_is_tried_again() -> None:
    simulation, alice, bob = named_pair()
    alice.names.clear()
    bob.host.addresses = ("198.51.100.7",)
    chat(simulation, alice, bob, 40 * SECOND)
    failure = alice.failure(FailureReason.HOST_NOT_FOUND, bob)
    assert failure is not None and failure.count == 1
    assert failure.detail == NAME
    alice.names["bob.example"] = [bob.endpoint]
    assert seconds_until_received(simulation, alice, bob, 30) <= 20


def test_an_endpoint_that_is_set_forgets_the_name() -> None:
    simulation, alice, bob = named_pair()
    alice.change_peer(bob, endpoint=bob.endpoint)
    assert alice.status(bob).configured_endpoint == str(bob.endpoint)
    simulation.fate = lambda _sent: ()
    chat(simulation, alice, bob, 100 * SECOND)
    assert alice.lookups == []


def test_a_bad_host_is_refused_whole() -> None:
    _simulation, alice, bob = pair()
    for text in ("no port", "bob.example:0", "bob.example:65536", ":1", "a\nb:1"):
        with pytest.raises(ConfigurationError) as refused:
            alice.configure(fwmark=7, peers=(PeerChange(bob.public_key, endpoint_host=text),))
        assert refused.value.errno == errno.EINVAL
    assert alice.device.settings().fwmark == 0


# -- a name and no address yet ---------------------------------------------------------------------


def nameless_pair() -> tuple[Simulation, Host, Host]:
    """Return alice, who knows nothing but bob's name, and bob."""
    simulation = Simulation()
    alice = simulation.host("alice", "192.0.2.1", "10.0.0.1")
    bob = simulation.host("bob", "192.0.2.2", "10.0.0.2")
    alice.add_peer(bob, endpoint=False, endpoint_host=NAME)
    bob.add_peer(alice, endpoint=False)
    return simulation, alice, bob


def test_a_peer_with_only_a_name_is_looked_up_when_it_is_needed() -> None:
    simulation, alice, bob = nameless_pair()
    alice.names["bob.example"] = [bob.endpoint]
    simulation.run(HOUR)
    assert alice.lookups == []
    packet = alice.send(bob)
    assert bob.received == [packet]
    assert len(alice.lookups) == 1


def test_a_name_that_cannot_be_found_yet_is_looked_up_again_for_ninety_seconds() -> None:
    simulation, alice, bob = nameless_pair()
    alice.send(bob)
    simulation.run(45 * SECOND)
    alice.names["bob.example"] = [bob.endpoint]
    simulation.run(20 * SECOND)
    assert len(bob.received) == 1
    assert [at_ns // SECOND for at_ns, _ in alice.lookups] == [0, 30, 60]


def test_a_name_that_is_never_found_ends_in_silence() -> None:
    simulation, alice, bob = nameless_pair()
    alice.send(bob)
    simulation.run(100 * SECOND)
    assert alice.status(bob).staged_packets == 0
    assert simulation.next_deadline() is None
    failure = alice.failure(FailureReason.HOST_NOT_FOUND, bob)
    assert failure is not None and failure.count == len(alice.lookups) == 3


def test_an_endpoint_that_is_set_meanwhile_is_used_at_once() -> None:
    simulation, alice, bob = nameless_pair()
    packet = alice.send(bob)
    simulation.run(SECOND)
    alice.change_peer(bob, endpoint=bob.endpoint)
    simulation.settle()
    assert bob.received == [packet]


def test_a_network_that_comes_up_makes_it_look_again() -> None:
    simulation, alice, bob = nameless_pair()
    packet = alice.send(bob)
    simulation.run(7 * SECOND)
    alice.names["bob.example"] = [bob.endpoint]
    alice.device.network_changed((), simulation.clock.now())
    simulation.run(0)
    assert bob.received == [packet]


# -- IPv4 and IPv6 ---------------------------------------------------------------------------------


def test_a_family_without_a_route_is_passed_over_at_once() -> None:
    simulation, alice, bob = pair()
    six = bob.add_ipv6(SIX)
    alice.names["bob.example"] = [six, bob.endpoint]
    alice.change_peer(bob, endpoint=six, endpoint_host=NAME)
    packet = alice.send(bob)  # alice has no IPv6 at all
    assert bob.received == [packet]
    assert alice.status(bob).endpoint == str(bob.endpoint)
    assert simulation.now_ns == 0


def test_a_family_whose_packets_get_lost_costs_a_lookup_and_a_retry() -> None:
    simulation, alice, bob = pair()
    alice.add_ipv6("2001:db8::1")
    six = bob.add_ipv6(SIX)
    alice.names["bob.example"] = [six, bob.endpoint]
    alice.change_peer(bob, endpoint=six, endpoint_host=NAME)
    simulation.fate = only_to("192.0.2.1", "192.0.2.2")
    packet = alice.send(bob)
    simulation.run(2 * (5 * SECOND + JITTER))
    assert bob.received == [packet]
    assert places(simulation, alice) == [SIX, SIX, "192.0.2.2"]


def test_a_route_that_is_lost_amid_a_session_leads_to_the_other_family() -> None:
    simulation, alice, bob = pair()
    alice.add_ipv6("2001:db8::1")
    six = bob.add_ipv6(SIX)
    alice.names["bob.example"] = [six, bob.endpoint]
    alice.change_peer(bob, endpoint=six, endpoint_host=NAME)
    alice.send(bob)
    assert alice.status(bob).endpoint == str(six)
    simulation.run(10 * SECOND)
    alice.host.addresses = ("192.0.2.1",)
    (peer,) = alice.device.peer_ids()
    alice.device.network_changed({peer}, simulation.clock.now())
    simulation.settle()
    assert alice.status(bob).endpoint == str(bob.endpoint)
    packet = alice.send(bob)
    assert bob.received[-1] == packet


def test_a_full_queue_is_no_reason_to_look_elsewhere() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    bob.host.addresses = ("198.51.100.7",)
    bob.send(alice)
    simulation.run(200 * SECOND)
    alice.sockets[0].send_errors.append(errno.ENOBUFS)
    alice.send(bob)
    assert alice.status(bob).endpoint == f"198.51.100.7:{PORT}"


# -- our own network -------------------------------------------------------------------------------


def test_an_initiation_that_never_left_goes_out_when_the_network_is_there() -> None:
    simulation, alice, bob = pair()
    alice.host.addresses = ()
    packet = alice.send(bob)
    simulation.run(SECOND)
    alice.device.network_changed((), simulation.clock.now())
    simulation.run(0)
    assert bob.received == []
    alice.host.addresses = ("192.0.2.1",)
    alice.device.network_changed((), simulation.clock.now())
    simulation.run(0)
    assert bob.received == [packet]
    assert simulation.now_ns == SECOND
    assert alice.device.status(simulation.clock.now()).handshakes.initiated == 1
    assert alice.failure(FailureReason.NOT_ANSWERED, bob) is None
    assert alice.failure(FailureReason.SEND_FAILED, bob) is not None


def test_an_initiation_that_is_out_is_not_repeated_within_five_seconds() -> None:
    simulation, alice, bob = pair()
    simulation.fate = lambda _sent: ()
    alice.send(bob)
    for _ in range(40):
        simulation.run(SECOND)
        alice.device.network_changed(alice.device.peer_ids(), simulation.clock.now())
    times = [sent.at_ns for sent in simulation.sent(INITIATION)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(5 * SECOND <= gap <= 5 * SECOND + JITTER for gap in gaps)
    assert len(times) == 8


def test_changes_all_the_time_do_not_keep_an_attempt_alive_nor_in_one_place() -> None:
    simulation, alice, bob = named_pair()
    simulation.run(200 * SECOND)
    alice.names["bob.example"] = [bob.endpoint, Endpoint("198.51.100.7", PORT)]
    simulation.fate = lambda _sent: ()
    began_ns = simulation.now_ns
    alice.send(bob)
    for _ in range(300):
        simulation.run(SECOND // 2)
        alice.device.network_changed((), simulation.clock.now())
    tried = places(simulation, alice, began_ns)
    assert len(tried) <= 18
    assert set(tried) == {bob.endpoint.host, "198.51.100.7"}
    assert len(alice.lookups) <= 19


def test_a_peer_whose_way_has_changed_learns_where_we_are_now() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    simulation.run(60 * SECOND)
    alice.host.addresses = ("198.51.100.1",)
    (peer,) = alice.device.peer_ids()
    began_ns = simulation.now_ns
    alice.device.network_changed({peer}, simulation.clock.now())
    simulation.settle()
    (keepalive,) = simulation.sent(TRANSPORT, by=alice, since_ns=began_ns)
    assert keepalive.is_keepalive
    assert bob.status(alice).endpoint == f"198.51.100.1:{PORT}"
    packet = bob.send(alice)
    assert alice.received[-1] == packet


def test_a_peer_whose_way_changes_all_the_time_is_told_every_five_seconds() -> None:
    """Where answers leave another way than they come, each change of routes looks like a move."""
    simulation, alice, bob = pair()
    alice.send(bob)
    simulation.run(SECOND)
    (peer,) = alice.device.peer_ids()
    began_ns = simulation.now_ns
    for _ in range(100):
        alice.device.network_changed({peer}, simulation.clock.now())
        simulation.run(SECOND // 10)
    last_ns = simulation.now_ns
    simulation.run(60 * SECOND)
    told = simulation.sent(TRANSPORT, by=alice, since_ns=began_ns)
    assert [(each.at_ns - began_ns) // SECOND for each in told] == [0, 5, 10]
    assert told[-1].at_ns >= last_ns, "the last change is told, too"


def test_a_peer_without_a_session_is_not_woken_by_a_change() -> None:
    simulation, alice, _bob = pair()
    alice.device.network_changed(alice.device.peer_ids(), simulation.clock.now())
    simulation.run(HOUR)
    assert simulation.log == []


def test_a_persistent_keepalive_that_was_given_up_begins_anew_with_the_network() -> None:
    simulation, alice, bob = pair()
    alice.host.addresses = ()
    alice.change_peer(bob, persistent_keepalive_seconds=3600)
    simulation.run(200 * SECOND)
    assert alice.status(bob).unanswered_initiations > 0
    alice.host.addresses = ("192.0.2.1",)
    alice.device.network_changed((), simulation.clock.now())
    simulation.settle()
    assert bob.status(alice).has_session


# -- sleep -----------------------------------------------------------------------------------------


def wake_up(host: Host, asleep_ns: int) -> None:
    """Let so much time pass in which nothing runs, and wake the host up."""
    simulation = host.simulation
    simulation.clock.advance(asleep_ns)
    host.device.woke_up(simulation.clock.now(), asleep_ns)
    simulation.settle()


def test_after_a_nap_whom_we_talked_to_gets_a_keepalive() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    alice.host.addresses = ("198.51.100.1",)
    wake_up(alice, 9 * SECOND)
    assert bob.status(alice).endpoint == f"198.51.100.1:{PORT}"
    assert len(simulation.sent(INITIATION)) == 1


def test_after_a_night_whom_we_talked_to_gets_a_handshake() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    wake_up(alice, 8 * HOUR)
    assert len(simulation.sent(INITIATION)) == 2
    assert bob.status(alice).has_session


def test_after_a_night_nobody_else_is_woken() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    simulation.run(HOUR)
    count = len(simulation.log)
    wake_up(alice, 8 * HOUR)
    assert len(simulation.log) == count


def test_after_a_night_a_persistent_keepalive_speaks_at_once() -> None:
    simulation, alice, bob = pair()
    alice.change_peer(bob, persistent_keepalive_seconds=3600)
    simulation.fate = lambda _sent: ()
    simulation.run(1800 * SECOND)
    simulation.fate = lambda _sent: (0,)
    wake_up(alice, 60 * SECOND)
    assert bob.status(alice).has_session


def test_a_clock_that_is_set_costs_a_keepalive() -> None:
    simulation, alice, bob = pair()
    alice.send(bob)
    simulation.run(20 * SECOND)
    simulation.clock.step_wall_clock(-HOUR)
    count = len(simulation.log)
    wake_up(alice, 0)
    assert [sent.is_keepalive for sent in simulation.log[count:]] == [True]
    assert bob.received


def test_thousands_of_peers_that_do_not_care_are_passed_over() -> None:
    """A change costs those who wait for one, not everybody."""
    simulation = Simulation()
    alice = simulation.host("alice", "192.0.2.1", "10.0.0.1")
    peers = tuple(PeerChange(number.to_bytes(32, "big")) for number in range(2, 2002))
    alice.device.configure(DeviceChange(peers=peers), simulation.clock.now())
    asked = 0
    stamps = alice.dataplane.stamps

    def counting_stamps(peer: object) -> object:
        nonlocal asked
        asked += 1
        return stamps(peer)  # type: ignore[arg-type]

    alice.dataplane.stamps = counting_stamps  # type: ignore[method-assign,assignment]
    alice.device.network_changed((), simulation.clock.now())
    assert asked == 0


def test_thousands_of_peers_that_wait_for_the_network_do_not_all_act_in_one_turn() -> None:
    simulation = Simulation()
    alice = simulation.host("alice", "192.0.2.1", "10.0.0.1")
    alice.host.addresses = ()
    bobs = [simulation.host(f"bob{n}", f"192.0.2.{n}", f"10.0.0.{n}") for n in range(2, 102)]
    for bob in bobs:
        alice.add_peer(bob)
        bob.add_peer(alice, endpoint=False)
        alice.send(bob)
    alice.host.addresses = ("192.0.2.1",)
    alice.device.network_changed((), simulation.clock.now())
    assert simulation.sent(INITIATION, by=alice) == []
    alice.device.on_deadline(simulation.clock.now())
    assert 0 < len(simulation.sent(INITIATION, by=alice)) <= PEERS_PER_DEADLINE < len(bobs)
    simulation.run(0)
    assert all(len(bob.received) == 1 for bob in bobs)


def test_a_peer_that_cannot_be_sent_to_leaves_the_others_alone() -> None:
    """A route for IPv6 without an address of ours: EADDRNOTAVAIL, as often as we like."""
    simulation, alice, bob = pair()
    alice.add_ipv6("2001:db8::1")
    alice.sockets[1].send_errors.extend([errno.EADDRNOTAVAIL] * 10_000)
    carol = simulation.host("carol", "192.0.2.3", "10.0.0.3")
    alice.add_peer(carol)
    alice.change_peer(carol, endpoint=Endpoint("2001:db8::3", PORT), persistent_keepalive_seconds=1)
    simulation.fate = lambda _sent: ()
    for _ in range(60):
        alice.send(bob)
        simulation.run(SECOND)
    times = [each.at_ns for each in simulation.sent(INITIATION, by=alice)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) == 12
    assert all(5 * SECOND <= gap <= 5 * SECOND + JITTER for gap in gaps)
    failure = alice.failure(FailureReason.SEND_FAILED, carol)
    assert failure is not None and failure.count > 10
