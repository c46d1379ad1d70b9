"""The client library against running daemons: the one under test, and wireguard-go."""

import asyncio
import base64
import errno
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.testbed import Daemon, Testbed, Tunnel, require, wait_until
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

pytestmark = pytest.mark.netns

NO_KEY = bytes(32)


@pytest.fixture(params=["wgd", "wireguard-go"])
def command(request: pytest.FixtureRequest) -> list[str] | None:
    """What starts the daemon; None is the one under test."""
    if request.param == "wgd":
        return None
    require("wireguard-go")
    return ["wireguard-go"]


@pytest.fixture
def daemon(testbed: Testbed, command: list[str] | None) -> Daemon:
    daemon = testbed.daemon(testbed.namespace(), command=command)
    daemon.up()
    return daemon


def raw(base64_key: str) -> bytes:
    return base64.b64decode(base64_key)


def shown(daemon: Daemon, what: str) -> str:
    return daemon.wg("show", what).strip()


def test_all_that_is_configured_is_seen_by_wg_and_by_both_clients(
    testbed: Testbed, daemon: Daemon
) -> None:
    keys, peer, other = testbed.keys(), testbed.keys(), testbed.keys()
    preshared = testbed.preshared_key()
    networks = (Prefix(bytes([10, 1, 0, 0]), 16), Prefix(b"\xfd" + bytes(15), 64))
    change = DeviceChange(
        private_key=raw(keys.private),
        listen_port=51999,
        fwmark=42,
        replace_peers=True,
        peers=(
            PeerChange(
                raw(peer.public),
                preshared_key=raw(preshared),
                endpoint=Endpoint("2001:db8::7", 4242),
                persistent_keepalive_seconds=25,
                replace_allowed_ips=True,
                allowed_ips=tuple(AllowedIpChange(network) for network in networks),
            ),
            PeerChange(raw(other.public)),
        ),
    )
    client = Client(timeout_seconds=10)
    client.configure(daemon.interface, change)

    assert shown(daemon, "private-key") == keys.private
    assert shown(daemon, "listen-port") == "51999"
    assert shown(daemon, "fwmark") == "0x2a"
    assert f"{peer.public}\t{preshared}" in shown(daemon, "preshared-keys")
    assert f"{peer.public}\t[2001:db8::7]:4242" in shown(daemon, "endpoints")
    assert f"{peer.public}\t25" in shown(daemon, "persistent-keepalive")

    device = client.device(daemon.interface)
    assert (device.name, device.path) == (daemon.interface, daemon.socket_path)
    assert (device.private_key, device.public_key) == (raw(keys.private), raw(keys.public))
    assert (device.listen_port, device.fwmark) == (51999, 42)
    peers = {each.public_key: each for each in device.peers}
    assert set(peers) == {raw(peer.public), raw(other.public)}
    assert peers[raw(other.public)] == Peer(raw(other.public))
    full = peers[raw(peer.public)]
    assert full.preshared_key == raw(preshared)
    assert full.endpoint == Endpoint("2001:db8::7", 4242)
    assert full.persistent_keepalive_seconds == 25
    assert set(full.allowed_ips) == set(networks)
    assert full.last_handshake_ns == 0

    seen = asyncio.run(AsyncClient(timeout_seconds=10).device(daemon.interface))
    assert (seen.private_key, seen.listen_port) == (device.private_key, 51999)
    assert {each.public_key for each in seen.peers} == set(peers)


def test_peers_are_changed_and_removed_one_by_one(testbed: Testbed, daemon: Daemon) -> None:
    first, second, third = (raw(testbed.keys().public) for _ in range(3))
    client = Client(timeout_seconds=10)

    def peers() -> dict[bytes, Peer]:
        return {peer.public_key: peer for peer in client.device(daemon.interface).peers}

    network = (AllowedIpChange(Prefix(bytes([10, 2, 0, 0]), 16)),)
    client.configure(
        daemon.interface,
        DeviceChange(peers=(PeerChange(first, allowed_ips=network), PeerChange(second))),
    )
    assert peers()[first].allowed_ips == (Prefix(bytes([10, 2, 0, 0]), 16),)
    client.configure(
        daemon.interface,
        DeviceChange(
            peers=(
                PeerChange(first, remove=True),
                PeerChange(second, allowed_ips=network),
                PeerChange(third, update_only=True),
            )
        ),
    )
    assert set(peers()) == {second}
    assert peers()[second].allowed_ips == (Prefix(bytes([10, 2, 0, 0]), 16),)
    client.configure(daemon.interface, DeviceChange(private_key=NO_KEY, replace_peers=True))
    device = client.device(daemon.interface)
    assert (device.private_key, device.public_key, device.peers) == (NO_KEY, NO_KEY, ())


def test_five_thousand_peers(daemon: Daemon) -> None:
    expected = {os.urandom(32) for _ in range(5000)}
    change = DeviceChange(peers=tuple(map(PeerChange, expected)))

    async def scenario() -> Device:
        client = AsyncClient(timeout_seconds=30)
        await client.configure(daemon.interface, change)
        return await client.device(daemon.interface)

    device = asyncio.run(scenario())
    assert {peer.public_key for peer in device.peers} == expected


def test_a_refusal_names_device_socket_and_cure(daemon: Daemon) -> None:
    busy = daemon.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with busy:
        busy.bind(("0.0.0.0", 0))
        port = busy.getsockname()[1]
        with pytest.raises(DeviceError, match=r"EADDRINUSE.*choose a listen port") as caught:
            Client(timeout_seconds=10).configure(daemon.interface, DeviceChange(listen_port=port))
    assert caught.value.errno == errno.EADDRINUSE
    assert f"{daemon.interface} ({daemon.socket_path})" in str(caught.value)


@pytest.fixture
def stopped(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon that is there and hangs."""
    pid = daemon.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield daemon
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_daemon_that_hangs_does_not_hide_the_others(testbed: Testbed, stopped: Daemon) -> None:
    healthy = testbed.daemon(stopped.namespace)
    failed: dict[str, DeviceError] = {}
    devices = Client(timeout_seconds=1).devices(
        on_error=lambda found, error: failed.update({found.name: error})
    )
    names = {device.name for device in devices}
    assert healthy.interface in names
    assert stopped.interface not in names
    assert failed[stopped.interface].errno == errno.ETIMEDOUT
    assert asyncio.run(AsyncClient(timeout_seconds=1).device(healthy.interface)).peers == ()


def test_a_daemon_that_has_ended(daemon: Daemon) -> None:
    client = Client()
    assert daemon.interface in client.names()
    daemon.signal(signal.SIGTERM)
    daemon.wait_for_end()
    assert daemon.interface not in client.names()
    with pytest.raises(DeviceNotFoundError, match=daemon.interface):
        client.device(daemon.interface)


def test_an_endpoint_and_a_port_change_without_a_new_session(
    testbed: Testbed, command: list[str] | None
) -> None:
    """What a NAT traversal helper does: the endpoint of an existing peer, then the port."""
    tunnel = Tunnel.build(testbed, left_command=command, left_knows_right=False)
    left, right = tunnel.left, tunnel.right
    name, client = left.daemon.interface, Client(timeout_seconds=10)
    (before,) = client.device(name).peers
    assert before.endpoint is None
    client.configure(
        name,
        DeviceChange(
            peers=(
                PeerChange(
                    before.public_key,
                    update_only=True,
                    endpoint=Endpoint(right.outer4, right.port),
                    persistent_keepalive_seconds=25,
                ),
            )
        ),
    )
    # The keepalive goes out at once, and asks for a session.
    wait_until(lambda: client.device(name).peers[0].last_handshake_ns, what="the handshake")
    tunnel.assert_works(versions=(4,))
    (after,) = client.device(name).peers
    assert set(after.allowed_ips) == set(before.allowed_ips)
    assert len(after.allowed_ips) == 2

    client.configure(name, DeviceChange(listen_port=40000))
    assert client.device(name).listen_port == 40000
    tunnel.assert_works(versions=(4,))
    (moved,) = client.device(name).peers
    assert moved.last_handshake_ns == after.last_handshake_ns
    assert moved.received_bytes > after.received_bytes
    assert right.endpoint_of(left) == f"{left.outer4}:40000"
