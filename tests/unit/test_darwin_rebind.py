"""Proves that a tunnel whose sockets have died lives on with new ones: same port, same session."""

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Iterator

import pytest

from wgd.addresses import Endpoint, Prefix
from wgd.clock import SystemClock
from wgd.configuration import AllowedIpChange, DeviceChange, PeerChange
from wgd.dataplane.portable import PortableDataPlane
from wgd.net.memory import MemoryHost, MemoryNetwork, MemorySocket
from wgd.noise.primitives import PrivateKey
from wgd.tun.memory import MemoryTun
from wgd.tunnel import Tunnel


def packet(source: str, destination: str, payload: bytes) -> bytes:
    """An IPv4 packet; nobody checks its checksum."""
    size = 20 + len(payload)
    header = bytes([0x45, 0]) + size.to_bytes(2, "big") + bytes(4) + bytes([64, 17, 0, 0])
    addresses = bytes(int(part) for text in (source, destination) for part in text.split("."))
    return header + addresses + payload


class End:
    """One tunnel on a host in memory."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: MemoryHost) -> None:
        self.host = host
        self.tun = MemoryTun()
        self.private_key = os.urandom(32)
        self.public_key = PrivateKey(self.private_key).public_key
        self.opened: list[tuple[int, MemorySocket]] = []
        """What port was asked for, and what was opened."""
        self.refusals: list[int] = []
        clock = SystemClock()
        self.dataplane = PortableDataPlane(self.tun, clock)
        self.dataplane.start(loop)
        self.tunnel = Tunnel(
            loop,
            self.dataplane,
            clock=clock,
            open_sockets=self.open_sockets,
            source_is_valid=lambda _endpoint, _fwmark: True,
            on_gone=pytest.fail,
        )

    def open_sockets(self, port: int, _fwmark: int) -> tuple[list[MemorySocket], int]:
        if self.refusals:
            number = self.refusals.pop()
            raise OSError(number, os.strerror(number))
        opened = self.host.bind(port=port)
        self.opened.append((port, opened))
        return [opened], opened.port

    @property
    def socket(self) -> MemorySocket:
        return self.opened[-1][1]

    def know(self, other: "End", address: str, endpoint: Endpoint | None) -> None:
        prefix = Prefix.of(bytes(int(part) for part in address.split(".")), 32)
        peer = PeerChange(
            other.public_key, endpoint=endpoint, allowed_ips=(AllowedIpChange(prefix),)
        )
        self.tunnel.set(DeviceChange(private_key=self.private_key, peers=(peer,)))

    def close(self) -> None:
        self.tunnel.close()
        self.dataplane.stop()
        self.tun.release()


class Pair:
    """A laptop that roams, and a server."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.network = MemoryNetwork(SystemClock())
        self.laptop = End(loop, self.network.host("laptop", "192.0.2.1"))
        self.server = End(loop, self.network.host("server", "192.0.2.9"))
        self.server.tunnel.set(DeviceChange(listen_port=51820))
        self.server.know(self.laptop, "10.0.0.1", None)
        self.laptop.know(self.server, "10.0.0.9", Endpoint("192.0.2.9", 51820))

    def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            async with asyncio.timeout(5):
                while not condition():  # noqa: ASYNC110 - a queue in memory wakes nobody
                    await asyncio.sleep(0)

        self.loop.run_until_complete(wait())

    def next_packet(self, end: End) -> bytes:
        """Return the payload of what comes out of the tunnel next."""
        taken: list[bytes] = []

        def has_come() -> bool:
            taken.extend(end.tun.take())
            return bool(taken)

        self.until(has_come)
        return taken[0][20:]

    def to_server(self, payload: bytes) -> bytes:
        """Send through the tunnel and return what comes out."""
        self.laptop.tun.inject(packet("10.0.0.1", "10.0.0.9", payload))
        return self.next_packet(self.server)

    def to_laptop(self, payload: bytes) -> bytes:
        self.server.tun.inject(packet("10.0.0.9", "10.0.0.1", payload))
        return self.next_packet(self.laptop)


@pytest.fixture
def pair() -> Iterator[Pair]:
    loop = asyncio.new_event_loop()
    pair = Pair(loop)
    yield pair
    pair.laptop.close()
    pair.server.close()
    loop.close()


def test_new_sockets_on_the_same_port_and_the_session_goes_on(pair: Pair) -> None:
    laptop, server = pair.laptop, pair.server
    server.tunnel.link_changed(True)
    laptop.tunnel.link_changed(True)
    assert pair.to_server(b"before") == b"before"
    port = laptop.tunnel.get().listen_port
    handshake_ns = laptop.tunnel.get().peers[0].last_handshake_ns
    assert handshake_ns

    # Another Wi-Fi: another address, and the old socket never sends again.
    old = laptop.socket
    laptop.host.addresses = ("198.51.100.1",)
    old.send_errors.extend([errno.ENETUNREACH] * 1000)
    laptop.tunnel.rebind()

    assert laptop.opened[-1][0] == port
    assert laptop.socket is not old
    assert laptop.tunnel.get().listen_port == port

    # The server hears of it without a word from above, and can reach the laptop at once.
    def new_address_is_known() -> bool:
        endpoint = server.tunnel.get().peers[0].endpoint
        return endpoint is not None and (endpoint.host, endpoint.port) == ("198.51.100.1", port)

    pair.until(new_address_is_known)
    assert pair.to_laptop(b"down") == b"down"
    assert pair.to_server(b"up") == b"up"
    assert laptop.tunnel.get().peers[0].last_handshake_ns == handshake_ns


def test_peers_that_were_never_heard_of_are_not_woken(pair: Pair) -> None:
    pair.laptop.tunnel.link_changed(True)
    sent: list[object] = []

    def fate(transit: object) -> tuple[int, ...]:
        sent.append(transit)
        return ()

    pair.network.fate = fate
    pair.laptop.tunnel.rebind()
    pair.loop.run_until_complete(asyncio.sleep(0))
    assert len(pair.laptop.opened) == 2
    assert sent == []


def test_a_link_that_is_down_stays_without_sockets(pair: Pair) -> None:
    pair.laptop.tunnel.rebind()
    assert pair.laptop.opened == []


def test_a_refused_rebind_is_logged_and_the_next_one_saves_the_session(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    laptop, server = pair.laptop, pair.server
    server.tunnel.link_changed(True)
    laptop.tunnel.link_changed(True)
    assert pair.to_server(b"before") == b"before"
    handshake_ns = laptop.tunnel.get().peers[0].last_handshake_ns
    port = laptop.tunnel.get().listen_port

    laptop.refusals.append(errno.EADDRINUSE)
    with caplog.at_level(logging.ERROR):
        laptop.tunnel.rebind()
    assert caplog.messages == [
        f"event=rebind_failed port={port} reason={os.strerror(errno.EADDRINUSE)}"
    ]
    assert laptop.host.sockets == {}
    laptop.tunnel.rebind()
    assert pair.to_server(b"after") == b"after"
    assert laptop.tunnel.get().listen_port == port
    assert laptop.tunnel.get().peers[0].last_handshake_ns == handshake_ns


def test_a_port_that_could_not_be_had_at_first_is_had_after_a_change_of_network(
    pair: Pair,
) -> None:
    pair.server.tunnel.link_changed(True)
    pair.laptop.refusals.append(errno.EADDRNOTAVAIL)
    pair.laptop.tunnel.link_changed(True)
    assert pair.laptop.opened == []
    pair.laptop.tunnel.rebind()
    assert pair.to_server(b"at last") == b"at last"
