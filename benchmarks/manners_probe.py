"""Sockets inside namespaces that see traffic classes, and connections that are to fail."""

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from family import Family
from processes import BenchmarkError

from wgd.net.namespaces import run_in_namespace

INITIATION: Final = 1
RESPONSE: Final = 2
TRANSPORT: Final = 4

_ETHERNET_HEADER_BYTES: Final = 14
_ETH_P_ALL: Final = 3
_IP_RECVTOS: Final = 13  # linux/in.h
_MESSAGE_SECONDS: Final = 6  # a lost initiation is sent again after five
_ARRIVAL_SECONDS: Final = 0.3
CONNECT_SECONDS: Final = 3.0
"""How long a connection may take to fail; then nobody has told."""


@contextlib.contextmanager
def _in_namespace(name: str) -> Iterator[int]:
    fd = os.open(Path("/run/netns") / name, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _socket(namespace: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    with _in_namespace(namespace) as fd:
        return run_in_namespace(fd, lambda: socket.socket(family, kind, protocol))


class Sniffer:
    """Sees the WireGuard messages on a device: their types and outer traffic classes."""

    def __init__(self, namespace: str, device: str) -> None:
        self._socket = _socket(namespace, socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.bind((device, _ETH_P_ALL))

    def next_of(self, kind: int) -> int:
        """Return the traffic class of the next message of this type; raises BenchmarkError when
        there is none.
        """
        deadline = time.monotonic() + _MESSAGE_SECONDS
        while select.select([self._socket], [], [], max(0, deadline - time.monotonic()))[0]:
            packet = self._socket.recv(65_535)[_ETHERNET_HEADER_BYTES:]
            if packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_UDP:
                found, traffic_class = packet[28], packet[1]
            elif packet[0] >> 4 == 6 and packet[6] == socket.IPPROTO_UDP:
                found, traffic_class = packet[48], int.from_bytes(packet[:2], "big") >> 4 & 0xFF
            else:
                continue
            if found == kind:
                return traffic_class
        raise BenchmarkError(f"no message of type {kind} was sent")

    def drain(self) -> None:
        """Forget what was seen so far."""
        while select.select([self._socket], [], [], 0)[0]:
            self._socket.recv(1)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class InnerFlow:
    """Datagrams through the tunnel, from one namespace to an address in the other."""

    def __init__(self, sender: str, receiver: str, address: str, family: Family) -> None:
        self._is_ipv6 = family is Family.V6
        version = socket.AF_INET6 if self._is_ipv6 else socket.AF_INET
        self._sender = _socket(sender, version, socket.SOCK_DGRAM)
        self._receiver = _socket(receiver, version, socket.SOCK_DGRAM)
        self._receiver.bind((address, 0))
        self._address = self._receiver.getsockname()[:2]
        if self._is_ipv6:
            self._receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        else:
            self._receiver.setsockopt(socket.IPPROTO_IP, _IP_RECVTOS, 1)

    def send(self, traffic_class: int) -> None:
        """Send a datagram with this inner type of service or traffic class."""
        if self._is_ipv6:
            self._sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
        else:
            self._sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)
        self._sender.sendto(b"", self._address)

    def received(self) -> int | None:
        """Return the traffic class that the next one has come with; None if none comes."""
        if not select.select([self._receiver], [], [], _ARRIVAL_SECONDS)[0]:
            return None
        _, ancillary, _, _ = self._receiver.recvmsg(10, 100)
        value = ancillary[0][2]  # one byte for IPv4, an int for IPv6
        return int(value[0] if len(value) == 1 else struct.unpack("=i", value)[0])

    def close(self) -> None:
        """Close the sockets."""
        self._sender.close()
        self._receiver.close()


@dataclass(frozen=True)
class Refusal:
    """How a connection has failed: `error` is an errno's name, "" if nobody has told."""

    error: str
    seconds: float

    def __str__(self) -> str:
        if not self.error:
            return f"nothing in {self.seconds:.0f} s"
        return f"{self.error} after {self.seconds * 1000:.1f} ms"


def connect(namespace: str, address: str, family: Family) -> Refusal:
    """Try to connect to an address where nobody is."""
    version = socket.AF_INET6 if family is Family.V6 else socket.AF_INET
    with _socket(namespace, version, socket.SOCK_STREAM) as client:
        client.settimeout(CONNECT_SECONDS)
        begun = time.monotonic()
        try:
            client.connect((address, 80))
        except TimeoutError:
            return Refusal("", CONNECT_SECONDS)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, str(error))
            return Refusal(name, time.monotonic() - begun)
    raise BenchmarkError(f"somebody answers at {address}")
