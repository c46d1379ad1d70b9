"""The route watcher sees every kind of change once; a pinned source is judged by route and mark."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from tests.integration.conftest import MakeNamespace
from tests.testbed.limits import no_new_descriptors
from tests.testbed.namespaces import Namespace, unique_name
from wgd.addresses import Endpoint, Source
from wgd.net.routes import RouteWatcher, source_is_valid

pytestmark = pytest.mark.netns

TIMEOUT_SECONDS = 5


class Counted:
    """Counts calls of the watcher and lets a test wait for the next one."""

    def __init__(self) -> None:
        self.calls = 0
        self.called = asyncio.Event()

    def __call__(self) -> None:
        self.calls += 1
        self.called.set()

    async def next(self) -> None:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self.called.wait()
        self.called.clear()


def watching(netns: Namespace, scenario: Callable[[Counted], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        counted = Counted()
        watcher = RouteWatcher(asyncio.get_running_loop(), counted)
        try:
            await scenario(counted)
        finally:
            watcher.close()
            watcher.close()

    with netns.entered():
        asyncio.run(main())


def two_uplinks(make_netns: MakeNamespace) -> tuple[Namespace, str, str]:
    """Return a namespace with two uplinks, with a default route of each family by the first."""
    netns, elsewhere = make_netns(), make_netns()
    links = unique_name("a"), unique_name("b")
    for number, link in enumerate(links, 1):
        netns.ip(
            *("link", "add", link, "type", "veth", "peer"),
            *("name", unique_name("p"), "netns", elsewhere.name),
        )
        for address in (f"10.{number}.0.1/24", f"fd0{number}::1/64"):
            netns.add_address(link, address)
        netns.ip("link", "set", link, "up")
    netns.ip("route", "add", "default", "via", "10.1.0.254")
    netns.ip("-6", "route", "add", "default", "via", "fd01::fe")
    return netns, *links


CHANGES = {
    "IPv4 route": ["route", "add", "192.0.2.0/24", "dev", "lo"],
    "IPv6 route": ["-6", "route", "add", "2001:db8::/32", "dev", "lo"],
    "IPv4 address": ["address", "add", "192.0.2.1/32", "dev", "lo"],
    "IPv6 address": ["address", "add", "2001:db8::1/128", "dev", "lo", "nodad"],
    "IPv4 rule": ["rule", "add", "fwmark", "1", "table", "5"],
    "IPv6 rule": ["-6", "rule", "add", "fwmark", "1", "table", "5"],
    "link": ["link", "set", "lo", "down"],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_kind_of_change_is_seen(netns: Namespace, change: list[str]) -> None:
    async def scenario(counted: Counted) -> None:
        netns.ip(*change)
        await counted.next()
        assert counted.calls == 1

    watching(netns, scenario)


def test_a_flood_of_changes_is_a_few_calls_and_the_next_change_is_seen(netns: Namespace) -> None:
    async def scenario(counted: Counted) -> None:
        routes = [
            f"route add 10.{high}.{low}.0/24 dev lo" for high in range(8) for low in range(250)
        ]
        started = asyncio.get_running_loop().time()
        await asyncio.to_thread(netns.run, "ip", "-batch", "-", stdin="\n".join(routes))
        await counted.next()
        took = asyncio.get_running_loop().time() - started
        assert counted.calls <= took / 0.1 + 1
        while True:  # until the flood has been called out
            try:
                async with asyncio.timeout(0.3):
                    await counted.called.wait()
                counted.called.clear()
            except TimeoutError:
                break
        calls = counted.calls
        netns.ip("route", "del", "10.1.1.0/24")
        await counted.next()
        assert counted.calls == calls + 1

    watching(netns, scenario)


def test_an_overflowing_socket_is_one_change(netns: Namespace) -> None:
    async def scenario(counted: Counted) -> None:
        routes = [
            f"route add 10.{high}.{low}.0/24 dev lo" for high in range(8) for low in range(250)
        ]
        netns.run("ip", "-batch", "-", stdin="\n".join(routes))  # the loop waits meanwhile
        await counted.next()
        netns.ip("route", "del", "10.1.1.0/24")
        await counted.next()
        assert counted.calls == 2

    watching(netns, scenario)


ENDPOINTS = [("198.51.100.1", "10.1.0.1", "10.2.0.254"), ("2001:db8::1", "fd01::1", "fd02::fe")]


@pytest.mark.parametrize(("host", "ours", "other_gateway"), ENDPOINTS)
def test_a_source_is_valid_while_the_route_leaves_where_it_came(
    make_netns: MakeNamespace, host: str, ours: str, other_gateway: str
) -> None:
    netns, first, second = two_uplinks(make_netns)
    with netns.entered():
        first_index, second_index = map(_index, (first, second))
        endpoint = Endpoint(host, 51820, 0, Source(ours, first_index))
        assert source_is_valid(endpoint, 0)
        assert source_is_valid(Endpoint(host, 51820), 0), "nothing is pinned, nothing is wrong"
        assert not source_is_valid(endpoint._replace(source=Source(ours, second_index)), 0)
        family = "-6" if ":" in host else "-4"
        netns.ip(family, "route", "add", host, "via", other_gateway)
        assert not source_is_valid(endpoint, 0)
        netns.ip(family, "route", "del", host)
        netns.ip(family, "route", "del", "default")
        assert not source_is_valid(endpoint, 0), "there is no route at all"


@pytest.mark.parametrize(("host", "ours", "other_gateway"), ENDPOINTS)
def test_the_mark_is_part_of_the_question(
    make_netns: MakeNamespace, host: str, ours: str, other_gateway: str
) -> None:
    netns, first, _second = two_uplinks(make_netns)
    family = "-6" if ":" in host else "-4"
    netns.ip(family, "rule", "add", "fwmark", "0xca6c", "table", "77")
    netns.ip(family, "route", "add", "default", "via", other_gateway, "table", "77")
    with netns.entered():
        endpoint = Endpoint(host, 51820, 0, Source(ours, _index(first)))
        assert source_is_valid(endpoint, 0)
        assert not source_is_valid(endpoint, 0xCA6C)


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("198.51.100.1", 1, 0, Source("10.9.9.9", 2)),
        Endpoint("2001:db8::1", 1, 0, Source("fd09::9", 2)),
        Endpoint("fe80::1", 1, 2, Source("fe80::2", 2)),
        Endpoint("fe80::1", 1, 999, Source("fe80::2", 999)),
        Endpoint("198.51.100.1", 1, 0, Source("fd01::1", 2)),
        Endpoint("2001:db8::1", 1, 0, Source("10.1.0.1", 2)),
        Endpoint("198.51.100.1", 1, 0, Source("not an address", 2)),
        Endpoint("0.0.0.0", 0, 0, Source("10.1.0.1", -1)),
    ],
    ids=str,
)
def test_what_cannot_be_is_not_valid_and_never_raises(
    make_netns: MakeNamespace, endpoint: Endpoint
) -> None:
    netns, _first, _second = two_uplinks(make_netns)
    with netns.entered():
        assert source_is_valid(endpoint, 0) is False


def test_a_source_is_kept_when_nothing_can_be_found_out(make_netns: MakeNamespace) -> None:
    netns, first, second = two_uplinks(make_netns)
    with netns.entered():
        endpoint = Endpoint("198.51.100.1", 51820, 0, Source("10.1.0.1", _index(second)))
        with no_new_descriptors():
            assert source_is_valid(endpoint, 0)
        assert not source_is_valid(endpoint, 0)
        assert source_is_valid(endpoint._replace(source=Source("10.1.0.1", _index(first))), 0)


def _index(link: str) -> int:
    import socket

    return socket.if_nametoindex(link)
