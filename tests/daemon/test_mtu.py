"""Traffic at many MTUs, every byte compared: both engines, and one against the other."""

import pytest

from tests.testbed import Testbed, Tunnel
from tests.testbed.engines import NATIVE, PORTABLE, require_engine
from tests.testbed.transfer import MTUS, exchange_everything

pytestmark = pytest.mark.netns

PAIRS = [(PORTABLE, PORTABLE), (NATIVE, NATIVE), (NATIVE, PORTABLE)]


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The engines of the left and the right end."""
    left, right = request.param
    require_engine(left)
    require_engine(right)
    return left, right


@pytest.mark.parametrize("mtu", MTUS)
def test_everything_arrives_unchanged(testbed: Testbed, pair: tuple[str, str], mtu: int) -> None:
    left, right = pair
    tunnel = Tunnel.build(
        testbed, left_engine=left, right_engine=right, outer_mtu=max(1500, mtu + 80)
    )
    exchange_everything(tunnel, mtu)
    for end in (tunnel.left, tunnel.right):
        assert "offload_off" not in end.daemon.program.output  # nothing here gives a reason to


def test_a_path_that_becomes_too_narrow_for_what_is_sealed(
    testbed: Testbed, pair: tuple[str, str]
) -> None:
    # Then the datagrams are fragmented outside, and cannot leave as segments of one.
    left, right = pair
    tunnel = Tunnel.build(testbed, left_engine=left, right_engine=right, outer_mtu=9000)
    exchange_everything(tunnel, 8920)
    for end in (tunnel.left, tunnel.right):
        end.namespace.ip("link", "set", "dev", "eth0", "mtu", "1500")
    exchange_everything(tunnel, 8920)
    for end in (tunnel.left, tunnel.right):
        end.daemon.program.wait_for_output("event=offload_off name=udp_gso ")
        assert end.daemon.program.output.count("event=offload_off name=udp_gso ") == 1
