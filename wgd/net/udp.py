"""The UDP sockets of the data plane on Linux: all on one port, one per family and worker.

What is common to all systems is in `endpoint_socket`; here are marks, large buffers and batches.
"""

import socket
import struct
import sys

if sys.platform != "linux":  # what follows is skipped by mypy elsewhere
    raise ImportError("this module is for Linux")

from wgd.addresses import Endpoint
from wgd.net import pktinfo
from wgd.net.endpoint_socket import EndpointSocket, open_both_families

BUFFER_SIZE = 7 * 1024 * 1024  # bytes, each direction: a burst of one flow at some Gbit/s

# linux: asm-generic/socket.h. Needs CAP_NET_ADMIN and goes beyond net.core.?mem_max.
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33

# linux/udp.h: many datagrams of one size in one system call (Linux 4.18 and 5.0).
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
MAX_SEGMENTS = 64

_MSG_TRUNC = int(socket.MSG_TRUNC)  # plain, because an enum's `&` costs as much as the rest

_GRO = (SOL_UDP, UDP_GRO)
# linux/in.h; Python's socket module lacks the first.
IP_RECVTOS = 13
_IP_TOS = (socket.IPPROTO_IP, socket.IP_TOS)
_IPV6_TCLASS = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
_TRAFFIC_CLASSES = (_IP_TOS, _IPV6_TCLASS)

_ANCILLARY_SPACE = pktinfo.SPACE + 2 * socket.CMSG_SPACE(4)


class UdpSocket(EndpointSocket):
    """A bound, non-blocking UDP socket of one family: the `DatagramSocket` of the data plane.

    Calls raise OSError and leave it to the engine: BlockingIOError when nothing can be done now,
    EINVAL, or on newer kernels for IPv4 ENETUNREACH, when a pinned source address is no longer
    ours. ICMP errors of earlier datagrams are not reported on such a socket.

    `offload` lets the kernel join and cut datagrams. `reuse_port` binds it beside others that share
    their port, which tells nobody that the port is taken.
    """

    def __init__(
        self,
        family: socket.AddressFamily,
        port: int,
        fwmark: int,
        *,
        offload: bool = True,
        reuse_port: bool = False,
    ) -> None:
        super().__init__(
            socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC),
            is_ipv6=family == socket.AF_INET6,
            packet_information=pktinfo.LINUX,
        )
        try:
            self.max_segments = MAX_SEGMENTS if offload and self._enable_offloads() else 1
            self._receive_traffic_class()
            self._set_buffer(SO_RCVBUFFORCE, socket.SO_RCVBUF)
            self._set_buffer(SO_SNDBUFFORCE, socket.SO_SNDBUF)
            if fwmark:
                self.set_fwmark(fwmark)
            if reuse_port:
                self.share_port()
            self._bind(port)
        except OSError:
            self.close()
            raise

    def _enable_offloads(self) -> bool:
        """Switch GRO on if the kernel knows it; return whether it also knows GSO."""
        try:
            self._socket.setsockopt(SOL_UDP, UDP_GRO, 1)
            self._socket.getsockopt(SOL_UDP, UDP_SEGMENT)
        except OSError:
            return False
        return True

    def _receive_traffic_class(self) -> None:
        if self.is_ipv6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        else:
            self._socket.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)

    def _traffic_class(self, traffic_class: int) -> list[pktinfo.ControlMessage]:
        level, kind = _IPV6_TCLASS if self.is_ipv6 else _IP_TOS
        return [(level, kind, traffic_class.to_bytes(4, sys.byteorder))]

    def _set_buffer(self, force_option: int, option: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, force_option, BUFFER_SIZE)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)

    def share_port(self) -> None:
        """Let other sockets that share theirs bind to this port, too. Raises OSError."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    def set_fwmark(self, mark: int) -> None:
        """Mark what is sent from now on (0..2^32-1, 0 for none). Raises OSError (EPERM)."""
        # The kernel's mark is unsigned, but Python passes a signed int.
        value = struct.pack("=I", mark)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, value)

    def receive_into(self, buffer: memoryview) -> tuple[int, int, Endpoint, int]:
        """Receive into `buffer`; return the length, the size of a datagram, the sender, whose
        `source` is the local address it was sent to, and the type of service or traffic class.

        With UDP GRO the kernel may have put several datagrams of one size end to end. A datagram
        longer than the buffer returns a length of 0.
        """
        length, ancillary, flags, address = self._socket.recvmsg_into((buffer,), _ANCILLARY_SPACE)
        size = length
        if ancillary and ancillary[0][:2] == _GRO:  # the kernel puts it first
            size = int.from_bytes(ancillary.pop(0)[2], sys.byteorder)
        traffic_class = 0
        if ancillary and ancillary[-1][:2] in _TRAFFIC_CLASSES:  # and this last
            # One byte for IPv4, an int for IPv6.
            traffic_class = int.from_bytes(ancillary.pop()[2], sys.byteorder)
        sender = self._sender(address, ancillary)
        if flags & _MSG_TRUNC:
            return 0, 0, sender, traffic_class
        return length, size, sender, traffic_class

    def send_segments(
        self, datagrams: memoryview, size: int, endpoint: Endpoint, traffic_class: int = 0
    ) -> None:
        """Send datagrams of `size` bytes that lie end to end, the last may be shorter: all or
        none. Raises OSError: EINVAL or EIO where this path cannot do it (MTU, network card).
        """
        address, ancillary = self._destination(endpoint)
        if traffic_class:
            ancillary = [*ancillary, *self._traffic_class(traffic_class)]
        segment = (SOL_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))
        self._socket.sendmsg((datagrams,), [*ancillary, segment], 0, address)


def open_sockets(
    port: int, fwmark: int = 0, *, workers: int = 1, offload: bool = True
) -> tuple[list[UdpSocket], int]:
    """Bind UDP sockets, per address family this host has one for each of `workers`, on one port.

    Returns them and the port. Of several, the kernel gives each datagram to one, always the same
    for one sender. Port 0 takes a random port that is free in both families.

    Raises OSError: EADDRINUSE when the port is taken in either family, EPERM when `fwmark` may not
    be set, EAFNOSUPPORT without any family. Nothing stays open then.
    """

    def open_one(family: socket.AddressFamily, free: int) -> UdpSocket:
        return UdpSocket(family, free, fwmark, offload=offload)

    # Only what is bound without sharing can find that the port is taken: share it afterwards.
    sockets, port = open_both_families(open_one, port)
    if workers == 1:
        return sockets, port
    try:
        for first in tuple(sockets):
            first.share_port()
            family = socket.AF_INET6 if first.is_ipv6 else socket.AF_INET
            for _ in range(workers - 1):
                sockets.append(UdpSocket(family, port, fwmark, offload=offload, reuse_port=True))
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets, port
