"""What the UDP sockets of all systems have in common: datagrams to and from endpoints, one port.

Every received datagram says which local address it was sent to, and the answers leave from there.
Both directions look their peer up in a small cache, so that a datagram of a known peer costs its
system call and little more: no address is parsed or formatted twice.
"""

import errno
import os
import socket
from collections.abc import Callable
from typing import Protocol, TypeVar

from wgd.addresses import Endpoint
from wgd.net.pktinfo import ControlMessage, PacketInformation

MAX_BIND_ATTEMPTS = 100
MAX_CACHED_ENDPOINTS = 4096  # each direction; then start anew, which is cheaper than ordering them

_FAMILY_MISSING = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL)

Address = tuple[str, int] | tuple[str, int, int, int]


class EndpointSocket:
    """A UDP socket of one family and the endpoints it has met. Takes `sock` over."""

    def __init__(
        self, sock: socket.socket, *, is_ipv6: bool, packet_information: PacketInformation
    ) -> None:
        self.is_ipv6 = is_ipv6
        self._socket = sock
        self._packet_information = packet_information
        self._received: dict[tuple[object, bytes], Endpoint] = {}
        self._last_address: Address = ("", 0)
        self._last_local = b""
        self._last_sender = Endpoint("", 0)
        self._sent: dict[Endpoint, tuple[Address, list[ControlMessage]]] = {}

    def _bind(self, port: int) -> None:
        """Bind to all addresses of this family, and of no other; report where datagrams go to."""
        if self.is_ipv6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._packet_information.enable(self._socket, is_ipv6=self.is_ipv6)
        self._socket.bind(("::" if self.is_ipv6 else "0.0.0.0", port))  # noqa: S104 - as every WireGuard does

    @property
    def port(self) -> int:
        """The UDP port this socket is bound to."""
        return int(self._socket.getsockname()[1])

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def _sender(self, address: Address, ancillary: list[ControlMessage]) -> Endpoint:
        """Return the endpoint a datagram came from, with the source that answers leave from."""
        # The same peer at the same address of ours is the rule: compare before hashing.
        local = ancillary[0][2] if ancillary else b""
        if address == self._last_address and local == self._last_local:
            return self._last_sender
        key = (address, local)
        endpoint = self._received.get(key)
        if endpoint is None:
            scope_id = address[3] if len(address) == 4 else 0
            source = self._packet_information.parse_source(ancillary)
            endpoint = Endpoint(address[0], address[1], scope_id, source)
            if len(self._received) >= MAX_CACHED_ENDPOINTS:
                self._received.clear()
            self._received[key] = endpoint
        self._last_address, self._last_local, self._last_sender = address, local, endpoint
        return endpoint

    def send(
        self,
        datagram: bytes | bytearray | memoryview,
        endpoint: Endpoint,
        traffic_class: int = 0,
    ) -> None:
        """Send one datagram to `endpoint`, from `endpoint.source` if that is set, with this type of
        service or traffic class where the system can do that for one datagram.

        Also raises ValueError for an endpoint whose addresses are none.
        """
        address, ancillary = self._destination(endpoint)
        if traffic_class:
            ancillary = [*ancillary, *self._traffic_class(traffic_class)]
        if ancillary:
            self._socket.sendmsg((datagram,), ancillary, 0, address)
        else:
            self._socket.sendto(datagram, address)

    def _traffic_class(self, traffic_class: int) -> list[ControlMessage]:  # noqa: ARG002
        """Return the ancillary data that says so; nothing here."""
        return []

    def _destination(self, endpoint: Endpoint) -> tuple[Address, list[ControlMessage]]:
        cached = self._sent.get(endpoint)
        if cached is None:
            address: Address = (
                (endpoint.host, endpoint.port, 0, endpoint.scope_id)
                if self.is_ipv6
                else (endpoint.host, endpoint.port)
            )
            cached = (address, self._packet_information.control_messages(endpoint))
            if len(self._sent) >= MAX_CACHED_ENDPOINTS:
                self._sent.clear()
            self._sent[endpoint] = cached
        return cached

    def close(self) -> None:
        """Close the socket; once or more."""
        self._socket.close()


class PortSocket(Protocol):
    """A socket that is bound to a port."""

    @property
    def port(self) -> int:
        """The UDP port this socket is bound to."""

    def close(self) -> None:
        """Close the socket."""


S = TypeVar("S", bound=PortSocket)
OpenSocket = Callable[[socket.AddressFamily, int], S]
"""Given a family and a port (0: any), returns a bound socket. Raises OSError."""


def open_both_families(open_socket: OpenSocket[S], port: int) -> tuple[list[S], int]:
    """Bind one UDP socket per address family this host has, on one port; return them and the port.

    Port 0 takes a random port that is free in both families. Raises OSError: EADDRINUSE when the
    port is taken in either family, EAFNOSUPPORT without any family, what else `open_socket`
    raises. Nothing stays open then.
    """
    for _attempt in range(MAX_BIND_ATTEMPTS):
        try:
            return _bind_all_families(open_socket, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port != 0:
                raise
    raise OSError(errno.EADDRINUSE, "no UDP port is free in both IPv4 and IPv6")


def _bind_all_families(open_socket: OpenSocket[S], port: int) -> tuple[list[S], int]:
    sockets: list[S] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            opened = open_socket(family, port)
        except OSError as error:
            if error.errno in _FAMILY_MISSING:
                continue
            for other in sockets:
                other.close()
            if error.errno == errno.EADDRINUSE:
                raise OSError(errno.EADDRINUSE, f"UDP port {port} is in use") from error
            raise
        sockets.append(opened)
        port = opened.port
    if not sockets:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    return sockets, port
