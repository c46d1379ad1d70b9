"""Routes as the kernel of a namespace decides them."""

import sys

import pytest

from tests.testbed import Namespace, Testbed

# In another process: pyroute2 and the namespace it asks are the process's.
ASK = """
import sys
from wgd.ctl.doctor.system import Routes
with Routes() as routes:
    for prefix in sys.argv[1:]:
        print(routes.prefix_route(prefix).interface)
"""


def add_links(namespace: Namespace) -> None:
    """Add `lan` and `far`, which are up: they are joined to each other."""
    namespace.ip("link", "add", "lan", "type", "veth", "peer", "name", "far")
    for link in ("lan", "far"):
        namespace.ip("link", "set", link, "up")


def asked(namespace: Namespace, *prefixes: str) -> list[str]:
    return namespace.run(sys.executable, "-c", ASK, *prefixes).stdout.split()


@pytest.mark.parametrize(
    ("own", "prefix", "lan"),
    [
        ("192.168.0.5/24", "192.168.0.0/16", "192.168.0.0/24"),
        ("192.168.1.5/24", "192.168.0.0/16", "192.168.1.0/24"),
        ("fd00::5/64", "fd00::/32", "fd00::/64"),
    ],
)
def test_a_prefix_around_our_own_network_goes_where_its_rest_goes(
    testbed: Testbed, own: str, prefix: str, lan: str
) -> None:
    namespace = testbed.namespace()
    add_links(namespace)
    namespace.add_address("lan", own)
    namespace.ip("route", "add", prefix, "dev", "far")
    assert asked(namespace, prefix, lan) == ["far", "lan"]


def test_a_prefix_full_of_our_own_networks_is_still_asked_for(testbed: Testbed) -> None:
    namespace = testbed.namespace()
    add_links(namespace)
    namespace.add_address("lan", "10.0.0.1/25")
    namespace.add_address("lan", "10.0.0.129/25")
    assert asked(namespace, "10.0.0.0/24") == ["lan"]
