"""Changes and snapshots in slices, seen by clients: each is whole, and they take turns."""

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from wgd.clock import SystemClock
from wgd.configuration import DeviceChange, DeviceState
from wgd.dataplane.portable import PortableDataPlane
from wgd.managed import ManagedTunnel
from wgd.net.memory import MemoryNetwork
from wgd.service.recorder import Recorder, restore
from wgd.service.state import StateFile
from wgd.tun.memory import MemoryTun
from wgd.tunnel import Tunnel
from wgd.uapi.server import UapiServer

MANY = 1500


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - that is what is tested: turns of the loop
        await asyncio.sleep(0)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Served:
    """A tunnel in memory whose changes are recorded, behind a real socket."""

    def __init__(self, path: Path) -> None:
        loop = asyncio.get_running_loop()
        clock = SystemClock()
        host = MemoryNetwork(clock).host("us", "192.0.2.1")
        self.path = path
        self.dataplane = PortableDataPlane(MemoryTun(), clock)
        self.tunnel = Tunnel(
            loop,
            self.dataplane,
            clock=clock,
            open_sockets=lambda port, _fwmark: ([host.bind(port=port)], port),
            source_is_valid=lambda _endpoint, _fwmark: True,
            on_gone=pytest.fail,
        )
        self.recorder = Recorder(loop, self.tunnel)
        self.state = StateFile.create()
        self.recorder.start(self.state)
        self.server = UapiServer(ManagedTunnel(self.recorder, "wg0"))
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(self.path, limit=2**24)
        self.writers.append(writer)
        return reader, writer

    async def ask(self, request: bytes) -> bytes:
        reader, writer = await self.connect()
        writer.write(request)
        return await reader.readuntil(b"\n\n")

    async def until_changing(self, *, peers: int) -> None:
        """Return in the middle of a change: when so many peers have been added."""
        await until(lambda: len(self.tunnel._device._peers) >= peers)

    async def until_busy(self) -> None:
        """Return while a client is being shown something, or changes something."""
        await until(self.tunnel._turn.locked)

    async def hand_over(self) -> None:
        """Write down everything for the next wgd, as in an upgrade."""
        await self.recorder.settle()
        self.recorder.finish(self.state, now_wall_ns=0)

    async def restored(self) -> DeviceState:
        """Return what the next wgd would begin with."""
        device = Fresh()
        await restore(self.state.read(), device)
        return device.tunnel.get()


class Fresh:
    """A tunnel that is made what a state says."""

    def __init__(self) -> None:
        self.tunnel = Tunnel(
            asyncio.get_running_loop(),
            PortableDataPlane(MemoryTun(), SystemClock()),
            clock=SystemClock(),
            open_sockets=lambda _port, _fwmark: ([], 0),
            source_is_valid=lambda _endpoint, _fwmark: True,
            on_gone=pytest.fail,
        )
        managed = ManagedTunnel(self.tunnel, "wg1")
        self.apply, self.control = managed.apply, managed.control


@pytest.fixture
def path() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix=f"wgd{os.getpid()}-", dir="/tmp"))
    yield directory / "s"
    shutil.rmtree(directory, ignore_errors=True)


@contextlib.asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Served]:
    served = Served(path)
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    sock.bind(str(path))
    sock.listen()
    await served.server.start(sock)
    try:
        async with asyncio.timeout(20):
            yield served
    finally:
        await served.server.close()
        for writer in served.writers:
            writer.transport.abort()
        await asyncio.sleep(0)
        served.recorder.close()
        served.tunnel.close()
        served.dataplane.stop()
        served.state.close()


def request(first: int, count: int, *, replace: bool = False, keepalive: bool = False) -> bytes:
    lines = ["set=1\n", "replace_peers=true\n" if replace else ""]
    for number in range(first, first + count):
        lines.append(f"public_key={number + 1:064x}\n")
        lines.append(f"allowed_ip=10.{number >> 16}.{number >> 8 & 255}.{number & 255}/32\n")
        if keepalive:
            lines.append("persistent_keepalive_interval=25\n")
    return ("".join(lines) + "\n").encode()


def keys(answer: bytes) -> list[int]:
    lines = answer.decode().splitlines()
    return [int(line[11:], 16) - 1 for line in lines if line.startswith("public_key=")]


def test_a_get_in_the_middle_of_a_set_waits_for_all_of_it(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as served:
            setting = asyncio.create_task(served.ask(request(0, MANY)))
            await served.until_changing(peers=1)
            assert len(served.tunnel._device._peers) < MANY, "it is done in slices"
            got = await served.ask(b"get=1\n\n")
            assert keys(got) == list(range(MANY))
            assert await setting == b"errno=0\n\n"

    asyncio.run(scenario())


def test_a_set_in_the_middle_of_a_get_waits_for_the_end_of_it(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as served:
            await served.ask(request(0, MANY))
            getting = asyncio.create_task(served.ask(b"get=1\n\n"))
            await served.until_busy()
            assert await served.ask(request(0, 1, replace=True)) == b"errno=0\n\n"
            assert keys(await getting) == list(range(MANY))
            assert keys(await served.ask(b"get=1\n\n")) == [0]

    asyncio.run(scenario())


def test_two_sets_at_once_come_one_after_the_other(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as served:
            first = asyncio.create_task(served.ask(request(0, MANY, replace=True)))
            await served.until_changing(peers=1)
            second = asyncio.create_task(served.ask(request(MANY, MANY, replace=True)))
            assert {await first, await second} == {b"errno=0\n\n"}
            assert keys(await served.ask(b"get=1\n\n")) == list(range(MANY, 2 * MANY))
            assert (await served.restored()).peers == served.tunnel.get().peers

    asyncio.run(scenario())


def test_requests_of_one_client_are_answered_in_order(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as served:
            reader, writer = await served.connect()
            writer.write(request(0, MANY) + b"get=1\n\n" + request(0, 1, replace=True))
            writer.write(b"get=1\n\nset=1\nno=1\n\n")
            answers = [await reader.readuntil(b"\n\n") for _ in range(5)]
            assert answers[0] == answers[2] == b"errno=0\n\n"
            assert [len(keys(answer)) for answer in answers] == [0, MANY, 0, 1, 0]
            assert answers[4] == b"errno=-22\n\n"
            writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("after", range(0, 24, 3))
def test_who_dies_in_the_middle_of_a_set_has_made_it_whole_or_not_at_all(
    path: Path, after: int
) -> None:
    async def scenario() -> None:
        async with serving(path) as served:
            await served.ask(request(0, MANY))
            _reader, writer = await served.connect()
            writer.write(request(MANY, MANY, replace=True))
            if after >= 12:
                await writer.drain()
                await served.until_busy()
            await turns(after % 12)
            writer.transport.abort()
            for _ in range(50):
                found = keys(await served.ask(b"get=1\n\n"))
                assert found in (list(range(MANY)), list(range(MANY, 2 * MANY)))
                if not served.server._changes:
                    break
            assert (await served.restored()).peers == served.tunnel.get().peers

    asyncio.run(scenario())


def test_who_dies_in_the_middle_of_a_get_keeps_nobody_waiting(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as served:
            await served.ask(request(0, MANY))
            for _ in range(5):
                _reader, writer = await served.connect()
                writer.write(b"get=1\n\n")
                await served.until_busy()
                writer.transport.abort()
            assert await served.ask(request(0, 1, replace=True)) == b"errno=0\n\n"

    asyncio.run(scenario())


def test_the_end_comes_in_the_middle_of_a_set_when_that_is_whole(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as served:
            setting = asyncio.create_task(served.ask(request(0, MANY)))
            await served.until_changing(peers=1)
            await served.server.close()
            assert len(served.tunnel.get().peers) == MANY
            assert len((await served.restored()).peers) == MANY
            assert await setting == b"errno=0\n\n"

    asyncio.run(scenario())


def test_what_is_done_at_once_finishes_what_is_under_way_before(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as served:
            setting = asyncio.create_task(served.ask(request(0, MANY)))
            await served.until_changing(peers=1)
            assert len(served.tunnel.get().peers) == MANY
            assert await setting == b"errno=0\n\n"
            getting = asyncio.create_task(served.ask(b"get=1\n\n"))
            await served.until_busy()
            served.tunnel.set(DeviceChange(replace_peers=True))
            assert len(keys(await getting)) == MANY

    asyncio.run(scenario())


def test_a_link_that_goes_down_in_the_middle_of_a_set(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as served:
            served.tunnel.link_changed(True)
            setting = asyncio.create_task(served.ask(request(0, MANY)))
            await served.until_changing(peers=1)
            served.tunnel.link_changed(False)
            served.tunnel.routes_changed()
            served.tunnel.woke_up()
            assert await setting == b"errno=0\n\n"
            served.tunnel._device.tell_all(SystemClock().now())
            assert not any(peer.is_running for peer in served.tunnel._device._peers.values())

    asyncio.run(scenario())


def test_who_has_changed_something_just_before_an_upgrade_is_told_so(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as served:
            setting = asyncio.create_task(served.ask(request(0, MANY)))
            await served.until_changing(peers=1)
            await served.hand_over()
            await served.server.close()
            assert len((await served.restored()).peers) == MANY
            assert await setting == b"errno=0\n\n"

    asyncio.run(scenario())


def test_a_change_whose_turn_comes_after_the_handing_over_is_refused(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as served:
            async with served.tunnel.reading():
                first = asyncio.create_task(served.ask(request(0, MANY)))
                await until(lambda: len(served.server._changes) == 1)
                await turns(20)
                handed_over = asyncio.create_task(served.hand_over())
                await turns(1)
                second = asyncio.create_task(served.ask(request(MANY, 1)))
                await until(lambda: len(served.server._changes) == 2)
                await turns(20)
            await handed_over
            state = served.state.read()
            await served.server.close()
            assert served.state.read() == state
            assert len((await served.restored()).peers) == MANY
            assert await first == b"errno=0\n\n"
            assert await second == b"errno=-11\n\n"
            assert len(served.tunnel.get().peers) == MANY

    asyncio.run(scenario())


def test_a_change_that_waits_when_the_recording_begins_is_recorded(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as served:
            served.recorder._state = None
            async with served.tunnel.reading():
                setting = asyncio.create_task(served.ask(request(0, 5)))
                await until(lambda: bool(served.server._changes))
                await turns(20)
                served.recorder.start(served.state)
            assert await setting == b"errno=0\n\n"
            assert (await served.restored()).peers == served.tunnel.get().peers

    asyncio.run(scenario())


def test_a_tunnel_that_is_closed_in_the_middle_of_a_change_does_nothing_more(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as served:
            served.tunnel.link_changed(True)
            asked = request(0, MANY, keepalive=True)
            setting = [asyncio.create_task(served.ask(asked)) for _ in range(2)]
            await served.until_changing(peers=1)
            await until(lambda: len(served.server._changes) == 2)
            served.tunnel.close()
            assert await asyncio.gather(*setting) == [b"errno=0\n\n"] * 2
            assert served.tunnel._timer is None
            assert not any(peer.is_running for peer in served.tunnel._device._peers.values())

    asyncio.run(scenario())
