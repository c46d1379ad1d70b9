"""The resolver: answers on the loop, threads that are few, and an end that waits for nothing."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from wgd.addresses import Endpoint
from wgd.resolver import MAX_LOOKUPS, Resolver

Answer = tuple[bytes, str, int, tuple[Endpoint, ...]]


class System:
    """A `getaddrinfo` that waits until it is let go, and what was asked of it."""

    def __init__(self) -> None:
        self.names: dict[str, Sequence[tuple[Any, ...]]] = {}
        self.asked: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.may_answer = threading.Event()
        self._lock = threading.Lock()

    def getaddrinfo(self, host: str, port: None, **options: object) -> list[tuple[Any, ...]]:
        assert port is None
        assert options == {"type": socket.SOCK_DGRAM}
        with self._lock:
            self.asked.append(host)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.may_answer.wait(10)
        with self._lock:
            self.at_once -= 1
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", address) for address in self.names[host]]


@pytest.fixture
def system() -> Iterator[System]:
    system = System()
    yield system
    system.may_answer.set()


class Asker:
    """A resolver, and its answers as they come."""

    def __init__(self, system: System) -> None:
        self.answers: asyncio.Queue[Answer] = asyncio.Queue()
        self.resolver = Resolver(asyncio.get_running_loop(), self._take, system.getaddrinfo)

    def _take(self, key: bytes, host: str, port: int, found: Sequence[Endpoint]) -> None:
        self.answers.put_nowait((key, host, port, tuple(found)))

    async def take(self, count: int) -> list[Answer]:
        async with asyncio.timeout(5):
            return [await self.answers.get() for _ in range(count)]


def test_what_is_found_keeps_its_order_and_its_zones(system: System) -> None:
    async def scenario() -> list[Answer]:
        asker = Asker(system)
        asker.resolver.look_up(b"k", "vpn.example", 7)
        assert asker.answers.empty()
        return await asker.take(1)

    system.may_answer.set()
    system.names["vpn.example"] = [
        ("fe80::1%eth0", 0, 0, 3),
        ("192.0.2.1", 0),
        ("2001:db8::1", 0, 0, 0),
    ]
    expected = Endpoint("fe80::1", 7, 3), Endpoint("192.0.2.1", 7), Endpoint("2001:db8::1", 7)
    assert asyncio.run(scenario()) == [(b"k", "vpn.example", 7, expected)]


@pytest.mark.parametrize("host", ["nowhere.example", "x" * 70 + ".example", "a..b", "\ud800"])
def test_what_is_not_found_is_an_empty_answer(system: System, host: str) -> None:
    async def scenario() -> list[Answer]:
        asker = Asker(system)
        if host != "nowhere.example":  # the real one refuses such names by itself
            asker.resolver = Resolver(asyncio.get_running_loop(), asker._take)
        asker.resolver.look_up(b"k", host, 7)
        return await asker.take(1)

    system.may_answer.set()
    assert asyncio.run(scenario()) == [(b"k", host, 7, ())]


def test_a_name_is_looked_up_once_for_all_who_ask_meanwhile(system: System) -> None:
    async def scenario() -> list[Answer]:
        asker = Asker(system)
        for number in range(100):
            asker.resolver.look_up(bytes([number]), "vpn.example", number + 1)
        system.may_answer.set()
        answers = await asker.take(100)
        asker.resolver.look_up(b"later", "vpn.example", 7)
        await asker.take(1)
        return answers

    system.names["vpn.example"] = [("192.0.2.1", 0)]
    answers = asyncio.run(scenario())
    assert [(key, port) for key, _host, port, _found in answers] == [
        (bytes([number]), number + 1) for number in range(100)
    ]
    assert {found for *_, found in answers} == {(Endpoint("192.0.2.1", n + 1),) for n in range(100)}
    assert system.asked == ["vpn.example"] * 2


def test_many_names_take_few_threads(system: System) -> None:
    async def scenario() -> list[Answer]:
        asker = Asker(system)
        before = threading.active_count()
        for number in range(50):
            asker.resolver.look_up(b"k", f"{number}.example", 7)
        assert threading.active_count() - before <= MAX_LOOKUPS
        system.may_answer.set()
        return await asker.take(50)

    assert len({host for _key, host, _port, _found in asyncio.run(scenario())}) == 50
    assert 1 <= system.most_at_once <= MAX_LOOKUPS


def test_closing_waits_for_nothing_and_nothing_comes_later(system: System) -> None:
    async def scenario() -> Asker:
        asker = Asker(system)
        for number in range(10):
            asker.resolver.look_up(b"k", f"{number}.example", 7)
        asker.resolver.close()
        return asker

    began = time.monotonic()
    asker = asyncio.run(scenario())
    assert time.monotonic() - began < 5
    asked = len(system.asked)
    system.may_answer.set()  # the loop is closed: the threads find nobody to tell
    assert asker.answers.empty()
    assert len(system.asked) == asked


def test_no_thread_to_be_had_is_an_empty_answer(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario() -> list[Answer]:
        asker = Asker(system)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            asker.resolver.look_up(b"k", "vpn.example", 7)
        first = await asker.take(1)
        asker.resolver.look_up(b"k", "vpn.example", 7)
        return first + await asker.take(1)

    system.may_answer.set()
    system.names["vpn.example"] = [("192.0.2.1", 0)]
    assert [found for *_, found in asyncio.run(scenario())] == [(), (Endpoint("192.0.2.1", 7),)]


def test_a_name_of_the_hosts_file_is_found_by_the_system() -> None:
    async def scenario() -> list[Answer]:
        asker = Asker(System())
        asker.resolver = Resolver(asyncio.get_running_loop(), asker._take)
        asker.resolver.look_up(b"k", "localhost", 7)
        return await asker.take(1)

    ((_key, _host, _port, found),) = asyncio.run(scenario())
    assert {endpoint.host for endpoint in found} & {"127.0.0.1", "::1"}
    assert len(set(found)) == len(found)
