"""What the project was founded for: a sandboxed tunnel is seen and configured from outside."""

import asyncio
import base64
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.testbed import Namespace, Testbed, only_wgd, wait_until
from tests.testbed.bed import Keys
from wgd.addresses import Endpoint, Prefix
from wgd.uapi.client import (
    AllowedIpChange,
    AsyncClient,
    Client,
    Device,
    DeviceChange,
    DeviceError,
    DeviceNotFoundError,
    Peer,
    PeerChange,
)

pytestmark = [pytest.mark.netns, only_wgd("a socket in a sandbox")]

CONTAINER = Path("Library/Containers/com.wireguard.macos.network-extension/Data")
INNER = [Prefix(socket.inet_aton(f"10.77.0.{n}"), 32) for n in (0, 1, 2)]
OUTER_PORT = 51802

Configure = Callable[[str, DeviceChange], None]


@dataclass
class Sandboxed:
    """A tunnel of a sandboxed wgd at 192.0.2.1 to another wgd at 192.0.2.2:51802.

    The outer daemon knows its peer; the sandboxed one has a key, a peer with an allowed IP, and
    neither its endpoint nor a listen port.
    """

    home: Path
    name: str
    inside: Namespace
    outside: Namespace
    other_name: str
    keys: Keys = field(repr=False)
    other_keys: Keys = field(repr=False)

    def client(self) -> Client:
        """Return a client as the user outside the sandbox has it."""
        return Client(environment={"HOME": str(self.home)})

    def device(self) -> Device:
        return self.client().device(self.name)

    def peer(self) -> Peer:
        (peer,) = self.device().peers
        return peer

    def other_peer(self) -> Peer:
        """Return the sandboxed peer as the other daemon sees it."""
        (peer,) = self.client().device(self.other_name).peers
        return peer

    def ping(self) -> None:
        for namespace, host in ((self.inside, 2), (self.outside, 1)):
            ping = namespace.ping(f"10.77.0.{host}")
            assert ping.is_lossless, ping.output


@pytest.fixture
def sandboxed(testbed: Testbed, tmp_path: Path) -> Sandboxed:
    home = tmp_path / "Users" / "user"
    (home / CONTAINER).mkdir(parents=True)
    inside, outside = testbed.namespace(), testbed.namespace()
    testbed.link(inside, outside)
    tunnel = Sandboxed(
        *(home, testbed.interface_name(), inside, outside, testbed.interface_name()),
        keys=testbed.keys(),
        other_keys=testbed.keys(),
    )
    ends = (
        (1, inside, tunnel.name, tunnel.keys, tunnel.other_keys, home / CONTAINER, None),
        (2, outside, tunnel.other_name, tunnel.other_keys, tunnel.keys, home, OUTER_PORT),
    )
    for n, namespace, name, keys, other_keys, daemon_home, port in ends:
        namespace.add_address("eth0", f"192.0.2.{n}/24")
        testbed.daemon(namespace, interface=name, environment={"HOME": str(daemon_home)})
        tunnel.client().configure(
            name,
            DeviceChange(
                private_key=raw(keys.private),
                listen_port=port,
                peers=(
                    PeerChange(
                        raw(other_keys.public), allowed_ips=(AllowedIpChange(INNER[3 - n]),)
                    ),
                ),
            ),
        )
        namespace.add_address(name, f"10.77.0.{n}/24")
        namespace.ip("link", "set", "dev", name, "up")
    wait_until(lambda: OUTER_PORT in outside.udp_ports(), what="the outer daemon listens")
    return tunnel


def raw(base64_key: str) -> bytes:
    return base64.b64decode(base64_key)


def reach(other: Keys) -> DeviceChange:
    """Return what the founding use sends first: endpoint and keepalive of a known peer."""
    peer = PeerChange(
        raw(other.public),
        update_only=True,
        endpoint=Endpoint("192.0.2.2", OUTER_PORT),
        persistent_keepalive_seconds=25,
    )
    return DeviceChange(peers=(peer,))


@pytest.fixture(params=["blocking", "asyncio"])
def configure(request: pytest.FixtureRequest, sandboxed: Sandboxed) -> Configure:
    """Configure through either client; every call is a connection of its own."""
    if request.param == "blocking":
        return sandboxed.client().configure
    client = AsyncClient(environment={"HOME": str(sandboxed.home)})
    return lambda name, change: asyncio.run(client.configure(name, change))


def test_the_founding_use(sandboxed: Sandboxed, configure: Configure) -> None:
    before = sandboxed.device()
    assert before.path == sandboxed.home / CONTAINER / f"{sandboxed.name}.sock"
    assert before.public_key == raw(sandboxed.keys.public)
    assert (before.peers[0].endpoint, before.peers[0].last_handshake_ns) == (None, 0)

    configure(sandboxed.name, reach(sandboxed.other_keys))
    configure(sandboxed.name, DeviceChange(listen_port=50505))

    # The keepalive makes the handshake: nothing else was sent.
    wait_until(lambda: sandboxed.peer().last_handshake_ns, what="the handshake")
    wait_until(lambda: sandboxed.inside.udp_ports() == {50505}, what="the new port")
    sandboxed.ping()
    after, peer = sandboxed.device(), sandboxed.peer()
    assert (after.listen_port, after.private_key) == (50505, before.private_key)
    assert peer.public_key == raw(sandboxed.other_keys.public)
    assert str(peer.endpoint) == "192.0.2.2:51802"
    assert peer.persistent_keepalive_seconds == 25
    assert peer.allowed_ips == before.peers[0].allowed_ips == (INNER[2],)
    assert min(peer.sent_bytes, peer.received_bytes) > 6 * 128  # six pings of 84 bytes, padded
    assert str(sandboxed.other_peer().endpoint) == "192.0.2.1:50505"


def test_a_session_goes_on_while_it_is_configured(
    sandboxed: Sandboxed, configure: Configure
) -> None:
    configure(sandboxed.name, reach(sandboxed.other_keys))
    sandboxed.ping()
    session = sandboxed.peer().last_handshake_ns, sandboxed.other_peer().last_handshake_ns
    assert all(session)

    configure(sandboxed.name, reach(sandboxed.other_keys))
    configure(sandboxed.name, DeviceChange(listen_port=50506))
    wait_until(lambda: sandboxed.inside.udp_ports() == {50506}, what="the new port")
    sandboxed.ping()

    now = sandboxed.peer().last_handshake_ns, sandboxed.other_peer().last_handshake_ns
    assert now == session
    assert str(sandboxed.other_peer().endpoint) == "192.0.2.1:50506"
    assert sandboxed.peer().allowed_ips == (INNER[2],)


def test_peers_are_changed_and_removed(sandboxed: Sandboxed, configure: Configure) -> None:
    key = raw(sandboxed.other_keys.public)
    allowed = Prefix.of(socket.inet_aton("10.78.0.0"), 16)
    stranger = PeerChange(bytes(range(32)), update_only=True, persistent_keepalive_seconds=25)
    change = PeerChange(key, replace_allowed_ips=True, allowed_ips=(AllowedIpChange(allowed),))
    configure(sandboxed.name, DeviceChange(peers=(stranger, change)))
    assert sandboxed.peer().allowed_ips == (allowed,)
    configure(sandboxed.name, DeviceChange(peers=(PeerChange(key, remove=True),)))
    assert sandboxed.device().peers == ()


def test_errors_are_reported(sandboxed: Sandboxed, configure: Configure) -> None:
    configure(sandboxed.name, reach(sandboxed.other_keys))
    sandboxed.ping()
    before = sandboxed.device().listen_port
    with sandboxed.inside.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        with pytest.raises(DeviceError) as caught:
            configure(sandboxed.name, DeviceChange(listen_port=taken.getsockname()[1]))
    assert caught.value.errno == errno.EADDRINUSE
    assert sandboxed.device().listen_port == before
    sandboxed.ping()
    with pytest.raises(DeviceNotFoundError):
        configure("nothing", DeviceChange(listen_port=1))
