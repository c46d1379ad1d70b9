"""The daemon and wireguard-go at the two ends of a tunnel, each as initiator and as responder.

WGD_TEST_PEER names another build of wireguard-go than the one on PATH.
"""

import os
import shlex

import pytest

from tests.testbed import End, Testbed, Tunnel, only_wgd, require, wait_until
from tests.testbed.transfer import MTUS, exchange_everything, transfer

pytestmark = [pytest.mark.netns, pytest.mark.interop]

PEER = os.environ.get("WGD_TEST_PEER", "wireguard-go")


@pytest.fixture(autouse=True)
def _peer_is_there() -> None:
    require(shlex.split(PEER)[0])


@pytest.fixture
def testbed(testbed_per_engine: Testbed) -> Testbed:
    """All of this holds for every engine."""
    return testbed_per_engine


@pytest.fixture(params=["initiator", "responder"])
def role(request: pytest.FixtureRequest) -> str:
    """What our daemon is in the first handshake."""
    return str(request.param)


def build(
    bed: Testbed, role: str, *, outer: int = 4, with_preshared_key: bool = False
) -> tuple[Tunnel, End, End]:
    """Return a tunnel whose left end initiates, our end of it, and wireguard-go's."""
    other = shlex.split(PEER)
    tunnel = Tunnel.build(
        bed,
        outer=outer,
        with_preshared_key=with_preshared_key,
        left_command=other if role == "responder" else None,
        right_command=other if role == "initiator" else None,
    )
    ends = (tunnel.left, tunnel.right)
    ours, theirs = ends if role == "initiator" else ends[::-1]
    return tunnel, ours, theirs


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("with_preshared_key", [False, True], ids=["no_psk", "psk"])
def test_traffic_of_both_families(
    testbed: Testbed, role: str, outer: int, with_preshared_key: bool
) -> None:
    tunnel, ours, theirs = build(testbed, role, outer=outer, with_preshared_key=with_preshared_key)
    tunnel.assert_works()
    assert ours.endpoint_of(theirs) == theirs.outer(outer)
    assert theirs.endpoint_of(ours) == ours.outer(outer)


@pytest.mark.parametrize("inner", [4, 6])
def test_tcp_arrives_unchanged(testbed: Testbed, inner: int) -> None:
    _, ours, theirs = build(testbed, "initiator")
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        address = receiver.inner4 if inner == 4 else receiver.inner6
        transfer(sender.home, receiver.home, address, 4_000_037)


@pytest.mark.parametrize("mtu", MTUS)
def test_every_mtu(testbed: Testbed, mtu: int) -> None:
    command = shlex.split(PEER)
    tunnel = Tunnel.build(testbed, right_command=command, outer_mtu=max(1500, mtu + 80))
    exchange_everything(tunnel, mtu)


@only_wgd("link down drops the sessions")
def test_a_new_handshake_while_the_old_session_is_in_use(testbed: Testbed, role: str) -> None:
    tunnel, ours, theirs = build(testbed, role)
    for _ in range(3):
        tunnel.assert_works(versions=(4,))
        before = theirs.last_handshake_ns(ours)
        ours.bounce()
        # wireguard-go still sends with the old session: ours has to speak first.
        ping = ours.ping(theirs)
        assert ping.is_lossless, ping.output
        assert theirs.last_handshake_ns(ours) > before


def test_a_preshared_key_taken_away_counts_from_the_next_handshake(
    testbed: Testbed, role: str
) -> None:
    tunnel, ours, theirs = build(testbed, role, with_preshared_key=True)
    tunnel.assert_works(versions=(4,))
    for end, other in ((ours, theirs), (theirs, ours)):
        end.set_peer(other, "preshared-key", "/dev/null")
    tunnel.assert_works(versions=(4,))


def test_a_new_key_on_either_side(testbed: Testbed, role: str) -> None:
    tunnel, ours, theirs = build(testbed, role)
    tunnel.assert_works(versions=(4,))
    for changed, other in ((ours, theirs), (theirs, ours)):
        new = testbed.keys()
        other.daemon.wg("set", "peer", changed.keys.public, "remove")
        changed.daemon.wg("set", "private-key", testbed.file(new.private))
        changed.keys = new
        endpoint = changed.outer(4)
        other.daemon.setconf(tunnel.configuration(other, changed, endpoint), "addconf")
        ping = changed.ping(other)
        assert ping.is_lossless, ping.output
    tunnel.assert_works(versions=(4,))


def assert_found_again(roamer: End, other: End) -> None:
    ping = roamer.ping(other)
    assert ping.is_lossless, ping.output
    assert other.endpoint_of(roamer) == roamer.outer(4)
    ping = other.ping(roamer)
    assert ping.is_lossless, ping.output


def test_we_roam_to_another_address(testbed: Testbed, role: str) -> None:
    tunnel, ours, theirs = build(testbed, role)
    tunnel.assert_works(versions=(4,))
    ours.namespace.ip("address", "delete", f"{ours.outer4}/24", "dev", "eth0")
    ours.outer4 = "192.0.2.70"
    ours.namespace.add_address("eth0", f"{ours.outer4}/24")
    assert_found_again(ours, theirs)


def test_they_roam_to_another_port(testbed: Testbed, role: str) -> None:
    # Not to another address: wireguard-go (2022) goes on sending from the vanished one.
    tunnel, ours, theirs = build(testbed, role)
    tunnel.assert_works(versions=(4,))
    theirs.port = 51_950
    theirs.daemon.wg("set", "listen-port", "51950")
    assert_found_again(theirs, ours)


def test_our_tun_in_another_namespace(testbed: Testbed, role: str) -> None:
    tunnel, ours, _ = build(testbed, role)
    tunnel.assert_works(versions=(4,))
    ours.home = testbed.namespace()
    ours.daemon.ip("netns", ours.home.name)
    tunnel.give_addresses(ours)
    ours.home.ip("link", "set", "dev", ours.daemon.interface, "up")
    ours.daemon.wait_until_listening()
    ping = ours.ping(tunnel.left if ours is tunnel.right else tunnel.right)
    assert ping.is_lossless, ping.output
    tunnel.assert_works()


def test_a_restart_of_theirs(testbed: Testbed) -> None:
    tunnel, ours, theirs = build(testbed, "initiator")
    tunnel.assert_works(versions=(4,))
    theirs.daemon.socket_path.unlink()
    theirs.daemon.wait_for_end()
    theirs.daemon = testbed.daemon(theirs.namespace, command=shlex.split(PEER))
    theirs.daemon.setconf(tunnel.configuration(theirs, ours, ours.outer(4)))
    tunnel.give_addresses(theirs)
    theirs.daemon.up()
    ping = theirs.ping(ours)
    assert ping.is_lossless, ping.output
    tunnel.assert_works(versions=(4,))


def test_their_keepalive_confirms_our_session(testbed: Testbed) -> None:
    _, ours, theirs = build(testbed, "responder")
    theirs.set_peer(ours, "persistent-keepalive", "25")
    wait_until(lambda: ours.last_handshake_ns(theirs), 3, what="a handshake")
    ping = ours.ping(theirs)
    assert ping.is_lossless, ping.output
