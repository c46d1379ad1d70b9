"""The control messages that say which local address a datagram came to, or shall leave from.

`struct in_pktinfo` (ip(7)) and `struct in6_pktinfo` (RFC 3542, section 6). Pure functions on bytes:
the structures are the same everywhere, their numbers and one field's meaning are not.
"""

import ipaddress
import socket
import struct
from dataclasses import dataclass
from typing import Final

from wgd.addresses import Endpoint, Source

ControlMessage = tuple[int, int, bytes]

_IN_PKTINFO = struct.Struct("=i4s4s")  # interface index, local address, destination in the header
_IN6_PKTINFO = struct.Struct("=16si")  # local address, interface index

SPACE = socket.CMSG_SPACE(max(_IN_PKTINFO.size, _IN6_PKTINFO.size))
"""Bytes of ancillary data that hold one of either kind."""


@dataclass(frozen=True, slots=True)
class PacketInformation:
    """What one operating system calls these messages; see `LINUX` and `DARWIN`.

    `has_local_address`: what is received over IPv4 says at which of our addresses it was received.
    """

    ip_pktinfo: int
    ipv6_recvpktinfo: int
    ipv6_pktinfo: int
    has_local_address: bool

    def enable(self, sock: socket.socket, *, is_ipv6: bool) -> None:
        """Let `sock` receive them. Raises OSError."""
        if is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, self.ipv6_recvpktinfo, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, self.ip_pktinfo, 1)

    def parse_source(self, ancillary: list[ControlMessage]) -> Source | None:
        """Return the local address and the interface a datagram arrived at; None if not said."""
        for level, kind, data in ancillary:
            which, size = (level, kind), len(data)
            if which == (socket.IPPROTO_IP, self.ip_pktinfo) and size == _IN_PKTINFO.size:
                index, local, destination = _IN_PKTINFO.unpack(data)
                # Not the header's destination, if possible: a broadcast is no source.
                address = local if self.has_local_address else destination
                return Source(socket.inet_ntop(socket.AF_INET, address), index)
            if which == (socket.IPPROTO_IPV6, self.ipv6_pktinfo) and size == _IN6_PKTINFO.size:
                local, index = _IN6_PKTINFO.unpack(data)
                return Source(socket.inet_ntop(socket.AF_INET6, local), index)
        return None

    def control_messages(self, endpoint: Endpoint) -> list[ControlMessage]:
        """Return the ancillary data that sends from `endpoint.source`; empty without one.

        Only the address is pinned. Pinning the interface too would nail the peer to it after the
        route has moved to another one, although the address may be as good there (a router's
        loopback address, two uplinks of one subnet); macOS would then even ignore the address. A
        link-local IPv6 address means nothing without its interface, so there it is given. Raises
        ValueError for an address that is not one.
        """
        source = endpoint.source
        if source is None:
            return []
        address = ipaddress.ip_address(source.address)
        if address.version == 4:
            data = _IN_PKTINFO.pack(0, address.packed, bytes(4))
            return [(socket.IPPROTO_IP, self.ip_pktinfo, data)]
        index = source.interface_index if address.is_link_local else 0
        data = _IN6_PKTINFO.pack(address.packed, index)
        return [(socket.IPPROTO_IPV6, self.ipv6_pktinfo, data)]


LINUX: Final = PacketInformation(
    ip_pktinfo=8, ipv6_recvpktinfo=49, ipv6_pktinfo=50, has_local_address=True
)
"""linux/in.h and linux/in6.h; Python 3.11's socket module lacks them."""

DARWIN: Final = PacketInformation(
    ip_pktinfo=26, ipv6_recvpktinfo=61, ipv6_pktinfo=46, has_local_address=False
)
"""xnu's bsd/netinet/in.h and bsd/netinet6/in6.h.

macOS has no IP_SENDSRCADDR, so IP_RECVDSTADDR would do for one direction only. Receiving,
`ip_savecontrol` (bsd/netinet/ip_input.c) fills in the interface and `ipi_addr`, and leaves
`ipi_spec_dst` zero. Sending, `udp_check_pktinfo` (bsd/netinet/udp_usrreq.c) takes the source from
`ipi_spec_dst`, unless there is an interface index, which makes it ignore the address.
"""
