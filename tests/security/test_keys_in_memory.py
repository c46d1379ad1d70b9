"""What Python can promise: a secret is let go as soon as nobody needs it, without the collector."""

import gc
from collections.abc import Iterator

import pytest

from tests.unit.simulation import Host, pair
from wgd.configuration import PeerChange
from wgd.core.peer import Peer
from wgd.noise.handshake import Handshake, StaticIdentity
from wgd.noise.keypair import Keypair


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive(kind: type) -> int:
    return sum(isinstance(found, kind) for found in gc.get_objects())


def remove(host: Host, other: Host) -> None:
    host.configure(peers=(PeerChange(other.public_key, remove=True),))


def test_a_removed_peer_is_freed_at_once_with_its_handshake_and_sessions() -> None:
    before = alive(Peer), alive(Handshake), alive(Keypair)
    _simulation, alice, bob = pair(preshared_key=bytes(range(32)))
    alice.send(bob)
    assert alive(Peer) == before[0] + 2
    for host, other in ((alice, bob), (bob, alice)):
        remove(host, other)
    assert (alive(Peer), alive(Handshake), alive(Keypair)) == before


def test_a_private_key_that_was_replaced_is_freed_at_once() -> None:
    _simulation, alice, bob = pair()
    alice.send(bob)
    before = alive(StaticIdentity)
    alice.configure(private_key=bytes(range(32)))
    assert alive(StaticIdentity) == before
