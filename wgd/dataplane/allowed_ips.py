"""Longest-prefix match over allowed IPs ("cryptokey routing"; paper, section 2), sans-IO.

One dictionary per prefix length that is in use, from network number to owner. A lookup tries them
from the longest to the shortest, so it costs as many dictionary probes as there are lengths: two or
three in most networks, however many entries there are.
"""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from wgd.addresses import Prefix

Owner = TypeVar("Owner", bound=Hashable)

_Table = dict[int, Owner]


class _Family(Generic[Owner]):
    """The entries of one address family, whose addresses have `bits` bits."""

    __slots__ = ("_bits", "_tables")

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._tables: list[tuple[int, _Table[Owner]]] = []
        """(host bits, network number -> owner), from the fewest host bits to the most."""

    def _table(self, host_bits: int) -> _Table[Owner]:
        for present, table in self._tables:
            if present == host_bits:
                return table
        table = {}
        self._tables.append((host_bits, table))
        self._tables.sort(key=lambda entry: entry[0])
        return table

    def owner(self, prefix: Prefix) -> Owner | None:
        host_bits = self._bits - prefix.length
        for present, table in self._tables:
            if present == host_bits:
                return table.get(int.from_bytes(prefix.address, "big") >> host_bits)
        return None

    def set(self, prefix: Prefix, owner: Owner) -> None:
        host_bits = self._bits - prefix.length
        self._table(host_bits)[int.from_bytes(prefix.address, "big") >> host_bits] = owner

    def delete(self, prefix: Prefix) -> None:
        host_bits = self._bits - prefix.length
        table = self._table(host_bits)
        del table[int.from_bytes(prefix.address, "big") >> host_bits]
        if not table:
            self._tables.remove((host_bits, table))

    def lookup(self, address: bytes) -> Owner | None:
        number = int.from_bytes(address, "big")
        for host_bits, table in self._tables:
            owner = table.get(number >> host_bits)
            if owner is not None:
                return owner
        return None


class AllowedIps(Generic[Owner]):
    """Which owner (a peer) each prefix belongs to; a prefix has at most one.

    Addresses are 4 or 16 bytes. An owner is any hashable value but None.
    """

    __slots__ = ("_ipv4", "_ipv6", "_prefixes")

    def __init__(self) -> None:
        self._ipv4: _Family[Owner] = _Family(32)
        self._ipv6: _Family[Owner] = _Family(128)
        self._prefixes: dict[Owner, dict[Prefix, None]] = {}

    def _family(self, address: bytes) -> _Family[Owner]:
        return self._ipv4 if len(address) == 4 else self._ipv6

    def insert(self, prefix: Prefix, owner: Owner) -> None:
        """Give `prefix` to `owner`, taking it from whoever has it."""
        family = self._family(prefix.address)
        previous = family.owner(prefix)
        if previous is not None:
            self._forget(prefix, previous)
        family.set(prefix, owner)
        self._prefixes.setdefault(owner, {})[prefix] = None

    def remove(self, prefix: Prefix, owner: Owner) -> None:
        """Take exactly `prefix` from `owner`; nothing happens unless they have it."""
        family = self._family(prefix.address)
        if family.owner(prefix) == owner:
            family.delete(prefix)
            self._forget(prefix, owner)

    def remove_all(self, owner: Owner) -> None:
        """Take everything from `owner`, at a cost in proportion to what they have."""
        for prefix in self._prefixes.pop(owner, ()):
            self._family(prefix.address).delete(prefix)

    def _forget(self, prefix: Prefix, owner: Owner) -> None:
        prefixes = self._prefixes[owner]
        del prefixes[prefix]
        if not prefixes:
            del self._prefixes[owner]

    def lookup(self, address: bytes) -> Owner | None:
        """Return who has the longest prefix that holds `address`, or None."""
        return self._family(address).lookup(address)

    def entries(self, owner: Owner) -> Iterable[Prefix]:
        """Return the prefixes of `owner`, in the order they were (last) inserted."""
        return tuple(self._prefixes.get(owner, ()))
