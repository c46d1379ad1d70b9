"""The address family of a round: the tunnel's own addresses and those inside it are of the same."""

from enum import Enum


class Family(Enum):
    """IPv4 or IPv6; `number` below is that of an end of the tunnel, 1 or 2."""

    V4 = "v4"
    V6 = "v6"

    @property
    def header_bytes(self) -> int:
        """The length of an IP header without options."""
        return 20 if self is Family.V4 else 40

    @property
    def least_mtu(self) -> int:
        """The least MTU that a link of this family may have: RFC 791, RFC 8200."""
        return 576 if self is Family.V4 else 1280

    @property
    def prefix_length(self) -> int:
        """That of the two networks which the addresses below are of."""
        return 24 if self is Family.V4 else 64

    @property
    def host_prefix_length(self) -> int:
        """That of a single address."""
        return 32 if self is Family.V4 else 128

    @property
    def link_mtu_overhead_bytes(self) -> int:
        """What a WireGuard datagram adds to a packet: IP, UDP, header and tag."""
        return self.header_bytes + 8 + 16 + 16

    def underlay_address(self, number: int) -> str:
        """The address that the daemons send datagrams to (for documentation: RFC 5737, 3849)."""
        return f"192.0.2.{number}" if self is Family.V4 else f"2001:db8::{number}"

    def address(self, number: int) -> str:
        """The address inside the tunnel."""
        return f"10.99.0.{number}" if self is Family.V4 else f"fd99::{number}"

    def endpoint(self, address: str, port: int) -> str:
        """Return an address and a port as wg(8) reads them."""
        return f"{address}:{port}" if self is Family.V4 else f"[{address}]:{port}"
