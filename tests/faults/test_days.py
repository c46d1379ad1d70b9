"""Days in which everything goes wrong: `benchmarks/faults days` lives through thousands."""

import pytest

from tests.faults import days
from tests.faults.watch import Watch
from tests.faults.weather import Faults, Weather
from tests.unit.simulation import INITIATION, RESPONSE, SECOND, Sent, ip_packet, pair


@pytest.mark.parametrize("seed", range(12))
def test_a_day_of_faults_ends_in_a_working_tunnel_and_then_in_silence(
    seed: int, engine: str
) -> None:
    days.live(seed, engine)


@pytest.mark.parametrize("seed", range(4))
def test_keys_are_renewed_in_time_where_every_third_handshake_message_is_lost(seed: int) -> None:
    """There are 60 s from the renewal to the end of a session: eleven attempts."""
    simulation, alice, bob = pair(seed)
    weather = Weather(seed, Faults(loss=0.3))

    def fate(sent: Sent) -> tuple[int, ...]:
        is_lost = sent.kind in (INITIATION, RESPONSE) and not weather.copies(sent.transit.datagram)
        return () if is_lost else (0,)

    alice.send(bob)
    simulation.fate = fate
    sent = []
    while simulation.now_ns < 2000 * SECOND:
        sent += [alice.send(bob, simulation.now_ns.to_bytes(8, "big"))]
        bob.send(alice)
        simulation.run(2 * SECOND)
    assert bob.received[1:] == sent
    assert len(alice.received) == len(sent)
    assert weather.fates.lost > 5
    assert len(simulation.sent(RESPONSE)) > 2000 // 130


def test_a_plan_depends_on_nothing_but_its_seed() -> None:
    assert days.plan(7) == days.plan(7) != days.plan(8)
    assert days.live(3).recovered_ns == days.live(3).recovered_ns


def test_a_failure_is_cut_down_to_the_steps_that_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link flap that forgets nothing else: whoever initiates again is caught."""
    monkeypatch.setattr(Watch, "may_initiate_at_once", lambda _watch, _host: None)
    plan = days.plan
    monkeypatch.setattr(days, "plan", lambda seed: plan(seed)[-20:])
    seed = next(seed for seed in range(100) if days.fails(seed))
    steps, error = days.shortest(seed)
    assert "initiates again" in error
    assert 0 < len(steps) < len(days.plan(seed)) / 2
    assert {step.name for step in steps} & {"link", "key", "port"}


def test_the_watch_sees_what_must_not_be() -> None:
    watch = Watch()
    one, other, third = (ip_packet("10.0.0.1", "10.0.0.2", bytes([n]) * 9) for n in range(3))
    for packet in (one, other, third):
        watch.packet_sent("alice", "hub", packet)
    with pytest.raises(AssertionError, match="what was for hub"):
        watch.packet_came("road", one)
    with pytest.raises(AssertionError, match="changed"):
        watch.packet_came("hub", other[:-1])
    watch.packet_came("hub", third)
    with pytest.raises(AssertionError, match="twice"):
        watch.packet_came("hub", third)
    watch.keypair_installed(b"key")
    with pytest.raises(AssertionError, match="used again"):
        watch.keypair_installed(b"key")
    day = days.Day(1)
    hub, alice, _road = day.nodes
    packet = day.say(hub, alice)
    day.run(SECOND)
    assert day.watch.has_come(packet)
    assert day.last_sent is not None
    with pytest.raises(AssertionError, match="nonce"):
        day.watch.datagram_sent(hub, day.last_sent.transit.datagram, day.now_ns)
