"""Longest-prefix match agrees with a brute-force search, and ownership moves as it should."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgd.addresses import Prefix
from wgd.dataplane.allowed_ips import AllowedIps

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def prefix(text: str) -> Prefix:
    network = ipaddress.ip_network(text)
    return Prefix(network.network_address.packed, network.prefixlen)


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


class Model:
    """Every entry in one list, searched from end to end with `ipaddress`."""

    def __init__(self) -> None:
        self.rows: list[tuple[Network, str]] = []

    def insert(self, network: Network, owner: str) -> None:
        self.rows = [row for row in self.rows if row[0] != network] + [(network, owner)]

    def remove(self, network: Network, owner: str) -> None:
        self.rows = [row for row in self.rows if row != (network, owner)]

    def remove_all(self, owner: str) -> None:
        self.rows = [row for row in self.rows if row[1] != owner]

    def lookup(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
        matches = [row for row in self.rows if address in row[0]]
        return max(matches, key=lambda row: row[0].prefixlen)[1] if matches else None


# Few address bits vary, so that prefixes overlap and repeat.
@st.composite
def networks(draw: st.DrawFn) -> Network:
    if draw(st.booleans()):
        number = draw(st.integers(0, 15)) << 28 | draw(st.integers(0, 3))
        return ipaddress.IPv4Network((number, draw(st.integers(0, 32))), strict=False)
    number = draw(st.integers(0, 15)) << 124 | draw(st.integers(0, 3))
    return ipaddress.IPv6Network((number, draw(st.integers(0, 128))), strict=False)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "insert", "remove", "all"]), networks(), st.sampled_from("abc")
    ),
    max_size=30,
)


@given(OPERATIONS, st.lists(networks(), min_size=1, max_size=10))
@settings(deadline=None)
def test_agrees_with_brute_force(
    operations: list[tuple[str, Network, str]], probes: list[Network]
) -> None:
    table: AllowedIps[str] = AllowedIps()
    model = Model()
    for operation, network, owner in operations:
        entry = Prefix(network.network_address.packed, network.prefixlen)
        if operation == "insert":
            table.insert(entry, owner)
            model.insert(network, owner)
        elif operation == "remove":
            table.remove(entry, owner)
            model.remove(network, owner)
        else:
            table.remove_all(owner)
            model.remove_all(owner)
    for probe in [*probes, *(row[1] for row in operations)]:
        for address in (probe.network_address, probe.broadcast_address):
            assert table.lookup(address.packed) == model.lookup(address)
    for owner in "abc":
        expected = [str(network) for network, of in model.rows if of == owner]
        assert [str(entry) for entry in table.entries(owner)] == expected


def test_longest_prefix_wins_whatever_the_order() -> None:
    table: AllowedIps[str] = AllowedIps()
    table.insert(prefix("10.1.2.3/32"), "host")
    table.insert(prefix("0.0.0.0/0"), "default")
    table.insert(prefix("10.1.0.0/16"), "site")
    assert table.lookup(packed("10.1.2.3")) == "host"
    assert table.lookup(packed("10.1.2.4")) == "site"
    assert table.lookup(packed("10.2.0.0")) == "default"


def test_families_do_not_mix() -> None:
    table: AllowedIps[str] = AllowedIps()
    table.insert(prefix("::/0"), "six")
    assert table.lookup(packed("1.2.3.4")) is None
    table.insert(prefix("0.0.0.0/0"), "four")
    assert table.lookup(packed("::1.2.3.4")) == "six"


def test_insert_takes_the_prefix_from_its_owner() -> None:
    table: AllowedIps[str] = AllowedIps()
    table.insert(prefix("10.0.0.0/8"), "a")
    table.insert(prefix("10.0.0.0/8"), "b")
    assert list(table.entries("a")) == []
    assert list(table.entries("b")) == [prefix("10.0.0.0/8")]
    assert table.lookup(packed("10.9.9.9")) == "b"


def test_only_the_owner_loses_a_prefix() -> None:
    table: AllowedIps[str] = AllowedIps()
    table.insert(prefix("10.0.0.0/8"), "a")
    table.remove(prefix("10.0.0.0/8"), "b")
    table.remove(prefix("10.0.0.0/9"), "a")
    assert table.lookup(packed("10.9.9.9")) == "a"
    table.remove(prefix("10.0.0.0/8"), "a")
    table.remove(prefix("10.0.0.0/8"), "a")
    assert table.lookup(packed("10.9.9.9")) is None


def test_an_owner_that_is_false_is_an_owner() -> None:
    table: AllowedIps[int] = AllowedIps()
    table.insert(prefix("10.0.0.0/8"), 0)
    table.insert(prefix("0.0.0.0/0"), 1)
    assert table.lookup(packed("10.9.9.9")) == 0


@pytest.mark.parametrize("count", [200_000])
def test_many_entries_do_not_slow_a_lookup_down(count: int) -> None:
    table: AllowedIps[int] = AllowedIps()
    for number in range(count):
        table.insert(Prefix(number.to_bytes(4, "big"), 32), number % 100)
    for number in range(0, count, 997):
        assert table.lookup(number.to_bytes(4, "big")) == number % 100
    assert table.lookup(count.to_bytes(4, "big")) is None
    table.remove_all(7)
    assert table.lookup((107).to_bytes(4, "big")) is None
    assert table.lookup((108).to_bytes(4, "big")) == 8
