"""Many peers in one process: `python -m tests.testbed.crowd COUNT SERVER_KEY_HEX HOST:PORT`.

1 prints the public keys, one in hex per line, then an empty line;
2 waits for a line on stdin: the server knows them now;
3 every peer makes a handshake, by switching its persistent keepalive on and off again;
4 prints `done` and stays until stdin ends.
"""

import asyncio
import os
import sys

from wgd.addresses import Endpoint
from wgd.clock import SystemClock
from wgd.configuration import DeviceChange, PeerChange
from wgd.dataplane.portable import PortableDataPlane
from wgd.net.udp import open_sockets
from wgd.noise.primitives import PrivateKey
from wgd.tun.memory import MemoryTun
from wgd.tunnel import Tunnel


def _peer() -> tuple[Tunnel, bytes]:
    """Return a tunnel of its own, up and with a key, and that public key."""
    loop = asyncio.get_running_loop()
    clock = SystemClock()
    dataplane = PortableDataPlane(MemoryTun(), clock)
    dataplane.start(loop)
    tunnel = Tunnel(
        loop,
        dataplane,
        clock=clock,
        open_sockets=open_sockets,
        source_is_valid=lambda _endpoint, _fwmark: True,
        on_gone=sys.exit,
    )
    private_key = os.urandom(32)
    tunnel.set(DeviceChange(private_key=private_key))
    tunnel.link_changed(True)
    return tunnel, PrivateKey(private_key).public_key


async def _read_line() -> bytes:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.readline)


async def _main(count: int, server: bytes, endpoint: Endpoint) -> None:
    peers = [_peer() for _ in range(count)]
    for _tunnel, public_key in peers:
        print(public_key.hex())  # noqa: T201 - the protocol of this program
    print(flush=True)  # noqa: T201
    await _read_line()
    for tunnel, _public_key in peers:
        for seconds in (60, 0):
            change = PeerChange(server, endpoint=endpoint, persistent_keepalive_seconds=seconds)
            tunnel.set(DeviceChange(peers=(change,)))
        while not tunnel.get().peers[0].last_handshake_ns:  # noqa: ASYNC110 - nobody reports it
            await asyncio.sleep(0.001)
    print("done", flush=True)  # noqa: T201
    await _read_line()


if __name__ == "__main__":
    host, _, port = sys.argv[3].rpartition(":")
    asyncio.run(_main(int(sys.argv[1]), bytes.fromhex(sys.argv[2]), Endpoint(host, int(port))))
