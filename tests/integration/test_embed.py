"""Embedded tunnels on real TUN devices: made by the host, or handed over as a descriptor."""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.testbed.engines import NATIVE, require_engine
from tests.testbed.namespaces import Namespace, unique_name
from tests.testbed.waiting import wait_until
from wgd.addresses import Endpoint, Prefix
from wgd.configuration import AllowedIpChange, DeviceChange, PeerChange
from wgd.embed import EmbeddedTunnel
from wgd.noise.primitives import PrivateKey
from wgd.tun.linux import LinuxTun
from wgd.tun.memory import MemoryTun

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


def udp_packet(source: str, destination: str, port: int, payload: bytes) -> bytes:
    """An IPv4 packet with a datagram from port 4000, without a checksum of its own."""
    size = 28 + len(payload)
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    fields = struct.pack("!BBHHHBB", 0x45, 0, size, 0, 0, 64, 17)
    total = sum(struct.unpack("!9H", fields + addresses))
    checksum = ~(total + (total >> 16)) & 0xFFFF
    ports = struct.pack("!HHHH", 4000, port, size - 20, 0)
    return fields + struct.pack("!H", checksum) + addresses + ports + payload


def engine_threads() -> int:
    """How many threads of native engines this process has, by the names they have."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            names.append((task / "comm").read_text())
    return sum(name.startswith(("wgd-in", "wgd-out")) for name in names)


def knows(other: EmbeddedTunnel, other_key: bytes, inner: str) -> DeviceChange:
    endpoint = Endpoint("127.0.0.1", other.get().listen_port)
    allowed = AllowedIpChange(Prefix(socket.inet_aton(inner), 32))
    return DeviceChange(peers=(PeerChange(other_key, endpoint=endpoint, allowed_ips=(allowed,)),))


@pytest.mark.parametrize("queues", [1, 2])
def test_a_tun_with_offloads_gets_the_native_engine_and_one_in_memory_the_portable(
    netns: Namespace, caplog: pytest.LogCaptureFixture, queues: int
) -> None:
    require_engine(NATIVE)
    keys = os.urandom(32), os.urandom(32)
    public_keys = [PrivateKey(key).public_key for key in keys]

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as opened:
            tun = LinuxTun.create(unique_name("t"), queues=queues, offload=True)
            opened.callback(tun.close)
            memory = MemoryTun()
            opened.callback(memory.release)
            netns.add_address(tun.name, "10.9.0.1/24")
            netns.ip("link", "set", tun.name, "up")
            # A thread that was waited for is still listed for a moment.
            wait_until(lambda: engine_threads() == 0, 5, what="the end of former threads")
            native = await EmbeddedTunnel.start(tun, DeviceChange(private_key=keys[0]))
            opened.push_async_callback(native.stop)
            portable = await EmbeddedTunnel.start(memory, DeviceChange(private_key=keys[1]))
            opened.push_async_callback(portable.stop)
            wait_until(lambda: engine_threads() == 2 * queues, 5, what="threads with names")
            native.set(knows(portable, public_keys[1], "10.9.0.2"))
            portable.set(knows(native, public_keys[0], "10.9.0.1"))
            inside = opened.enter_context(netns.socket(socket.AF_INET, socket.SOCK_DGRAM))
            inside.setblocking(False)
            inside.bind(("10.9.0.1", 0))
            inside.sendto(b"there", ("10.9.0.2", 4000))
            async with asyncio.timeout(5):
                while not any(packet.endswith(b"there") for packet in memory.take()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)  # a list tells nobody
            port = inside.getsockname()[1]
            memory.inject(udp_packet("10.9.0.2", "10.9.0.1", port, b"back"))
            async with asyncio.timeout(5):
                assert await loop.sock_recv(inside, 100) == b"back"
            await native.stop()
            wait_until(lambda: engine_threads() == 0, 5, what="the end of the threads")

    with netns.entered(), caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    lines = [r.getMessage() for r in caplog.records if "event=dataplane" in r.getMessage()]
    assert [line.split()[1] for line in lines] == ["name=native", "name=portable"]
