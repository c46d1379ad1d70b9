"""Two daemons with a bad network between them: `benchmarks/faults network` is the long form."""

import os
import shlex
import threading

import pytest

from tests.faults.bad_network import ADDRESSES, FAULTS, BadNetwork
from tests.faults.relay import LEFT, RIGHT
from tests.faults.weather import Faults
from tests.testbed import Testbed, require, wait_until
from tests.testbed.transfer import transfer

pytestmark = pytest.mark.netns

PEER = os.environ.get("WGD_TEST_PEER", "wireguard-go")
SIZE = 200_003
SECONDS = 25
"""A black hole takes the longest: TCP notices it after some retransmissions."""


@pytest.fixture
def testbed(testbed_per_engine: Testbed) -> Testbed:
    """All of this holds for every engine."""
    return testbed_per_engine


def send_under(network: BadNetwork, *names: str) -> None:
    """Send TCP from left to right, and but for a black hole back, under each of these faults."""
    left, right = network.tunnel.left, network.tunnel.right
    for name in names:
        network.relay.set_faults(FAULTS[name])
        try:
            transfer(left.home, right.home, right.inner4, SIZE, SECONDS)
            if name != "black hole":
                transfer(right.home, left.home, left.inner4, SIZE, SECONDS)
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"under {name} ({FAULTS[name]}): {error!r}") from error


def test_tcp_arrives_unchanged_whatever_the_network_does(testbed: Testbed) -> None:
    with BadNetwork(testbed, seed=1) as network:
        send_under(network, *FAULTS)
        fates = [weather.fates for weather in network.relay.weather.values()]
        assert all(
            sum(getattr(each, fate) for each in fates)
            for fate in ("lost", "duplicated", "held_back", "corrupted", "swallowed")
        ), fates


@pytest.mark.interop
def test_tcp_arrives_unchanged_at_wireguard_go(testbed: Testbed) -> None:
    command = shlex.split(PEER)
    require(command[0])
    with BadNetwork(testbed, seed=1, right_command=command) as network:
        send_under(network, "mix")


def test_pings_and_tcp_follow_a_peer_that_moves(testbed: Testbed) -> None:
    with BadNetwork(testbed, seed=2) as network:
        relay, left, right = network.relay, network.tunnel.left, network.tunnel.right
        network.tunnel.assert_works(versions=(4,))
        assert right.endpoint_of(left) == relay.endpoint(RIGHT)
        # Whoever is behind the side that moved has to speak first: the other cannot know.
        for side, mover, other in ((RIGHT, left, right), (LEFT, right, left)):
            for address in reversed(ADDRESSES[side]):
                before = relay.endpoint(side)
                relay.move(side, address)
                assert relay.endpoint(side) != before == other.endpoint_of(mover)
                for one, two in ((mover, other), (other, mover)):
                    ping = one.ping(two)
                    assert ping.is_lossless, ping.output
                assert other.endpoint_of(mover) == relay.endpoint(side)
        # Or a persistent keepalive does it, for who would never know.
        right.set_peer(left, "persistent-keepalive", "1")
        relay.move(LEFT, ADDRESSES[LEFT][1])
        wait_until(
            lambda: left.endpoint_of(right) == relay.endpoint(LEFT),
            5,
            what="right is found where it is now",
        )
        ping = left.ping(right)
        assert ping.is_lossless, ping.output
        # And in the middle of TCP.
        relay.set_faults(Faults(loss=0.02))
        done = threading.Event()

        def keep_moving() -> None:
            number = 0
            while not done.wait(0.2):
                relay.move(RIGHT, ADDRESSES[RIGHT][number % 2])
                number += 1

        moving = threading.Thread(target=keep_moving)
        moving.start()
        try:
            for _ in range(3):
                transfer(left.home, right.home, right.inner4, SIZE, SECONDS)
        finally:
            done.set()
            moving.join()
