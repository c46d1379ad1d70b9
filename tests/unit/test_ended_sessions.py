"""Keys that others may have are not used again: after a suspend, and in a copy of a machine."""

import pytest

from tests.unit.simulation import (
    INITIATION,
    MILLISECOND,
    RESPONSE,
    SECOND,
    TRANSPORT,
    Host,
    Sent,
    Simulation,
    pair,
)


def sleep(host: Host, asleep_ns: int) -> None:
    """Let so much time pass in which nothing runs, and wake the host up."""
    host.simulation.clock.advance(asleep_ns)
    host.device.woke_up(host.simulation.clock.now(), asleep_ns)


def indices(messages: list[Sent]) -> set[bytes]:
    """The receiver indices that transport messages were for: each stands for a session."""
    return {sent.transit.datagram[4:8] for sent in messages}


def talking_pair() -> tuple[Simulation, Host, Host]:
    simulation, alice, bob = pair()
    alice.send(bob)
    bob.send(alice)
    assert alice.status(bob).has_session and bob.status(alice).has_session
    simulation.log.clear()
    return simulation, alice, bob


# -- a suspend -------------------------------------------------------------------------------------


def test_a_suspend_of_ten_seconds_ends_the_session_and_begins_another_at_once() -> None:
    simulation, alice, bob = talking_pair()
    state, now_ns = alice.device.state(), simulation.now_ns
    sleep(alice, 10 * SECOND)
    assert not alice.status(bob).has_session
    simulation.settle()
    assert [sent.kind for sent in simulation.log[:3]] == [INITIATION, RESPONSE, TRANSPORT]
    assert simulation.log[2].at_ns == now_ns + 10 * SECOND
    assert alice.status(bob).has_session and bob.status(alice).has_session
    # The configuration is what it was.
    after = alice.device.state()
    assert (after.private_key, after.listen_port) == (state.private_key, state.listen_port)
    assert after.peers[0].allowed_ips == state.peers[0].allowed_ips
    assert alice.status(bob).endpoint == str(bob.endpoint)
    packet = bob.send(alice)
    assert alice.received[-1] == packet


@pytest.mark.parametrize("asleep_ns", [0, 10 * SECOND - 1], ids=["clock set", "nap"])
def test_a_shorter_one_and_a_set_clock_end_nothing(asleep_ns: int) -> None:
    simulation, alice, bob = talking_pair()
    sleep(alice, asleep_ns)
    simulation.settle()
    assert alice.status(bob).has_session
    assert simulation.sent(INITIATION) == []


def test_what_was_sealed_before_a_suspend_is_not_opened_after_it() -> None:
    simulation, alice, bob = talking_pair()
    simulation.fate = lambda sent: () if sent.sender == "alice" else (20 * SECOND,)
    bob.send(alice)  # and is on its way while alice sleeps
    received = len(alice.received)
    sleep(alice, 20 * SECOND)
    simulation.settle()
    assert len(alice.received) == received


def test_a_handshake_that_a_suspend_came_between_is_begun_anew() -> None:
    simulation, alice, bob = pair()
    simulation.fate = lambda sent: (15 * SECOND,) if sent.sender == "bob" else (0,)
    packet = alice.send(bob)
    simulation.fate = lambda _sent: (0,)
    sleep(alice, 15 * SECOND)
    simulation.settle()
    # The late response found nothing; what was staged waited for the second handshake.
    first, second = simulation.sent(INITIATION)
    assert first.transit.datagram[8:40] != second.transit.datagram[8:40]
    assert bob.received == [packet]
    assert alice.status(bob).has_session


def test_a_handshake_that_was_begun_before_the_suspend_was_noticed_goes_on() -> None:
    simulation, alice, bob = talking_pair()
    simulation.clock.advance(200 * SECOND)
    alice.send(bob)  # the first thing after the resume, and only then the notice comes
    assert len(simulation.sent(INITIATION)) == 1
    alice.device.woke_up(simulation.clock.now(), 200 * SECOND)
    simulation.settle()
    assert len(simulation.sent(INITIATION)) == 1
    assert alice.status(bob).has_session


@pytest.mark.parametrize("had_session", [False, True])
def test_an_initiation_on_its_way_when_a_suspend_is_noticed_is_not_repeated(
    had_session: bool,
) -> None:
    simulation, alice, bob = talking_pair() if had_session else pair()
    simulation.run(200 * SECOND)
    simulation.log.clear()
    bob.received.clear()
    simulation.fate = lambda _sent: (SECOND,)
    packet = alice.send(bob)
    alice.device.woke_up(simulation.clock.now(), 160 * SECOND)
    simulation.run(4 * SECOND)
    assert len(simulation.sent(INITIATION)) == 1
    assert bob.received == [packet]


def test_whom_nobody_talked_to_is_not_woken() -> None:
    simulation, alice, bob = talking_pair()
    simulation.run(1000 * SECOND)
    simulation.log.clear()
    sleep(alice, 3600 * SECOND)
    simulation.settle()
    assert simulation.log == []
    alice.send(bob)
    assert alice.status(bob).has_session


def test_a_suspend_while_the_link_is_down_is_nothing() -> None:
    simulation, alice, _bob = talking_pair()
    alice.device.set_link_up(False, simulation.clock.now())
    sleep(alice, 60 * SECOND)
    simulation.settle()
    assert simulation.log == []


# -- a copy of the machine -------------------------------------------------------------------------


def test_a_copy_sends_nothing_under_the_keys_of_the_original() -> None:
    simulation, alice, bob = talking_pair()
    alice.send(bob)
    before = indices(simulation.sent(TRANSPORT, by=alice))
    alice.device.cloned(simulation.clock.now())
    assert not alice.status(bob).has_session
    simulation.settle()
    simulation.log.clear()
    packets = [alice.send(bob), alice.send(bob)]
    simulation.run(50 * MILLISECOND)
    assert bob.received[-2:] == packets
    assert len(simulation.sent(INITIATION, by=alice)) == 1
    assert not before & indices(simulation.sent(TRANSPORT, by=alice))


def test_a_copy_still_opens_what_arrives() -> None:
    simulation, alice, bob = talking_pair()
    alice.device.cloned(simulation.clock.now())
    simulation.fate = lambda sent: (0,) if sent.sender == "bob" else ()
    packet = bob.send(alice)
    assert alice.received[-1] == packet


def test_an_initiation_of_the_original_is_not_completed_by_the_copy() -> None:
    simulation, alice, bob = pair()
    simulation.fate = lambda sent: (SECOND,) if sent.sender == "bob" else (0,)
    packet = alice.send(bob)
    simulation.run(SECOND // 2)
    alice.device.cloned(simulation.clock.now())
    simulation.fate = lambda _sent: (0,)
    simulation.run(10 * SECOND)
    first, second = simulation.sent(INITIATION, by=alice)
    assert first.transit.datagram[8:40] != second.transit.datagram[8:40]
    assert bob.received == [packet]


def test_a_copy_says_nothing_by_itself() -> None:
    simulation, alice, _bob = talking_pair()
    alice.device.cloned(simulation.clock.now())
    simulation.settle()
    assert simulation.log == []


def test_all_peers_of_a_copy_are_safe_at_once() -> None:
    simulation = Simulation()
    alice = simulation.host("alice", "192.0.2.1", "10.0.0.1")
    others = [simulation.host(f"{n}", f"198.51.100.{n}", f"10.0.1.{n}") for n in range(1, 101)]
    for other in others:
        alice.add_peer(other)
        other.add_peer(alice)
        alice.send(other)
    alice.device.cloned(simulation.clock.now())
    assert not any(alice.status(other).has_session for other in others)
    simulation.settle()
