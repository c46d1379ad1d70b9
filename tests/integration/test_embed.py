"""An embedded tunnel on the descriptor of a real TUN follows the link that its host controls."""

import asyncio
import os

import pytest

from tests.testbed.namespaces import Namespace, unique_name
from wgd.configuration import DeviceChange
from wgd.embed import EmbeddedTunnel
from wgd.tun.linux import LinuxTun

pytestmark = pytest.mark.netns


def test_a_tunnel_on_a_descriptor_follows_its_link(netns: Namespace) -> None:
    name = unique_name("wg")

    async def port_is(tunnel: EmbeddedTunnel, bound: bool) -> None:
        async with asyncio.timeout(5):
            while (tunnel.get().listen_port in netns.udp_ports()) is not bound:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # nobody tells when a port is bound

    async def scenario() -> None:
        gone = asyncio.Event()
        host = LinuxTun.create(name)
        fd = os.dup(host.fileno())
        host.close()
        tunnel = await EmbeddedTunnel.start_from_fd(
            fd, DeviceChange(private_key=os.urandom(32)), on_gone=lambda _reason: gone.set()
        )
        netns.ip("link", "set", name, "up")
        await port_is(tunnel, True)
        netns.ip("link", "set", name, "down")
        await port_is(tunnel, False)
        netns.ip("link", "delete", name)
        async with asyncio.timeout(5):
            await gone.wait()
        await tunnel.stop()

    with netns.entered():
        asyncio.run(scenario())
