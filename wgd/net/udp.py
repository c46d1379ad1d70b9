"""The UDP sockets of the portable data plane on Linux: one per address family, on one port.

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
_ANCILLARY_SPACE = pktinfo.SPACE + socket.CMSG_SPACE(4)


class UdpSocket(EndpointSocket):
    """A bound, non-blocking UDP socket of one family: the `DatagramSocket` of the data plane.

    Calls raise OSError and leave it to the engine: BlockingIOError when nothing can be done now,
    EINVAL, or on newer kernels for IPv4 ENETUNREACH, when a pinned source address is no longer
    ours. ICMP errors of earlier datagrams are not reported on such a socket.
    """

    def __init__(self, family: socket.AddressFamily, port: int, fwmark: int) -> None:
        super().__init__(
            socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC),
            is_ipv6=family == socket.AF_INET6,
            packet_information=pktinfo.LINUX,
        )
        try:
            self.max_segments = MAX_SEGMENTS if self._enable_offloads() else 1
            self._set_buffer(SO_RCVBUFFORCE, socket.SO_RCVBUF)
            self._set_buffer(SO_SNDBUFFORCE, socket.SO_SNDBUF)
            if fwmark:
                self.set_fwmark(fwmark)
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

    def _set_buffer(self, force_option: int, option: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, force_option, BUFFER_SIZE)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)

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
        sender = self._sender(address, ancillary)
        if flags & _MSG_TRUNC:
            return 0, 0, sender
        return length, size, sender

    def send_segments(self, datagrams: memoryview, size: int, endpoint: Endpoint) -> None:
        """Send datagrams of `size` bytes that lie end to end, the last may be shorter: all or
        none. Raises OSError: EINVAL or EIO where this path cannot do it (MTU, network card).
        """
        address, ancillary = self._destination(endpoint)
        segment = (SOL_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))
        self._socket.sendmsg((datagrams,), [*ancillary, segment], 0, address)


def open_sockets(port: int, fwmark: int = 0) -> tuple[list[UdpSocket], int]:
    """Bind one UDP socket per address family this host has, on one port; return them and the port.

    Port 0 takes a random port that is free in both families. Raises OSError: EADDRINUSE when the
    port is taken in either family, EPERM when `fwmark` may not be set, EAFNOSUPPORT without any
    family. Nothing stays open then.
    """
    return open_both_families(lambda family, free: UdpSocket(family, free, fwmark), port)
