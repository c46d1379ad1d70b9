"""Nothing that concerns all peers is done in one go; and nobody can tell that it was not."""

import gc
import json
import weakref
from base64 import b64encode
from dataclasses import replace

import pytest

from tests.unit.simulation import SECOND, Host, Simulation
from wgd.addresses import Prefix
from wgd.configuration import AllowedIpChange, DeviceChange, DeviceState, PeerChange, PeerState
from wgd.core.device import Device, finish
from wgd.dataplane.interface import NeedsHandshake
from wgd.noise.primitives import PrivateKey
from wgd.status import json_parts
from wgd.uapi.client_protocol import set_request
from wgd.uapi.format import get_answer

MANY = 2000
TOLD_AT_ONCE = 512
STEPS_AT_ONCE = 2048


def key(number: int) -> bytes:
    return (number + 1000).to_bytes(32, "big")


def prefix(number: int) -> Prefix:
    return Prefix(b"\x0a" + number.to_bytes(3, "big"), 32)


def peers(count: int, allowed_ips: int = 1) -> tuple[PeerChange, ...]:
    return tuple(
        PeerChange(
            key(number),
            allowed_ips=tuple(
                AllowedIpChange(prefix(number * allowed_ips + n)) for n in range(allowed_ips)
            ),
        )
        for number in range(count)
    )


class Counted(Host):
    """A host that counts what its data plane is asked to do."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation, "alice", "192.0.2.1", "10.0.0.1")
        simulation.hosts.append(self)
        self.calls = 0
        for name in ("add_allowed_ip", "remove_allowed_ip", "add_peer", "stamps", "drop_keypairs"):
            self._count(name)

    def _count(self, name: str) -> None:
        method = getattr(self.dataplane, name)

        def counting(*arguments: object) -> object:
            self.calls += 1
            return method(*arguments)

        setattr(self.dataplane, name, counting)

    def slices(self, change: DeviceChange) -> list[int]:
        """Apply a change; return how many calls each slice has made."""
        counts = []
        now = self.simulation.clock.now()
        work = self.device.configure_in_slices(change, now)
        self.calls = 0
        running = next(work, False) is None
        while running:
            counts.append(self.calls)
            self.calls = 0
            try:
                work.send(now)
            except StopIteration:
                running = False
        counts.append(self.calls)
        return counts


@pytest.fixture
def simulation() -> Simulation:
    return Simulation()


@pytest.fixture
def alice(simulation: Simulation) -> Counted:
    return Counted(simulation)


@pytest.mark.parametrize(
    ("count", "allowed_ips"), [(MANY, 1), (2, 10_000)], ids=["many peers", "many prefixes"]
)
def test_every_slice_of_a_change_is_bounded(alice: Counted, count: int, allowed_ips: int) -> None:
    everything = peers(count, allowed_ips)
    again = tuple(
        PeerChange(peer.public_key, replace_allowed_ips=True, allowed_ips=peer.allowed_ips)
        for peer in everything
    )
    moved = (PeerChange(key(9999), allowed_ips=sum((p.allowed_ips for p in everything), ())),)
    removals = tuple(PeerChange(peer.public_key, remove=True) for peer in everything)
    for change in (
        DeviceChange(peers=everything),
        DeviceChange(peers=again),
        DeviceChange(peers=moved),
        DeviceChange(peers=removals),
        DeviceChange(peers=everything),
        DeviceChange(replace_peers=True, peers=everything),
        DeviceChange(replace_peers=True),
    ):
        counts = alice.slices(change)
        assert max(counts) <= STEPS_AT_ONCE + 8
    assert alice.device.state().peers == ()


def test_in_slices_comes_to_the_same_as_at_once(simulation: Simulation) -> None:
    change = DeviceChange(private_key=bytes([7]) * 32, replace_peers=True, peers=peers(600, 7))
    bob = simulation.host("bob", "192.0.2.2", "10.0.0.2")
    alice = Counted(simulation)
    assert len(alice.slices(change)) > 3
    bob.device.configure(change, simulation.clock.now())
    assert alice.device.state() == bob.device.state()


def news_for_all(device: Device, simulation: Simulation) -> None:
    now = simulation.clock.now()
    device.set_link_up(False, now)
    device.set_link_up(True, now)
    device.sockets_replaced(now)
    device.network_changed(device.peer_ids(), now)
    device.woke_up(now, SECOND)
    device.greet(now)
    device.configure(DeviceChange(private_key=bytes([9]) * 32), now)


def test_news_for_all_are_told_to_some_at_a_time(simulation: Simulation, alice: Counted) -> None:
    alice.configure(peers=peers(MANY))
    told: list[bytes] = []
    for public_key, peer in alice.device._peers.items():
        stop = peer.stop

        def stopping(public_key: bytes = public_key, stop: object = stop) -> None:
            told.append(public_key)
            stop()  # type: ignore[operator]

        peer.stop = stopping  # type: ignore[method-assign]
    alice.device.set_link_up(False, simulation.clock.now())
    before = 0
    turns = 0
    while True:
        assert 0 < len(told) - before <= TOLD_AT_ONCE
        before = len(told)
        deadline_ns = alice.device.next_deadline()
        if deadline_ns is None or deadline_ns > simulation.clock.now().boot_ns:
            break
        alice.device.on_deadline(simulation.clock.now())
        turns += 1
    assert turns >= MANY // TOLD_AT_ONCE
    assert sorted(told) == sorted(key(number) for number in range(MANY))


def test_who_has_business_before_its_turn_is_told_first(
    simulation: Simulation, alice: Counted
) -> None:
    """A flap of the link forgets the sessions of all; one of the last has a handshake meanwhile."""
    bob = simulation.host("bob", "192.0.2.2", "10.0.0.2")
    alice.configure(peers=peers(MANY))
    alice.add_peer(bob)
    bob.add_peer(alice)
    bob.send(alice)
    simulation.settle()
    (peer,) = [peer for peer in alice.device._peers.values() if peer.public_key == bob.public_key]
    assert alice.dataplane.has_session(peer.id)
    for is_up in (False, True):
        alice.device.set_link_up(is_up, simulation.clock.now())
    for private_key in (bytes([9]) * 32, alice.private_key):
        alice.configure(private_key=private_key)
    assert alice.device._news, "bob is one of those who do not know yet"
    simulation.clock.advance(6 * SECOND)
    (alice_at_bob,) = bob.device.peer_ids()
    bob.device.on_event(NeedsHandshake(alice_at_bob), simulation.clock.now())
    simulation.settle()
    assert alice.dataplane.has_session(peer.id), "and what it has now is kept"
    bob.send(alice, b"after the flap")
    simulation.settle()
    assert alice.received[-1].endswith(b"after the flap")


@pytest.mark.parametrize("private_key", [bytes([9]) * 32, bytes(32)], ids=["other", "none"])
def test_with_another_private_key_no_session_sends_even_before_its_peer_is_told(
    simulation: Simulation, alice: Counted, private_key: bytes
) -> None:
    bob = simulation.host("bob", "192.0.2.2", "10.0.0.2")
    alice.configure(peers=peers(MANY))
    alice.add_peer(bob)
    bob.add_peer(alice)
    bob.send(alice)
    simulation.settle()
    *_, bob_at_alice = alice.device.peer_ids()
    assert alice.dataplane.has_session(bob_at_alice)
    alice.configure(private_key=private_key)
    assert alice.device._news, "bob is one of those who do not know yet"
    assert not alice.dataplane.has_session(bob_at_alice)


def test_while_our_own_key_is_removed_as_a_peer_all_is_as_before(
    simulation: Simulation, alice: Counted
) -> None:
    """It takes slices when it has many allowed IPs; we are one identity or the other."""
    other = PrivateKey(bytes([9]) * 32)
    bob = simulation.host("bob", "192.0.2.2", "10.0.0.2")
    alice.add_peer(bob)
    bob.add_peer(alice)
    (own,) = peers(1, 10_000)
    alice.configure(peers=(replace(own, public_key=other.public_key),))
    bob_at_alice, _ = alice.device.peer_ids()
    now = simulation.clock.now()
    work = alice.device.configure_in_slices(DeviceChange(private_key=bytes([9]) * 32), now)
    next(work)
    bob.send(alice)
    simulation.settle()
    assert alice.dataplane.has_session(bob_at_alice)
    finish(work, now)
    assert alice.device.status(now).public_key == b64encode(other.public_key).decode()
    assert alice.device.peer_ids() == (bob_at_alice,)
    assert not alice.dataplane.has_session(bob_at_alice)


def test_who_was_heard_from_before_a_sleep_is_not_told_of_the_next_one(
    simulation: Simulation, alice: Counted
) -> None:
    bob = simulation.host("bob", "192.0.2.2", "10.0.0.2")
    alice.configure(peers=peers(MANY))
    alice.add_peer(bob)
    bob.add_peer(alice)
    bob.send(alice)
    simulation.settle()
    *_, bob_at_alice = alice.device.peer_ids()
    alice.device.woke_up(simulation.clock.now(), 0)
    alice.device.wake((bob.public_key,), simulation.clock.now())
    alice.configure(peers=tuple(PeerChange(key(number), remove=True) for number in range(MANY)))
    assert not alice.device._news, "all that are left know"
    simulation.settle()
    simulation.clock.advance(3600 * SECOND)
    before = alice.dataplane.counters(bob_at_alice).sent_packets
    alice.device.woke_up(simulation.clock.now(), 0)
    assert alice.dataplane.staged_packets(bob_at_alice) == 0
    assert alice.dataplane.counters(bob_at_alice).sent_packets == before


def test_a_link_that_flaps_is_told_once(simulation: Simulation, alice: Counted) -> None:
    alice.configure(peers=peers(MANY))
    for _ in range(10):
        news_for_all(alice.device, simulation)
        alice.configure(private_key=alice.private_key)
    turns = 0
    while alice.device._news:
        alice.device.on_deadline(simulation.clock.now())
        turns += 1
    assert turns <= MANY // TOLD_AT_ONCE + 1


def test_a_peer_that_is_removed_is_told_nothing(simulation: Simulation, alice: Counted) -> None:
    alice.configure(peers=peers(MANY))
    alice.device.set_link_up(False, simulation.clock.now())
    alice.configure(replace_peers=True)
    alice.device.on_deadline(simulation.clock.now())
    assert not alice.device._news


def test_a_removed_peer_leaves_no_cycle(alice: Counted) -> None:
    alice.configure(peers=peers(1))
    (peer,) = alice.device._peers.values()
    gone = weakref.ref(peer)
    del peer
    gc.disable()
    try:
        alice.configure(replace_peers=True)
        assert gone() is None
    finally:
        gc.enable()


def test_parts_of_a_status_are_bounded_by_allowed_ips(
    simulation: Simulation, alice: Counted
) -> None:
    alice.configure(peers=(*peers(300), *peers(2, 20_000)))
    parts = list(json_parts(alice.device.status(simulation.clock.now())))
    assert max(part.count("/32") for part in parts) <= 2 * 4096
    shown = json.loads("".join(parts))["peers"]
    assert [each["allowed_ips"] for each in shown] == [
        [str(each) for each in peer.allowed_ips] for peer in alice.device.state().peers
    ]
    assert sum(len(each["allowed_ips"]) for each in shown) == 40_000


def test_parts_of_requests_and_answers_are_bounded_by_their_lines() -> None:
    one = PeerState(key(1), allowed_ips=tuple(map(prefix, range(50_000))))
    change = DeviceChange(
        peers=(PeerChange(key(1), allowed_ips=tuple(map(AllowedIpChange, one.allowed_ips))),)
    )
    for parts, most in (
        (list(set_request(change)), 1024),
        (list(get_answer(DeviceState(peers=(one,)))), 2 * 4096),
    ):
        assert max(part.count(b"\n") for part in parts) <= most + 10
        lines = b"".join(parts).splitlines()
        found = [line for line in lines if line.startswith(b"allowed_ip=")]
        assert found == [f"allowed_ip={each}".encode() for each in one.allowed_ips]
