"""Addresses as values: endpoints, pinned sources and prefixes.

Named tuples, because the data plane hashes and compares them once per packet.
"""

import ipaddress
from typing import NamedTuple


class Source(NamedTuple):
    """The local address a peer reached us at, pinned for the answers (a "sticky" source)."""

    address: str
    interface_index: int


class Endpoint(NamedTuple):
    """A UDP address of a peer: numeric `host` without zone, `port`, and for a link-local IPv6 host
    the zone as `scope_id`. `source` is what the answers leave from; None lets the kernel choose.
    """

    host: str
    port: int
    scope_id: int = 0
    source: Source | None = None

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is an IPv6 address."""
        return ":" in self.host

    def packed(self) -> bytes:
        """Return address (4 or 16 bytes) and port (2, big endian): what a cookie is bound to."""
        return ipaddress.ip_address(self.host).packed + self.port.to_bytes(2, "big")

    def __str__(self) -> str:
        if not self.is_ipv6:
            return f"{self.host}:{self.port}"
        zone = f"%{self.scope_id}" if self.scope_id else ""
        return f"[{self.host}{zone}]:{self.port}"


class Prefix(NamedTuple):
    """An allowed IP: a network address of 4 or 16 bytes with its host bits zero, and a length."""

    address: bytes
    length: int

    @classmethod
    def of(cls, address: bytes, length: int) -> "Prefix":
        """Return the prefix of `length` bits that holds `address`, masking off its host bits.

        Raises ValueError when `length` does not fit the address family.
        """
        bits = len(address) * 8
        if not 0 <= length <= bits:
            raise ValueError(f"prefix length {length} is not in 0..{bits}")
        host_bits = bits - length
        if not host_bits:
            return cls(address, length)
        network = int.from_bytes(address, "big") >> host_bits << host_bits
        return cls(network.to_bytes(len(address), "big"), length)

    def __str__(self) -> str:
        if len(self.address) == 4:  # six times as fast as going through `ipaddress`
            a, b, c, d = self.address
            return f"{a}.{b}.{c}.{d}/{self.length}"
        return f"{ipaddress.ip_address(self.address)}/{self.length}"
