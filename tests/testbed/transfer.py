"""TCP and UDP through a tunnel with every byte compared, which iperf3 does not do."""

import hashlib
import random
import socket
import struct
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from tests.testbed.namespaces import Namespace
from tests.testbed.tunnels import Tunnel

MTUS = (576, 1280, 1420, 8920, 34_736)
"""From what every host must take to what the loopback of some has, in bytes."""

_TIMEOUT_SECONDS = 30
_TCP_SIZE = 3_000_017
_MIN_IPV6_MTU = 1280

# linux/udp.h: one system call, many datagrams.
_SOL_UDP, _UDP_SEGMENT = 17, 103
_TCP_INFO = struct.Struct("100xI")
"""linux/tcp.h: the beginning of struct tcp_info, down to tcpi_total_retrans."""


class Transferred(NamedTuple):
    """What it took."""

    seconds: float
    retransmissions: int


def transfer(
    sender: Namespace,
    receiver: Namespace,
    address: str,
    size: int,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> Transferred:
    """Send `size` bytes to `address` of the receiver; AssertionError unless they arrive as sent,
    TimeoutError or AssertionError if that takes too long.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    content = random.Random(size).randbytes(size)
    received = hashlib.sha256()
    with (
        receiver.socket(family, socket.SOCK_STREAM) as listener,
        sender.socket(family, socket.SOCK_STREAM) as client,
    ):
        listener.settimeout(timeout_seconds)
        client.settimeout(timeout_seconds)
        listener.bind((address, 0))
        listener.listen()
        began = time.monotonic()
        client.connect((address, listener.getsockname()[1]))
        server, _ = listener.accept()
        with server:
            server.settimeout(timeout_seconds)

            def receive() -> None:
                while chunk := server.recv(1 << 16):
                    received.update(chunk)

            thread = threading.Thread(target=receive)
            thread.start()
            try:
                client.sendall(content)
                client.shutdown(socket.SHUT_WR)
            finally:
                thread.join(timeout_seconds)
        seconds = time.monotonic() - began
        information = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        (retransmissions,) = _TCP_INFO.unpack(information)
    assert received.digest() == hashlib.sha256(content).digest(), "the bytes changed on the way"
    return Transferred(seconds, retransmissions)


def exchange_datagrams(
    sender: Namespace, receiver: Namespace, address: str, sizes: Iterable[int]
) -> None:
    """Send a datagram of each size to `address` of the receiver, which sends it back.

    AssertionError unless both arrive as sent.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        receiver.socket(family, socket.SOCK_DGRAM) as server,
        sender.socket(family, socket.SOCK_DGRAM) as client,
    ):
        for each in (server, client):
            each.settimeout(_TIMEOUT_SECONDS)
        server.bind((address, 0))
        client.connect((address, server.getsockname()[1]))
        for size in sizes:
            content = random.Random(size).randbytes(size)
            client.send(content)
            received, back = server.recvfrom(65_535)
            assert received == content, f"a datagram of {size} bytes changed on the way"
            server.sendto(received, back)
            assert client.recv(65_535) == content, f"{size} bytes changed on the way back"


def send_together(
    sender: Namespace, receiver: Namespace, address: str, size: int, count: int
) -> None:
    """Send `count` datagrams of `size` bytes in one system call; AssertionError unless all arrive,
    in order.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    content = random.Random(size).randbytes(size * count)
    with (
        receiver.socket(family, socket.SOCK_DGRAM) as server,
        sender.socket(family, socket.SOCK_DGRAM) as client,
    ):
        server.settimeout(_TIMEOUT_SECONDS)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        server.bind((address, 0))
        client.connect((address, server.getsockname()[1]))
        client.sendmsg([content], [(_SOL_UDP, _UDP_SEGMENT, size.to_bytes(2, "little"))])
        for start in range(0, len(content), size):
            assert server.recv(65_535) == content[start : start + size], "not in order, or changed"


def exchange_everything(tunnel: Tunnel, mtu: int) -> None:
    """Set the MTU of both ends; then send TCP, single and joined datagrams of sizes around it.

    In both directions, over IPv4 and, where the MTU allows it, IPv6. AssertionError unless all
    arrives as it was sent.
    """
    left, right = tunnel.left, tunnel.right
    for end in (left, right):
        end.home.ip("link", "set", "dev", end.daemon.interface, "mtu", str(mtu))
    tunnel.assert_works(versions=(4,))
    for version in (4, 6) if mtu >= _MIN_IPV6_MTU else (4,):
        payload = mtu - (20 if version == 4 else 40) - 8
        for sender, receiver in ((left, right), (right, left)):
            ends = sender.home, receiver.home
            address = receiver.inner4 if version == 4 else receiver.inner6
            transfer(*ends, address, _TCP_SIZE)
            sizes = (0, 1, payload - 1, payload, payload + 1, min(2 * mtu, 60_000))
            exchange_datagrams(*ends, address, sizes)
            for size in (100, payload):
                if (count := min(40, 65_000 // size)) > 1:
                    send_together(*ends, address, size, count)
