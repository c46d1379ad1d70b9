"""Proves what the macOS UDP sockets ask of the kernel, and how they read its control messages."""

import errno
import socket
import struct
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from wgd.addresses import Endpoint, Source
from wgd.net.darwin_udp import DarwinUdpSocket, SendFailures, open_sockets, source_is_valid

# struct in_pktinfo {u32 ipi_ifindex; in_addr ipi_spec_dst, ipi_addr}: XNU leaves spec_dst zero
RECEIVED_IPV4 = (0, 26, struct.pack("=I", 4) + bytes(4) + bytes([192, 0, 2, 7]))
# struct in6_pktinfo {in6_addr ipi6_addr; u32 ipi6_ifindex}
RECEIVED_IPV6 = (41, 46, b"\xfd\x07" + bytes(13) + b"\x02" + struct.pack("=I", 4))
RECEIVED_LINK_LOCAL = (41, 46, b"\xfe\x80" + bytes(13) + b"\x02" + struct.pack("=I", 4))


class FakeSocket:
    """What a socket of macOS would answer; `made` keeps all of them."""

    made: ClassVar[list["FakeSocket"]] = []
    max_buffer = 8 * 1024 * 1024
    without: ClassVar[set[int]] = set()
    taken: ClassVar[list[int]] = []

    def __init__(self, family: int, kind: int, *_: object) -> None:
        if family in self.without:
            raise OSError(errno.EAFNOSUPPORT, "no such family")
        self.family, self.kind = family, kind
        self.options: list[tuple[int, int, int]] = []
        self.is_blocking = True
        self.bound: tuple[Any, ...] | None = None
        self.is_closed = False
        self.incoming: list[tuple[bytes, list[tuple[int, int, bytes]], int, tuple[Any, ...]]] = []
        self.sent: list[tuple[bytes, list[tuple[int, int, bytes]], tuple[Any, ...]]] = []
        self.errors: list[int] = []
        self.made.append(self)

    def setblocking(self, flag: bool) -> None:
        self.is_blocking = flag

    def setsockopt(self, level: int, option: int, value: int) -> None:
        is_buffer = level == socket.SOL_SOCKET and option in (socket.SO_RCVBUF, socket.SO_SNDBUF)
        if is_buffer and value > self.max_buffer:
            raise OSError(errno.ENOBUFS, "No buffer space available")
        self.options.append((level, option, value))

    def bind(self, address: tuple[Any, ...]) -> None:
        port = address[1] or 50_000 + len(self.made)
        if port in self.taken:
            self.taken.remove(port)
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self.bound = (address[0], port)

    def getsockname(self) -> tuple[Any, ...]:
        assert self.bound is not None
        return self.bound

    def close(self) -> None:
        self.is_closed = True

    def __enter__(self) -> "FakeSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def recvmsg_into(
        self, buffers: tuple[memoryview], space: int
    ) -> tuple[int, list[tuple[int, int, bytes]], int, tuple[Any, ...]]:
        assert space >= socket.CMSG_SPACE(20)
        datagram, ancillary, flags, address = self.incoming.pop(0)
        buffers[0][: len(datagram)] = datagram
        return len(datagram), ancillary, flags, address

    def _fail(self) -> None:
        if self.errors and (number := self.errors.pop(0)):
            raise OSError(number, "")

    def sendmsg(
        self,
        buffers: tuple[bytes],
        ancillary: list[tuple[int, int, bytes]],
        flags: int,
        address: tuple[Any, ...],
    ) -> None:
        assert flags == 0
        self._fail()
        self.sent.append((bytes(buffers[0]), ancillary, address))

    def sendto(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        self._fail()
        self.sent.append((bytes(datagram), [], address))


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeSocket]]:
    for name, value in (("made", []), ("without", set()), ("taken", [])):
        monkeypatch.setattr(FakeSocket, name, value)
    monkeypatch.setattr(FakeSocket, "max_buffer", 8 * 1024 * 1024)
    monkeypatch.setattr(socket, "socket", FakeSocket)
    yield FakeSocket.made


def opened(family: int = socket.AF_INET) -> tuple[DarwinUdpSocket, FakeSocket]:
    udp = DarwinUdpSocket(socket.AddressFamily(family), 0, SendFailures())
    return udp, FakeSocket.made[-1]


def test_both_families_share_a_port_and_ask_for_packet_information() -> None:
    sockets, port = open_sockets(51820, SendFailures())
    assert port == 51820
    assert [udp.is_ipv6 for udp in sockets] == [False, True]
    assert [udp.max_segments for udp in sockets] == [1, 1]
    ipv4, ipv6 = FakeSocket.made
    assert ipv4.bound == ("0.0.0.0", 51820)
    assert ipv6.bound == ("::", 51820)
    assert (0, 26, 1) in ipv4.options  # IP_PKTINFO
    assert (41, 61, 1) in ipv6.options  # IPV6_RECVPKTINFO
    assert (41, socket.IPV6_V6ONLY, 1) in ipv6.options
    for fake in (ipv4, ipv6):
        assert fake.kind == socket.SOCK_DGRAM  # macOS has no SOCK_NONBLOCK to add
        assert not fake.is_blocking


def test_a_random_port_that_one_family_has_in_use_is_not_taken() -> None:
    FakeSocket.taken[:] = [50_001]
    _sockets, port = open_sockets(0, SendFailures())
    assert port == 50_002
    assert [fake.bound for fake in FakeSocket.made if not fake.is_closed] == [
        ("0.0.0.0", 50_002),
        ("::", 50_002),
    ]


def test_a_port_in_use_leaves_nothing_open() -> None:
    FakeSocket.taken[:] = [51820]
    with pytest.raises(OSError, match="UDP port 51820 is in use") as caught:
        open_sockets(51820, SendFailures())
    assert caught.value.errno == errno.EADDRINUSE
    assert all(fake.is_closed for fake in FakeSocket.made)


def test_a_host_without_ipv6() -> None:
    FakeSocket.without.add(socket.AF_INET6)
    sockets, _port = open_sockets(51820, SendFailures())
    assert [udp.is_ipv6 for udp in sockets] == [False]


@pytest.mark.parametrize(
    ("limit", "granted"), [(8, 7), (6, 4), (2, 2), (1, 1)], ids=lambda value: f"{value}MiB"
)
def test_the_largest_buffers_the_system_grants(
    monkeypatch: pytest.MonkeyPatch, limit: int, granted: int
) -> None:
    monkeypatch.setattr(FakeSocket, "max_buffer", limit * 1_048_576)
    _udp, fake = opened()
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        assert (socket.SOL_SOCKET, option, granted * 1_048_576) in fake.options


def test_small_buffers_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSocket, "max_buffer", 1000)
    _udp, fake = opened()
    assert fake.bound is not None


def test_a_fwmark_does_nothing() -> None:
    udp, fake = opened()
    before = list(fake.options)
    udp.set_fwmark(0xFFFFFFFF)
    udp.set_fwmark(0)
    assert fake.options == before


def test_where_an_ipv4_datagram_came_to_is_the_source_of_the_answer() -> None:
    udp, fake = opened()
    fake.incoming.append((b"question", [RECEIVED_IPV4], 0, ("198.51.100.1", 1234)))
    buffer = bytearray(100)
    length, size, sender, _ = udp.receive_into(memoryview(buffer))
    assert (bytes(buffer[:length]), size) == (b"question", 8)
    assert sender == Endpoint("198.51.100.1", 1234, 0, Source("192.0.2.7", 4))
    udp.send(b"answer", sender)
    # Without interface index, or XNU ignores the address, which it takes from ipi_spec_dst.
    answer = (0, 26, bytes(4) + bytes([192, 0, 2, 7]) + bytes(4))
    assert fake.sent == [(b"answer", [answer], ("198.51.100.1", 1234))]


@pytest.mark.parametrize(
    ("received", "address", "index"),
    [(RECEIVED_IPV6, "fd07::2", 0), (RECEIVED_LINK_LOCAL, "fe80::2", 4)],
)
def test_where_an_ipv6_datagram_came_to_is_the_source_of_the_answer(
    received: tuple[int, int, bytes], address: str, index: int
) -> None:
    udp, fake = opened(socket.AF_INET6)
    fake.incoming.append((b"question", [received], 0, ("fe80::9", 1234, 0, 4)))
    _length, _size, sender, _ = udp.receive_into(memoryview(bytearray(100)))
    assert sender == Endpoint("fe80::9", 1234, 4, Source(address, 4))
    udp.send(b"answer", sender)
    answer = (41, 46, received[2][:16] + struct.pack("=I", index))
    assert fake.sent == [(b"answer", [answer], ("fe80::9", 1234, 0, 4))]


def test_the_same_peer_at_two_addresses_of_ours() -> None:
    udp, fake = opened()
    other = (0, 26, struct.pack("=I", 5) + bytes(4) + bytes([192, 0, 2, 8]))
    for ancillary in ([RECEIVED_IPV4], [other], [], [RECEIVED_IPV4]):
        fake.incoming.append((b"x", ancillary, 0, ("198.51.100.1", 1234)))
    sources = [udp.receive_into(memoryview(bytearray(9)))[2].source for _ in range(4)]
    first = Source("192.0.2.7", 4)
    assert sources == [first, Source("192.0.2.8", 5), None, first]


def test_without_a_pinned_source_the_kernel_chooses() -> None:
    udp, fake = opened()
    udp.send(b"first", Endpoint("198.51.100.1", 1234))
    assert fake.sent == [(b"first", [], ("198.51.100.1", 1234))]


def test_a_datagram_longer_than_the_buffer_has_length_zero() -> None:
    udp, fake = opened()
    fake.incoming.append((b"cut", [RECEIVED_IPV4], int(socket.MSG_TRUNC), ("198.51.100.1", 1)))
    assert udp.receive_into(memoryview(bytearray(3)))[:2] == (0, 0)


@pytest.mark.parametrize("length", [0, 4, 11, 13])
def test_odd_control_messages_are_no_source(length: int) -> None:
    udp, fake = opened()
    fake.incoming.append((b"x", [(0, 26, bytes(length))], 0, ("198.51.100.1", 1)))
    assert udp.receive_into(memoryview(bytearray(3)))[2].source is None


def test_batches_are_refused() -> None:
    udp, _fake = opened()
    with pytest.raises(OSError, match="not supported"):
        udp.send_segments(memoryview(b"ab"), 1, Endpoint("198.51.100.1", 1))


def test_failures_in_a_row_are_a_storm_whatever_the_family() -> None:
    storms: list[str] = []
    failures = SendFailures()
    failures.on_storm = lambda: storms.append("storm")
    sockets, _port = open_sockets(51820, failures)
    ipv4, ipv6 = FakeSocket.made
    ipv4.errors = [errno.ENETUNREACH, 0, errno.EADDRNOTAVAIL, errno.ENETUNREACH]
    ipv6.errors = [errno.EHOSTUNREACH]

    def send(which: int) -> None:
        host = "fd07::1" if which else "198.51.100.1"
        try:
            sockets[which].send(b"x", Endpoint(host, 1))
        except OSError as error:
            assert error.errno in (51, 101, 65, 113, 49, 99)  # macOS's numbers and Linux's

    for which in (0, 0, 0, 0):
        send(which)
    assert storms == []  # one went through in between
    send(1)
    assert storms == ["storm"]
    ipv4.errors = [errno.ENETUNREACH] * 6
    for _ in range(6):
        send(0)
    assert storms == ["storm"] * 3


@pytest.mark.parametrize("number", [errno.EMSGSIZE, errno.ENOBUFS, errno.EAGAIN, errno.EPERM])
def test_other_failures_are_no_storm(number: int) -> None:
    failures = SendFailures()
    failures.on_storm = lambda: pytest.fail("no network change would help")
    for _ in range(10):
        failures.failed(OSError(number, ""))


def test_a_source_is_valid_while_it_can_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[tuple[Any, ...]] = []

    def bind(self: FakeSocket, address: tuple[Any, ...]) -> None:
        bound.append(address)
        if address[0] == "192.0.2.8":
            raise OSError(errno.EADDRNOTAVAIL, "")

    monkeypatch.setattr(FakeSocket, "bind", bind)
    peer = Endpoint("198.51.100.1", 1)
    assert source_is_valid(peer, 0)
    assert source_is_valid(peer._replace(source=Source("192.0.2.7", 4)), 0)
    assert not source_is_valid(peer._replace(source=Source("192.0.2.8", 4)), 0)
    assert source_is_valid(Endpoint("fd07::1", 1, 0, Source("fd07::2", 4)), 0)
    assert source_is_valid(Endpoint("fe80::1", 1, 4, Source("fe80::2", 4)), 0)
    assert bound == [
        ("192.0.2.7", 0),
        ("192.0.2.8", 0),
        ("fd07::2", 0, 0, 0),
        ("fe80::2", 0, 0, 4),
    ]
    assert all(fake.is_closed for fake in FakeSocket.made)
