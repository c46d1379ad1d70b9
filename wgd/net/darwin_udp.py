"""The UDP sockets of the portable data plane on macOS: one per address family, on one port.

One datagram per system call: macOS has no UDP segmentation that a program could use. It has no
marks either: a fwmark is taken and does nothing, as with wireguard-go. After sleep, or when the
network has changed, sending may fail for good; see `SendFailures`.
"""

import errno
import ipaddress
import os
import socket
from collections.abc import Callable
from typing import Final

from wgd.addresses import Endpoint
from wgd.net import pktinfo
from wgd.net.endpoint_socket import EndpointSocket, open_both_families

BUFFER_SIZES: Final = tuple(mebibytes * 1024 * 1024 for mebibytes in (7, 4, 2, 1))
"""Bytes, each direction, the best first: what is beyond kern.ipc.maxsockbuf is refused whole."""

FAILURES_IN_A_ROW: Final = 3

_UNREACHABLE: Final = frozenset(
    {errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}
)
_MSG_TRUNC: Final = int(socket.MSG_TRUNC)


class SendFailures:
    """Calls `on_storm` when nothing could be sent several times in a row because of the network.

    A socket may stay in that state although the network is back (SagerNet/sing-box#4511), so
    somebody should look. `on_storm` must only take note: it is called amid sending.
    """

    def __init__(self) -> None:
        self.on_storm: Callable[[], None] | None = None
        self._in_a_row = 0

    def failed(self, error: OSError) -> None:
        """Note that a datagram could not be sent."""
        if error.errno not in _UNREACHABLE:
            return
        self._in_a_row += 1
        if self._in_a_row == FAILURES_IN_A_ROW:
            self._in_a_row = 0
            if self.on_storm is not None:
                self.on_storm()

    def succeeded(self) -> None:
        """Note that a datagram was sent."""
        self._in_a_row = 0


class DarwinUdpSocket(EndpointSocket):
    """A bound, non-blocking UDP socket of one family: the `DatagramSocket` of the data plane.

    Calls raise OSError and leave it to the engine: BlockingIOError when nothing can be done now,
    EADDRNOTAVAIL when a pinned source address is no longer ours.
    """

    max_segments: Final = 1

    def __init__(self, family: socket.AddressFamily, port: int, failures: SendFailures) -> None:
        super().__init__(
            socket.socket(family, socket.SOCK_DGRAM),
            is_ipv6=family == socket.AF_INET6,
            packet_information=pktinfo.DARWIN,
        )
        self._failures = failures
        try:
            self._socket.setblocking(False)
            self._set_buffer(socket.SO_RCVBUF)
            self._set_buffer(socket.SO_SNDBUF)
            self._bind(port)
        except OSError:
            self.close()
            raise

    def _set_buffer(self, option: int) -> None:
        for size in BUFFER_SIZES:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, option, size)
            except OSError:
                continue
            return

    def set_fwmark(self, mark: int) -> None:
        """Do nothing: macOS has no marks, but `wg setconf` always sends one."""

    def receive_into(self, buffer: memoryview) -> tuple[int, int, Endpoint, int]:
        """Receive one datagram into `buffer`; return its length, twice, the sender, whose `source`
        is the local address it was sent to, and 0, because its type of service is not asked for.
        One longer than the buffer has a length of 0.
        """
        length, ancillary, flags, address = self._socket.recvmsg_into((buffer,), pktinfo.SPACE)
        sender = self._sender(address, ancillary)
        if flags & _MSG_TRUNC:
            return 0, 0, sender, 0
        return length, length, sender, 0

    def send(
        self,
        datagram: bytes | bytearray | memoryview,
        endpoint: Endpoint,
        traffic_class: int = 0,
    ) -> None:
        """Send one datagram to `endpoint`, from `endpoint.source` if that is set.

        Also raises ValueError for an endpoint whose addresses are none.
        """
        try:
            super().send(datagram, endpoint, traffic_class)
        except OSError as error:
            self._failures.failed(error)
            raise
        self._failures.succeeded()

    def send_segments(  # the data plane's interface has it
        self,
        datagrams: memoryview,  # noqa: ARG002
        size: int,  # noqa: ARG002
        endpoint: Endpoint,  # noqa: ARG002
        traffic_class: int = 0,  # noqa: ARG002
    ) -> None:
        """Raise OSError (EOPNOTSUPP): `max_segments` says so."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def open_sockets(port: int, failures: SendFailures) -> tuple[list[DarwinUdpSocket], int]:
    """Bind one UDP socket per address family this host has, on one port; return them and the port.

    Port 0 takes a random port that is free in both families. Raises OSError: EADDRINUSE when the
    port is taken in either family, EAFNOSUPPORT without any family. Nothing stays open then.
    """
    return open_both_families(lambda family, free: DarwinUdpSocket(family, free, failures), port)


def source_is_valid(endpoint: Endpoint, _fwmark: int) -> bool:
    """Return whether `endpoint.source` is still an address of ours; True without one. Never raises.

    Whether the way to the endpoint still leaves through its interface is not looked at: when the
    default route moves, all sockets are replaced and no source stays pinned.
    """
    source = endpoint.source
    if source is None:
        return True
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    try:
        is_link_local = ipaddress.ip_address(source.address).is_link_local
        scope_id = source.interface_index if is_link_local else 0
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            if endpoint.is_ipv6:
                probe.bind((source.address, 0, 0, scope_id))
            else:
                probe.bind((source.address, 0))
    except (OSError, ValueError):
        return False
    return True
