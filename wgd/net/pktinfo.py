"""The control messages that say which local address a datagram came to, or shall leave from.

`struct in_pktinfo` (ip(7)) and `struct in6_pktinfo` (RFC 3542, section 6). Pure functions on bytes.
"""

import ipaddress
import socket
import struct

from wgd.addresses import Endpoint, Source

# Python 3.11's socket module lacks these three; linux/in.h and linux/in6.h have them.
IP_PKTINFO = 8
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50

ControlMessage = tuple[int, int, bytes]

_IN_PKTINFO = struct.Struct("=i4s4s")  # interface index, local address, destination in the header
_IN6_PKTINFO = struct.Struct("=16si")  # local address, interface index

SPACE = socket.CMSG_SPACE(max(_IN_PKTINFO.size, _IN6_PKTINFO.size))
"""Bytes of ancillary data that hold one of either kind."""


def parse_source(ancillary: list[ControlMessage]) -> Source | None:
    """Return the local address and the interface a datagram arrived at; None if it does not say."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO) and len(data) == _IN_PKTINFO.size:
            # Not the header's destination: that of a broadcast cannot be answered from.
            index, local, _destination = _IN_PKTINFO.unpack(data)
            return Source(socket.inet_ntop(socket.AF_INET, local), index)
        if (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO) and len(data) == _IN6_PKTINFO.size:
            local, index = _IN6_PKTINFO.unpack(data)
            return Source(socket.inet_ntop(socket.AF_INET6, local), index)
    return None


def control_messages(endpoint: Endpoint) -> list[ControlMessage]:
    """Return the ancillary data that sends a datagram from `endpoint.source`; empty without one.

    Only the address is pinned. Pinning the interface too would nail the peer to it after the route
    has moved to another one, although the address may be as good there (a router's loopback
    address, two uplinks of one subnet). A link-local IPv6 address means nothing without its
    interface, so there it is given. Raises ValueError for an address that is not one.
    """
    source = endpoint.source
    if source is None:
        return []
    address = ipaddress.ip_address(source.address)
    if address.version == 4:
        data = _IN_PKTINFO.pack(0, address.packed, bytes(4))
        return [(socket.IPPROTO_IP, IP_PKTINFO, data)]
    index = source.interface_index if address.is_link_local else 0
    return [(socket.IPPROTO_IPV6, IPV6_PKTINFO, _IN6_PKTINFO.pack(address.packed, index))]
