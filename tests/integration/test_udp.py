"""The UDP sockets: one port for both families, marks, large datagrams and pinned sources."""

import errno
import os
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.integration.conftest import MakeNamespace
from tests.testbed.namespaces import Namespace, unique_name
from wgd.addresses import Endpoint, Source
from wgd.net.routes import source_is_valid
from wgd.net.udp import UdpSocket, open_sockets

pytestmark = pytest.mark.netns


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def opened(
    netns: Namespace,
    cleanup: ExitStack,
    port: int = 0,
    fwmark: int = 0,
    *,
    workers: int = 1,
    offload: bool = True,
) -> tuple[list[UdpSocket], int]:
    with netns.entered():
        sockets, bound = open_sockets(port, fwmark, workers=workers, offload=offload)
    for each in sockets:
        cleanup.callback(each.close)
    return sockets, bound


def receive(udp: UdpSocket, size: int = 65535) -> tuple[bytes, Endpoint]:
    buffer = bytearray(size)
    assert select.select([udp], [], [], 5)[0], "nothing arrived within 5 s"
    length, size, endpoint, _ = udp.receive_into(memoryview(buffer))
    assert size == length
    return bytes(buffer[:length]), endpoint


class Pair:
    """Two namespaces on a veth; `server` has two addresses of each family."""

    def __init__(self, make_netns: MakeNamespace) -> None:
        self.client, self.server = make_netns(), make_netns()
        self.client_link, self.server_link = unique_name("c"), unique_name("s")
        self.client.ip(
            *("link", "add", self.client_link, "type", "veth"),
            *("peer", "name", self.server_link, "netns", self.server.name),
        )
        for address in ("10.7.0.9/24", "fd07::9/64"):
            self.client.add_address(self.client_link, address)
        for address in ("10.7.0.1/24", "10.7.0.2/24", "fd07::1/64", "fd07::2/64"):
            self.server.add_address(self.server_link, address)
        # Without duplicate address detection link-local addresses are usable at once, too.
        for netns, link in ((self.client, self.client_link), (self.server, self.server_link)):
            netns.sysctl(f"net/ipv6/conf/{link}/accept_dad", "0")
        self.client.ip("link", "set", self.client_link, "up")
        self.server.ip("link", "set", self.server_link, "up")

    def link_local(self, netns: Namespace, link: str) -> str:
        shown = netns.ip("-6", "-o", "address", "show", "dev", link, "scope", "link").stdout
        return shown.split("inet6 ")[1].split("/")[0]

    def index(self, netns: Namespace, link: str) -> int:
        with netns.entered():
            return socket.if_nametoindex(link)


def test_a_random_port_is_the_same_for_both_families(netns: Namespace, cleanup: ExitStack) -> None:
    sockets, port = opened(netns, cleanup)
    assert [udp.is_ipv6 for udp in sockets] == [False, True]
    assert {udp.port for udp in sockets} == {port}
    assert port >= 1024
    for udp in sockets:
        assert not os.get_blocking(udp.fileno())
        assert not os.get_inheritable(udp.fileno())
        with pytest.raises(BlockingIOError):
            udp.receive_into(memoryview(bytearray(100)))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_datagrams_sent_together_are_received_together(
    netns: Namespace, cleanup: ExitStack, address: str
) -> None:
    senders, _ = opened(netns, cleanup)
    receivers, port = opened(netns, cleanup)
    sender, receiver = (
        next(udp for udp in sockets if udp.is_ipv6 == (":" in address))
        for sockets in (senders, receivers)
    )
    assert sender.max_segments == 64
    datagrams = os.urandom(10 * 1000 + 300)
    sender.send_segments(memoryview(datagrams), 1000, Endpoint(address, port))
    buffer = bytearray(65535)
    assert select.select([receiver], [], [], 5)[0]
    length, size, endpoint, _ = receiver.receive_into(memoryview(buffer))
    assert (size, bytes(buffer[:length])) == (1000, datagrams)
    assert endpoint.source is not None and endpoint.source.address == address
    # The answers leave from there, together as well.
    receiver.send_segments(memoryview(datagrams), 1000, endpoint)
    assert select.select([sender], [], [], 5)[0]
    length, size, _, _ = sender.receive_into(memoryview(buffer))
    assert (size, bytes(buffer[:length])) == (1000, datagrams)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_without_offloads_datagrams_stay_apart(
    netns: Namespace, cleanup: ExitStack, address: str
) -> None:
    senders, _ = opened(netns, cleanup)
    receivers, port = opened(netns, cleanup, offload=False)
    sender, receiver = (
        next(udp for udp in sockets if udp.is_ipv6 == (":" in address))
        for sockets in (senders, receivers)
    )
    assert receiver.max_segments == 1
    datagrams = os.urandom(3 * 1000)
    sender.send_segments(memoryview(datagrams), 1000, Endpoint(address, port))
    for start in (0, 1000, 2000):
        assert receive(receiver)[0] == datagrams[start : start + 1000]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_every_datagram_has_its_traffic_class(
    netns: Namespace, cleanup: ExitStack, address: str
) -> None:
    senders, _ = opened(netns, cleanup)
    receivers, port = opened(netns, cleanup)
    sender, receiver = (
        next(udp for udp in sockets if udp.is_ipv6 == (":" in address))
        for sockets in (senders, receivers)
    )
    there = Endpoint(address, port)
    sender.send(b"handshake", there, 0x88)
    sender.send_segments(memoryview(bytes(3000)), 1000, there, 1)
    # Of one sender and size, but of another class: the kernel must not join them.
    sender.send_segments(memoryview(bytes(3000)), 1000, there, 3)
    sender.send(bytes(1000), there)
    received = []
    for _ in range(4):
        assert select.select([receiver], [], [], 5)[0]
        length, size, endpoint, traffic_class = receiver.receive_into(memoryview(bytearray(65535)))
        assert endpoint.source is not None and endpoint.source.address == address
        received.append((length, size, traffic_class))
    assert received == [(9, 9, 0x88), (3000, 1000, 1), (3000, 1000, 3), (1000, 1000, 0)]
    # From a pinned source, too.
    sender_address = endpoint._replace(port=sender.port)
    receiver.send(b"answer", sender_address, 0x88)
    assert select.select([sender], [], [], 5)[0]
    assert sender.receive_into(memoryview(bytearray(100)))[3] == 0x88


# -- several sockets of one family -----------------------------------------------------------------


@pytest.mark.parametrize("port", [0, 5555])
def test_every_worker_has_a_socket_of_each_family_on_one_port(
    netns: Namespace, cleanup: ExitStack, port: int
) -> None:
    sockets, bound = opened(netns, cleanup, port, workers=3)
    assert {udp.port for udp in sockets} == {bound}
    assert bound == port or port == 0
    assert sorted(udp.is_ipv6 for udp in sockets) == [False] * 3 + [True] * 3
    assert len({udp.fileno() for udp in sockets}) == 6


def test_each_sender_is_always_heard_by_the_same_of_several_sockets(
    netns: Namespace, cleanup: ExitStack
) -> None:
    sockets, port = opened(netns, cleanup, workers=3)
    receivers = [udp for udp in sockets if not udp.is_ipv6]
    heard: dict[int, int] = {}
    for n in range(60):
        with netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect(("127.0.0.1", port))
            chosen = set()
            for _ in range(3):
                sender.send(b"x")
                (ready,) = select.select(receivers, [], [], 5)[0]
                receive(ready)
                chosen.add(ready.fileno())
            (heard[n],) = chosen
    assert len(set(heard.values())) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_that_others_share_is_busy(
    netns: Namespace, cleanup: ExitStack, workers: int
) -> None:
    _sockets, port = opened(netns, cleanup, workers=2)
    with pytest.raises(OSError, match="in use") as caught:
        opened(netns, cleanup, port, workers=workers)
    assert caught.value.errno == errno.EADDRINUSE


def test_socket_buffers_go_beyond_the_systems_limit(netns: Namespace, cleanup: ExitStack) -> None:
    sockets, _port = opened(netns, cleanup)
    for udp in sockets:
        with socket.socket(fileno=os.dup(udp.fileno())) as same:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                # The kernel doubles the value for its own bookkeeping.
                assert same.getsockopt(socket.SOL_SOCKET, option) == 2 * 7 * 1024 * 1024


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_busy_port_is_an_error_and_leaves_nothing_open(
    netns: Namespace, cleanup: ExitStack, family: socket.AddressFamily
) -> None:
    blocker = cleanup.enter_context(netns.socket(family, socket.SOCK_DGRAM))
    if family == socket.AF_INET6:
        blocker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    blocker.bind(("", 5555))
    with pytest.raises(OSError, match="5555") as caught:
        opened(netns, cleanup, 5555)
    assert caught.value.errno == errno.EADDRINUSE
    blocker.close()
    _sockets, port = opened(netns, cleanup, 5555)
    assert port == 5555


def test_a_random_port_avoids_those_taken_in_the_other_family(
    netns: Namespace, cleanup: ExitStack
) -> None:
    netns.sysctl("net/ipv4/ip_local_port_range", "40000 40003")
    for port in (40000, 40001, 40003):
        blocker = cleanup.enter_context(netns.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        blocker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        blocker.bind(("::", port))
    _sockets, port = opened(netns, cleanup)
    assert port == 40002
    with pytest.raises(OSError, match="no UDP port") as caught:
        opened(netns, cleanup)
    assert caught.value.errno == errno.EADDRINUSE


def test_a_host_with_ipv6_disabled_still_speaks_ipv4(netns: Namespace, cleanup: ExitStack) -> None:
    netns.sysctl("net/ipv6/conf/all/disable_ipv6", "1")
    (first, *_rest), port = opened(netns, cleanup)
    first.send(b"hello", Endpoint("127.0.0.1", port))
    assert receive(first)[0] == b"hello"


@pytest.mark.parametrize("missing", [socket.AF_INET, socket.AF_INET6])
def test_one_family_is_enough(
    netns: Namespace,
    cleanup: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    missing: socket.AddressFamily,
) -> None:
    """The kernel here has both; a kernel without one refuses the socket like this."""
    real = socket.socket

    class Lacking(real):  # type: ignore[misc, valid-type]  # a class held in a variable
        def __init__(self, family: int = -1, *rest: int, **named: int) -> None:
            if family == missing:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *rest, **named)

    monkeypatch.setattr(socket, "socket", Lacking)
    sockets, port = opened(netns, cleanup)
    assert [udp.is_ipv6 for udp in sockets] == [missing == socket.AF_INET]
    assert sockets[0].port == port


def test_the_mark_is_set_changed_and_cleared(netns: Namespace, cleanup: ExitStack) -> None:
    sockets, _port = opened(netns, cleanup, fwmark=0xCA6C)
    udp = sockets[0]
    with socket.socket(fileno=os.dup(udp.fileno())) as same:
        for mark in (0x1234, 0xFFFFFFFF, 0):
            assert same.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) != mark
            udp.set_fwmark(mark)
            got = same.getsockopt(socket.SOL_SOCKET, socket.SO_MARK, 4)
            assert int.from_bytes(got, "little") == mark


def test_the_mark_decides_the_route(make_netns: MakeNamespace, cleanup: ExitStack) -> None:
    pair = Pair(make_netns)
    sockets, _port = opened(pair.client, cleanup)
    pair.client.ip("rule", "add", "fwmark", "0x77", "unreachable")
    udp, to = sockets[0], Endpoint("10.7.0.1", 9)
    udp.send(b"x", to)
    udp.set_fwmark(0x77)
    with pytest.raises(OSError) as caught:
        udp.send(b"x", to)
    assert caught.value.errno == errno.ENETUNREACH


@pytest.mark.parametrize(("host", "which"), [("127.0.0.1", 0), ("::1", 1)])
@pytest.mark.parametrize("size", [0, 1, 1452, 65507])
def test_any_size_of_datagram_arrives_whole(
    netns: Namespace, cleanup: ExitStack, host: str, which: int, size: int
) -> None:
    sockets, port = opened(netns, cleanup)
    datagram = os.urandom(size)
    sockets[which].send(datagram, Endpoint(host, port))
    assert receive(sockets[which]) == (datagram, Endpoint(host, port, 0, Source(host, 1)))


def test_a_datagram_longer_than_the_buffer_has_length_zero(
    netns: Namespace, cleanup: ExitStack
) -> None:
    sockets, port = opened(netns, cleanup)
    to = Endpoint("127.0.0.1", port)
    for size, expected in ((101, b""), (100, bytes(100))):
        sockets[0].send(bytes(size), to)
        assert receive(sockets[0], 100)[0] == expected


@pytest.mark.parametrize(
    ("which", "client", "asked"),
    [
        (0, "10.7.0.9", "10.7.0.1"),
        (0, "10.7.0.9", "10.7.0.2"),
        (1, "fd07::9", "fd07::1"),
        (1, "fd07::9", "fd07::2"),
    ],
)
def test_answers_leave_from_the_address_that_was_asked_while_it_is_ours(
    make_netns: MakeNamespace, cleanup: ExitStack, which: int, client: str, asked: str
) -> None:
    pair = Pair(make_netns)
    clients, client_port = opened(pair.client, cleanup)
    servers, port = opened(pair.server, cleanup)
    clients[which].send(b"question", Endpoint(asked, port))
    _data, seen = receive(servers[which])
    index = pair.index(pair.server, pair.server_link)
    assert seen == Endpoint(client, client_port, 0, Source(asked, index))

    servers[which].send(b"answer", seen)
    data, answered_by = receive(clients[which])
    assert (data, answered_by.host) == (b"answer", asked)
    with pair.server.entered():
        assert source_is_valid(seen, 0)

    length = 24 if which == 0 else 64
    pair.server.ip("address", "del", f"{asked}/{length}", "dev", pair.server_link)
    if which == 0 and asked == "10.7.0.1":  # a deleted primary takes its secondaries with it
        pair.server.add_address(pair.server_link, "10.7.0.2/24")
    with pytest.raises(OSError) as caught:
        servers[which].send(b"answer", seen)
    assert caught.value.errno in (errno.EINVAL, errno.ENETUNREACH)
    with pair.server.entered():
        assert not source_is_valid(seen, 0)

    servers[which].send(b"unpinned", seen._replace(source=None))
    data, answered_by = receive(clients[which])
    assert (data, answered_by.host != asked) == (b"unpinned", True)


def test_link_local_endpoints_carry_their_scope_both_ways(
    make_netns: MakeNamespace, cleanup: ExitStack
) -> None:
    pair = Pair(make_netns)
    (_v4, client), client_port = opened(pair.client, cleanup)
    (_v4, server), port = opened(pair.server, cleanup)
    theirs = pair.link_local(pair.client, pair.client_link)
    ours = pair.link_local(pair.server, pair.server_link)
    client.send(b"q", Endpoint(ours, port, pair.index(pair.client, pair.client_link)))
    _data, seen = receive(server)
    index = pair.index(pair.server, pair.server_link)
    assert seen == Endpoint(theirs, client_port, index, Source(ours, index))
    server.send(b"a", seen)
    assert receive(client)[1].host == ours
    with pair.server.entered():
        assert source_is_valid(seen, 0)
        pair.server.ip("link", "set", pair.server_link, "down")
        assert not source_is_valid(seen, 0)


def test_more_peers_than_are_remembered_are_all_told_apart(
    netns: Namespace, cleanup: ExitStack
) -> None:
    sockets, port = opened(netns, cleanup)
    udp = sockets[0]
    senders = [f"127.0.{high}.{low}" for high in range(1, 21) for low in range(1, 251)]
    for address in senders:
        udp.send(b"x", Endpoint("127.0.0.1", port, 0, Source(address, 1)))
        assert receive(udp, 10)[1].host == address
    assert len(udp._received) <= 4096
    assert len(udp._sent) <= 4096
