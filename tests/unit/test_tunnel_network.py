"""What a tunnel does when the network under it changes: same port, same session, nobody lost."""

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

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
        self.source_is_valid = True
        self.names: dict[str, str] = {}
        clock = SystemClock()
        self.dataplane = PortableDataPlane(self.tun, clock)
        self.dataplane.start(loop)
        self.tunnel = Tunnel(
            loop,
            self.dataplane,
            clock=clock,
            open_sockets=self.open_sockets,
            source_is_valid=lambda _endpoint, _fwmark: self.source_is_valid,
            on_gone=pytest.fail,
            getaddrinfo=self.getaddrinfo,
        )

    def open_sockets(self, port: int, _fwmark: int) -> tuple[list[MemorySocket], int]:
        if self.refusals:
            number = self.refusals.pop()
            raise OSError(number, os.strerror(number))
        opened = self.host.bind(port=port)
        self.opened.append((port, opened))
        return [opened], opened.port

    def getaddrinfo(self, host: str, _port: None, **_options: object) -> list[tuple[Any, ...]]:
        return [(0, 0, 0, "", (self.names[host], 0))]

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
        f"event=rebind_failed port={port} again_after_seconds=1 "
        f"reason={os.strerror(errno.EADDRINUSE)}"
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


class Timers:
    """The loop's timers, as they are asked for; none is due before a test says so."""

    def __init__(self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self._loop = loop
        self._asked: list[tuple[float, Callable[[], None], asyncio.TimerHandle]] = []
        monkeypatch.setattr(loop, "call_later", self._call_later)

    def _call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        handle = self._loop.call_at(self._loop.time() + 3600, callback)
        self._asked.append((delay, callback, handle))
        return handle

    def pauses(self, tunnel: Tunnel) -> list[float]:
        """Return how long the tunnel waits to bind again."""
        return [
            delay
            for delay, callback, handle in self._asked
            if callback == tunnel.rebind and not handle.cancelled()
        ]

    def fire(self, tunnel: Tunnel) -> float:
        """Let the tunnel bind again; return how long it would have waited."""
        (found,) = [
            each for each in self._asked if each[1] == tunnel.rebind and not each[2].cancelled()
        ]
        self._asked.remove(found)
        found[2].cancel()
        found[1]()
        return found[0]


def test_a_refused_rebind_is_tried_again_with_growing_pauses(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop, server = pair.laptop, pair.server
    server.tunnel.link_changed(True)
    laptop.tunnel.link_changed(True)
    assert pair.to_server(b"before") == b"before"
    handshake_ns = laptop.tunnel.get().peers[0].last_handshake_ns
    with monkeypatch.context() as patch:
        timers = Timers(pair.loop, patch)
        laptop.refusals.extend([errno.EADDRINUSE] * 9)
        laptop.tunnel.rebind()
        waited = [timers.fire(laptop.tunnel) for _ in range(9)]
        assert waited == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert timers.pauses(laptop.tunnel) == [], "it has worked"
    assert pair.to_server(b"after") == b"after"
    assert laptop.tunnel.get().peers[0].last_handshake_ns == handshake_ns

    with monkeypatch.context() as patch:
        timers = Timers(pair.loop, patch)
        laptop.refusals.append(errno.EADDRINUSE)
        laptop.tunnel.rebind()
        assert timers.pauses(laptop.tunnel) == [1], "it begins anew"
        laptop.tunnel.close()
        assert timers.pauses(laptop.tunnel) == []


def test_a_link_that_came_up_without_a_port_gets_it_later(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    laptop = pair.laptop
    pair.server.tunnel.link_changed(True)
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        timers = Timers(pair.loop, patch)
        laptop.refusals.extend([errno.EMFILE] * 2)
        laptop.tunnel.link_changed(True)
        assert [record.getMessage() for record in caplog.records] == [
            "event=listen_failed port=0 again_after_seconds=1 reason=Too many open files"
        ]
        assert [timers.fire(laptop.tunnel) for _ in range(2)] == [1, 2]
        assert timers.pauses(laptop.tunnel) == [], "it has worked"
    assert pair.to_server(b"hello") == b"hello"

    laptop.tunnel.link_changed(False)
    with monkeypatch.context() as patch:
        timers = Timers(pair.loop, patch)
        laptop.refusals.append(errno.EADDRINUSE)
        laptop.tunnel.link_changed(True)
        laptop.tunnel.link_changed(False)
        assert timers.pauses(laptop.tunnel) == [], "nothing is wanted any more"


def test_a_change_while_new_sockets_are_waited_for_keeps_the_session(pair: Pair) -> None:
    laptop, server = pair.laptop, pair.server
    server.tunnel.link_changed(True)
    laptop.tunnel.link_changed(True)
    assert pair.to_server(b"before") == b"before"
    handshake_ns = laptop.tunnel.get().peers[0].last_handshake_ns
    laptop.refusals.extend([errno.EADDRINUSE] * 2)
    laptop.tunnel.rebind()
    laptop.tunnel.set(DeviceChange(fwmark=7))
    assert laptop.refusals == [], "it has tried again"
    assert laptop.tunnel.get().fwmark == 7
    assert laptop.tunnel.status().peers[0].has_session
    laptop.tunnel.set(DeviceChange(fwmark=8))
    assert pair.to_server(b"after") == b"after"
    assert laptop.tunnel.get().peers[0].last_handshake_ns == handshake_ns


def test_new_sockets_on_the_same_port_repeat_no_initiation(pair: Pair) -> None:
    """The answer to the one that is out comes to the same port; see REKEY_TIMEOUT."""
    laptop = pair.laptop
    laptop.tunnel.link_changed(True)
    laptop.tun.inject(packet("10.0.0.1", "10.0.0.9", b"nobody answers"))
    pair.until(lambda: laptop.tunnel.status().handshakes.initiated == 1)
    before_ns = laptop.tunnel._timer_ns
    laptop.tunnel.rebind()
    assert laptop.tunnel._timer_ns == before_ns


def test_after_a_sleep_the_tunnel_speaks_at_once_from_where_it_is(pair: Pair) -> None:
    laptop, server = pair.laptop, pair.server
    server.tunnel.link_changed(True)
    laptop.tunnel.link_changed(True)
    assert pair.to_server(b"before") == b"before"
    laptop.host.addresses = ("198.51.100.1",)
    laptop.tunnel.woke_up()

    def new_address_is_known() -> bool:
        endpoint = server.tunnel.get().peers[0].endpoint
        return endpoint is not None and endpoint.host == "198.51.100.1"

    pair.until(new_address_is_known)


def test_after_a_sleep_the_timer_is_set_anew(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's clock stood still: a timer that was set before would be late."""
    laptop = pair.laptop
    laptop.tunnel.link_changed(True)
    laptop.tun.inject(packet("10.0.0.1", "10.0.0.9", b"nobody answers"))
    pair.until(lambda: laptop.tunnel._timer is not None)
    before = laptop.tunnel._timer
    assert before is not None
    laptop.tunnel.woke_up()
    assert before.cancelled()
    assert laptop.tunnel._timer is not None and not laptop.tunnel._timer.cancelled()


def test_a_route_that_has_changed_is_told_to_the_peer_that_uses_it(pair: Pair) -> None:
    laptop, server = pair.laptop, pair.server
    server.tunnel.link_changed(True)
    laptop.tunnel.link_changed(True)
    assert pair.to_server(b"before") == b"before"
    sent: list[object] = []

    def fate(transit: object) -> tuple[int, ...]:
        sent.append(transit)
        return (0,)

    pair.network.fate = fate
    laptop.tunnel.routes_changed()
    assert sent == [], "the source is still right"
    laptop.host.addresses = ("198.51.100.1",)
    laptop.source_is_valid = False
    laptop.tunnel.routes_changed()

    def new_address_is_known() -> bool:
        endpoint = server.tunnel.get().peers[0].endpoint
        return endpoint is not None and endpoint.host == "198.51.100.1"

    pair.until(new_address_is_known)
    assert len(sent) == 1


def test_the_name_of_an_endpoint_is_found_by_the_tunnel(pair: Pair) -> None:
    laptop, server = pair.laptop, pair.server
    laptop.names["server.example"] = "192.0.2.9"
    server.tunnel.link_changed(True)
    laptop.tunnel.link_changed(True)
    prefix = Prefix.of(bytes([10, 0, 0, 9]), 32)
    peers = (
        PeerChange(server.public_key, remove=True),
        PeerChange(
            server.public_key,
            endpoint_host="server.example:51820",
            allowed_ips=(AllowedIpChange(prefix),),
        ),
    )
    laptop.tunnel.set(DeviceChange(peers=peers))
    assert laptop.tunnel.status().peers[0].configured_endpoint == "server.example:51820"
    assert pair.to_server(b"by name") == b"by name"
