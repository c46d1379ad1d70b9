"""What only the kernel's WireGuard did: congestion marks, marked handshakes, and answers to those
whose packets have nowhere to go. Between real daemons, seen from outside.
"""

import errno
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.testbed import End, Testbed, Tunnel, only_wgd, require
from tests.testbed.namespaces import Namespace

pytestmark = [pytest.mark.netns, only_wgd("the manners of the kernel")]

NOT_ECT, ECT_1, ECT_0, CE = range(4)
AF41 = 0x88
INITIATION, RESPONSE, TRANSPORT = 1, 2, 4

IP_RECVTOS = 13  # linux/in.h
ETH_P_ALL = 3


@pytest.fixture
def testbed(testbed_per_engine: Testbed) -> Testbed:
    return testbed_per_engine


class Sniffer:
    """Sees the WireGuard messages on a namespace's eth0: their types and outer traffic classes."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = namespace.socket(
            socket.AddressFamily(socket.AF_PACKET), socket.SocketKind(socket.SOCK_RAW)
        )
        self._socket.bind(("eth0", ETH_P_ALL))
        self._socket.settimeout(5)

    def next(self) -> tuple[int, int]:
        """Return type and traffic class of the next message."""
        while True:
            frame = self._socket.recv(65_535)[14:]
            if frame[0] >> 4 == 4 and frame[9] == socket.IPPROTO_UDP:
                return frame[28], frame[1]
            if frame[0] >> 4 == 6 and frame[6] == socket.IPPROTO_UDP:
                return frame[48], int.from_bytes(frame[:2], "big") >> 4 & 0xFF

    def next_of(self, kind: int) -> int:
        """Return the traffic class of the next message of this type."""
        while True:
            found, traffic_class = self.next()
            if found == kind:
                return traffic_class

    def close(self) -> None:
        self._socket.close()


@contextmanager
def sniffing(namespace: Namespace) -> Iterator[Sniffer]:
    sniffer = Sniffer(namespace)
    try:
        yield sniffer
    finally:
        sniffer.close()


class Flow:
    """Datagrams from one end to the other through the tunnel, with any inner traffic class."""

    def __init__(self, sender: End, receiver: End, version: int) -> None:
        self._is_ipv6 = version == 6
        family = socket.AF_INET6 if self._is_ipv6 else socket.AF_INET
        self._sender = sender.home.socket(family, socket.SOCK_DGRAM)
        self._receiver = receiver.home.socket(family, socket.SOCK_DGRAM)
        address = receiver.inner6 if self._is_ipv6 else receiver.inner4
        self._receiver.bind((address, 0))
        self._address = self._receiver.getsockname()[:2]
        if self._is_ipv6:
            self._receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        else:
            self._receiver.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)

    def send(self, traffic_class: int) -> None:
        if self._is_ipv6:
            self._sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
        else:
            self._sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)
        self._sender.sendto(bytes([traffic_class]), self._address)

    def received(self, timeout_seconds: float) -> tuple[int, int] | None:
        """Return what class the next datagram was sent with and came with; None if none comes."""
        if not select.select([self._receiver], [], [], timeout_seconds)[0]:
            return None
        data, ancillary, _, _ = self._receiver.recvmsg(10, 100)
        (_, _, value) = ancillary[0]
        came_with = value[0] if len(value) == 1 else struct.unpack("=i", value)[0]
        return data[0], came_with

    def close(self) -> None:
        self._sender.close()
        self._receiver.close()


@contextmanager
def flowing(sender: End, receiver: End, version: int) -> Iterator[Flow]:
    flow = Flow(sender, receiver, version)
    try:
        yield flow
    finally:
        flow.close()


# -- marks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("outer", [4, 6])
def test_marks_go_in_and_come_out_and_handshakes_are_af41(testbed: Testbed, outer: int) -> None:
    require("nft")
    tunnel = Tunnel.build(testbed, outer=outer)
    left, right = tunnel.left, tunnel.right
    with sniffing(right.namespace) as sniffer, flowing(left, right, 4) as flow:
        flow.send(0)
        assert sniffer.next_of(INITIATION) == AF41
        assert sniffer.next_of(RESPONSE) == AF41
        assert sniffer.next_of(TRANSPORT) == 0
        assert flow.received(5) == (0, 0)
        for version in (4, 6):
            with flowing(left, right, version) as other:
                for traffic_class in (NOT_ECT, ECT_1, ECT_0, CE, AF41 | ECT_0, 0xFC):
                    other.send(traffic_class)
                    assert sniffer.next_of(TRANSPORT) == traffic_class & 3
                    assert other.received(5) == (traffic_class, traffic_class)
    mark_on_the_way(left, right, outer)
    for version in (4, 6):
        with flowing(left, right, version) as flow:
            for traffic_class in (NOT_ECT, ECT_1, ECT_0, CE, AF41 | ECT_0):
                flow.send(traffic_class)
            # The first was dropped: its sender could not be told.
            for traffic_class in (ECT_1, ECT_0, CE, AF41 | ECT_0):
                assert flow.received(5) == (traffic_class, traffic_class | CE)
            assert flow.received(0) is None


def mark_on_the_way(left: End, right: End, outer: int) -> None:
    """A congested router marks everything that goes to the right, also what does not understand."""
    family = "ip6" if outer == 6 else "ip"
    for command in (
        "add table inet congested",
        "add chain inet congested out { type filter hook output priority 0; }",
        f"add rule inet congested out udp dport {right.port} {family} ecn set ce",
    ):
        left.namespace.run("nft", command)


# -- nowhere to go ---------------------------------------------------------------------------------


def connect(end: End, address: str) -> tuple[int, float]:
    """Return how a TCP connection to `address` fails, and after how many seconds."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with end.home.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        begun = time.monotonic()
        try:
            client.connect((address, 80))
        except OSError as error:
            return error.errno or 0, time.monotonic() - begun
        return 0, time.monotonic() - begun


def test_what_has_nowhere_to_go_is_refused_at_once(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right  # right does not know yet where left is
    for end, address in (
        (left, "10.77.0.99"),  # of no peer
        (left, "fd77::99"),
        (right, left.inner4),
        (right, left.inner4),  # and again, without the control plane's help
        (right, left.inner6),
    ):
        error, seconds = connect(end, address)
        assert error == errno.EHOSTUNREACH, address
        assert seconds < 1
    ping = right.ping(left, count=1, wait_seconds=1)
    assert ping.received == 0
    assert "nreachable" in ping.output
    tunnel.assert_works()  # left calls, then right knows
