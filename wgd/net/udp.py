"""The UDP sockets of the portable data plane on Linux: one per address family, on one port.

Every received datagram says which local address it was sent to, and the answers leave from there.
Both directions look their peer up in a small cache, so that a datagram of a known peer costs its
system call and little more: no address is parsed or formatted twice.
"""

import errno
import os
import socket
import struct
import sys

from wgd.addresses import Endpoint
from wgd.net import pktinfo

MAX_BIND_ATTEMPTS = 100
BUFFER_SIZE = 7 * 1024 * 1024  # bytes, each direction: a burst of one flow at some Gbit/s
MAX_CACHED_ENDPOINTS = 4096  # each direction; then start anew, which is cheaper than ordering them

# linux: asm-generic/socket.h. Needs CAP_NET_ADMIN and goes beyond net.core.?mem_max.
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33

# linux/udp.h: many datagrams of one size in one system call (Linux 4.18 and 5.0).
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
MAX_SEGMENTS = 64

_MSG_TRUNC = int(socket.MSG_TRUNC)  # plain, because an enum's `&` costs as much as the rest
_FAMILY_MISSING = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL)

_GRO = (SOL_UDP, UDP_GRO)
_ANCILLARY_SPACE = pktinfo.SPACE + socket.CMSG_SPACE(4)

_Address = tuple[str, int] | tuple[str, int, int, int]


class UdpSocket:
    """A bound, non-blocking UDP socket of one family: the `DatagramSocket` of the data plane.

    Calls raise OSError and leave it to the engine: BlockingIOError when nothing can be done now,
    EINVAL, or on newer kernels for IPv4 ENETUNREACH, when a pinned source address is no longer
    ours. ICMP errors of earlier datagrams are not reported on such a socket.
    """

    def __init__(self, family: socket.AddressFamily, port: int, fwmark: int) -> None:
        self.is_ipv6 = family == socket.AF_INET6
        self._received: dict[tuple[object, bytes], Endpoint] = {}
        self._last_address: _Address = ("", 0)
        self._last_local = b""
        self._last_sender = Endpoint("", 0)
        self._sent: dict[Endpoint, tuple[_Address, list[pktinfo.ControlMessage]]] = {}
        self._socket = socket.socket(
            family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            if self.is_ipv6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                self._socket.setsockopt(socket.IPPROTO_IPV6, pktinfo.IPV6_RECVPKTINFO, 1)
            else:
                self._socket.setsockopt(socket.IPPROTO_IP, pktinfo.IP_PKTINFO, 1)
            self.max_segments = MAX_SEGMENTS if self._enable_offloads() else 1
            self._set_buffer(SO_RCVBUFFORCE, socket.SO_RCVBUF)
            self._set_buffer(SO_SNDBUFFORCE, socket.SO_SNDBUF)
            if fwmark:
                self.set_fwmark(fwmark)
            self._socket.bind(("::" if self.is_ipv6 else "0.0.0.0", port))  # noqa: S104 - as every WireGuard does
        except OSError:
            self._socket.close()
            raise

    def _enable_offloads(self) -> bool:
        """Switch GRO on if the kernel knows it; return whether it also knows GSO."""
        try:
            self._socket.setsockopt(SOL_UDP, UDP_GRO, 1)
            self._socket.getsockopt(SOL_UDP, UDP_SEGMENT)
        except OSError:
            return False
        return True

    def _set_buffer(self, force_option: int, option: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, force_option, BUFFER_SIZE)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)

    @property
    def port(self) -> int:
        """The UDP port this socket is bound to."""
        return int(self._socket.getsockname()[1])

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def set_fwmark(self, mark: int) -> None:
        """Mark what is sent from now on (0..2^32-1, 0 for none). Raises OSError (EPERM)."""
        # The kernel's mark is unsigned, but Python passes a signed int.
        value = struct.pack("=I", mark)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, value)

    def receive_into(self, buffer: memoryview) -> tuple[int, int, Endpoint]:
        """Receive into `buffer`; return the length, the size of a datagram, and the sender, whose
        `source` is the local address it was sent to.

        With UDP GRO the kernel may have put several datagrams of one size end to end. A datagram
        longer than the buffer returns a length of 0.
        """
        length, ancillary, flags, address = self._socket.recvmsg_into((buffer,), _ANCILLARY_SPACE)
        size = length
        if ancillary and ancillary[0][:2] == _GRO:  # the kernel puts it first
            size = int.from_bytes(ancillary.pop(0)[2], sys.byteorder)
        # The same peer at the same address of ours is the rule: compare before hashing.
        local = ancillary[0][2] if ancillary else b""
        if address != self._last_address or local != self._last_local:
            self._last_address, self._last_local = address, local
            self._last_sender = self._sender(address, local, ancillary)
        if flags & _MSG_TRUNC:
            return 0, 0, self._last_sender
        return length, size, self._last_sender

    def _sender(
        self, address: _Address, local: bytes, ancillary: list[pktinfo.ControlMessage]
    ) -> Endpoint:
        key = (address, local)
        endpoint = self._received.get(key)
        if endpoint is None:
            scope_id = address[3] if len(address) == 4 else 0
            endpoint = Endpoint(address[0], address[1], scope_id, pktinfo.parse_source(ancillary))
            if len(self._received) >= MAX_CACHED_ENDPOINTS:
                self._received.clear()
            self._received[key] = endpoint
        return endpoint

    def send(self, datagram: bytes | bytearray | memoryview, endpoint: Endpoint) -> None:
        """Send one datagram to `endpoint`, from `endpoint.source` if that is set.

        Also raises ValueError for an endpoint whose addresses are none.
        """
        address, ancillary = self._destination(endpoint)
        if ancillary:
            self._socket.sendmsg((datagram,), ancillary, 0, address)
        else:
            self._socket.sendto(datagram, address)

    def send_segments(self, datagrams: memoryview, size: int, endpoint: Endpoint) -> None:
        """Send datagrams of `size` bytes that lie end to end, the last may be shorter: all or
        none. Raises OSError: EINVAL or EIO where this path cannot do it (MTU, network card).
        """
        address, ancillary = self._destination(endpoint)
        segment = (SOL_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))
        self._socket.sendmsg((datagrams,), [*ancillary, segment], 0, address)

    def _destination(self, endpoint: Endpoint) -> tuple[_Address, list[pktinfo.ControlMessage]]:
        cached = self._sent.get(endpoint)
        if cached is None:
            address: _Address = (
                (endpoint.host, endpoint.port, 0, endpoint.scope_id)
                if self.is_ipv6
                else (endpoint.host, endpoint.port)
            )
            cached = (address, pktinfo.control_messages(endpoint))
            if len(self._sent) >= MAX_CACHED_ENDPOINTS:
                self._sent.clear()
            self._sent[endpoint] = cached
        return cached

    def close(self) -> None:
        """Close the socket; once or more."""
        self._socket.close()


def open_sockets(port: int, fwmark: int = 0) -> tuple[list[UdpSocket], int]:
    """Bind one UDP socket per address family this host has, on one port; return them and the port.

    Port 0 takes a random port that is free in both families. Raises OSError: EADDRINUSE when the
    port is taken in either family, EPERM when `fwmark` may not be set, EAFNOSUPPORT without any
    family. Nothing stays open then.
    """
    for _attempt in range(MAX_BIND_ATTEMPTS):
        try:
            return _bind_all_families(port, fwmark)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port != 0:
                raise
    raise OSError(errno.EADDRINUSE, "no UDP port is free in both IPv4 and IPv6")


def _bind_all_families(port: int, fwmark: int) -> tuple[list[UdpSocket], int]:
    sockets: list[UdpSocket] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            opened = UdpSocket(family, port, fwmark)
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
