"""Proves that the server answers rightly, holds little, and no client or fault stops others."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from wgd.addresses import Endpoint, Prefix
from wgd.configuration import ControlChange, DeviceChange, DeviceState, PeerState
from wgd.errors import ConfigurationError
from wgd.status import DeviceStatus, PeerStatus, from_json
from wgd.uapi.listener import SocketFile
from wgd.uapi.server import UapiServer

SECRET = "5ec7e7" * 10 + "abcd"
GET = b"get=1\n\n"
EMPTY = b"errno=0\n\n"


class PlainDevice:
    """One that knows neither status nor control, as other programs may have."""

    def __init__(self) -> None:
        self.state = DeviceState()
        self.changes: list[DeviceChange] = []
        self.gets = 0
        self.get_error: Exception | None = None
        self.set_error: Exception | None = None

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[DeviceState]:
        self.gets += 1
        if self.get_error is not None:
            raise self.get_error
        yield self.state

    async def apply(self, change: DeviceChange) -> None:
        if self.set_error is not None:
            raise self.set_error
        self.changes.append(change)


class FakeDevice(PlainDevice):
    def __init__(self) -> None:
        super().__init__()
        self.shown = DeviceStatus("wg0")
        self.controls: list[ControlChange] = []
        self.statuses = 0

    def status(self) -> DeviceStatus:
        self.statuses += 1
        if self.get_error is not None:
            raise self.get_error
        return self.shown

    async def control(self, change: ControlChange) -> None:
        if self.set_error is not None:
            raise self.set_error
        self.controls.append(change)


def many_peers(count: int) -> DeviceState:
    return DeviceState(
        peers=tuple(
            PeerState(
                number.to_bytes(32, "big"),
                endpoint=Endpoint("192.0.2.1", 51820),
                allowed_ips=(Prefix(number.to_bytes(4, "big"), 32),),
            )
            for number in range(count)
        )
    )


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=f"wgd{os.getpid()}-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


async def turn() -> None:
    await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await turn()


class Served:
    """A running server, and how to talk to it."""

    def __init__(self, directory: Path) -> None:
        self.device = FakeDevice()
        self.file = SocketFile.create(directory, "wg0")
        self.server = UapiServer(self.device)
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(self.file.path, limit=2**26)
        self._writers.append(writer)
        return reader, writer

    async def ask(self, data: bytes) -> bytes:
        """Send one message on a connection of its own and return the answer."""
        reader, writer = await self.connect()
        writer.write(data)
        return await reader.readuntil(b"\n\n")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Served"]:
        await self.server.start(self.file.sock)
        try:
            yield self
        finally:
            self.file.remove()
            await self.server.close()
            for writer in self._writers:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()


Run = Callable[[Callable[[Served], Awaitable[None]]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, directory: Path) -> Run:
    def runner(scenario: Callable[[Served], Awaitable[None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(30), Served(directory).running() as served:
                await scenario(served)

        with asyncio.Runner(loop_factory=request.param) as loop:
            loop.run(main())

    return runner


def test_many_transactions_on_one_connection(run: Run) -> None:
    async def scenario(served: Served) -> None:
        reader, writer = await served.connect()
        for _ in range(3):
            writer.write(b"set=1\nlisten_port=7\n\n")
            assert await reader.readuntil(b"\n\n") == b"errno=0\n\n"
            writer.write(GET)
            assert await reader.readuntil(b"\n\n") == EMPTY
        assert served.device.changes == [DeviceChange(listen_port=7)] * 3

    run(scenario)


def test_answer_to_a_set_is_one_small_segment(run: Run) -> None:
    async def scenario(served: Served) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.setblocking(False)
            await loop.sock_connect(client, str(served.file.path))
            for lines, expected in ((b"", b"errno=0\n\n"), (b"x=\n", b"errno=-22\n\n")):
                await loop.sock_sendall(client, b"set=1\n" + lines + b"\n")
                assert await loop.sock_recv(client, 32) == expected

    run(scenario)


def test_pipelined_requests_are_answered_in_order(run: Run) -> None:
    async def scenario(served: Served) -> None:
        served.device.state = DeviceState(listen_port=9)
        reader, writer = await served.connect()
        writer.write(b"set=1\nfwmark=1\n\nset=1\nbad\n\n" + GET + b"set=1\nfwmark=2\n\nget=2\n")
        expected = f"errno=0\n\nerrno=-{errno.EPROTO}\n\nlisten_port=9\nerrno=0\n\nerrno=0\n\n"
        assert (await reader.read(-1)).decode() == expected
        assert [change.fwmark for change in served.device.changes] == [1, 2]

    run(scenario)


def test_half_closed_client_gets_its_answer(run: Run) -> None:
    async def scenario(served: Served) -> None:
        for data in (GET, b"set=1\nlisten_port=1\n\n", b"set=1\nlisten_port=2"):
            reader, writer = await served.connect()
            writer.write(data)
            writer.write_eof()
            assert await reader.read(-1) == b"errno=0\n\n"
        assert [change.listen_port for change in served.device.changes] == [1, 2]

    run(scenario)


def test_a_client_that_is_gone_amid_a_set_changes_nothing(run: Run) -> None:
    async def scenario(served: Served) -> None:
        for data in (b"set=1\nlisten_port=1\n", b"set=1\nlisten_port=2", b"set=1\n"):
            for half_closes in (False, True):
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                    client.connect(str(served.file.path))
                    client.sendall(data)
                    if half_closes:
                        client.shutdown(socket.SHUT_WR)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(served.file.path))
            client.sendall(b"set=1\nlisten_port=3\n\n")  # that one is whole
        assert await served.ask(GET) == EMPTY
        await until(lambda: len(served.server._clients) <= 1)
        assert [change.listen_port for change in served.device.changes] == [3]

    run(scenario)


def test_unknown_first_line_is_closed_without_an_answer(run: Run) -> None:
    async def scenario(served: Served) -> None:
        for data in (b"get=2\n\n", b"\n", b"GET / HTTP/1.1\r\n\r\n"):
            reader, writer = await served.connect()
            writer.write(data)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read(-1) == b""

    run(scenario)


def test_error_amid_5000_peers_reaches_a_client_that_writes_first(run: Run) -> None:
    async def scenario(served: Served) -> None:
        lines = [
            f"public_key={number:064x}\nallowed_ip=::{number:x}/128\n" for number in range(5000)
        ]
        lines.insert(10, "endpoint=example.com:51820\n")
        reader, writer = await served.connect()
        writer.write(("set=1\n" + "".join(lines) + "\n").encode())
        await writer.drain()
        assert await reader.readuntil(b"\n\n") == b"errno=-22\n\n"
        assert served.device.changes == []
        writer.write(GET)
        assert await reader.readuntil(b"\n\n") == EMPTY

    run(scenario)


def test_client_stalled_within_a_message_keeps_nobody_waiting(run: Run) -> None:
    async def scenario(served: Served) -> None:
        _, stalled = await served.connect()
        stalled.write(b"set=1\nlisten_port=1\n")
        await stalled.drain()
        assert await served.ask(GET) == EMPTY
        assert await served.ask(b"set=1\nlisten_port=2\n\n") == b"errno=0\n\n"
        assert served.device.changes == [DeviceChange(listen_port=2)]

    run(scenario)


def test_client_that_does_not_read_is_not_read_from(run: Run) -> None:
    async def scenario(served: Served) -> None:
        loop = asyncio.get_running_loop()
        served.device.state = many_peers(5000)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as greedy:
            greedy.setblocking(False)
            await loop.sock_connect(greedy, str(served.file.path))
            sent = 0
            for _ in range(200):  # asks for ever, until neither side's buffers take more
                with contextlib.suppress(BlockingIOError):
                    while sent < 50_000_000:
                        sent += greedy.send(GET * 1000)
                await asyncio.sleep(0)
            assert await served.ask(b"set=1\nlisten_port=1\n\n") == b"errno=0\n\n"
            assert sent < 2_000_000
            assert served.device.gets == 1
        await until(lambda: len(served.server._clients) == 1)  # it went away: its connection ends

    run(scenario)


def test_pipelining_client_takes_turns(run: Run) -> None:
    async def scenario(served: Served) -> None:
        _, writer = await served.connect()
        writer.write(b"set=1\nfwmark=1\n\n" * 2000)
        await served.ask(b"set=1\nfwmark=2\n\n")
        position = served.device.changes.index(DeviceChange(fwmark=2))
        assert position < 200

    run(scenario)


def test_large_answer_is_whole_and_lets_others_in(run: Run) -> None:
    async def scenario(served: Served) -> None:
        served.device.state = many_peers(40_000)
        reader, writer = await served.connect()
        writer.write(GET)
        await until(lambda: served.device.gets > 0)
        # The snapshot is taken; a set is served before it is rendered, and does not show in it.
        served.device.state = DeviceState()
        first_byte = asyncio.ensure_future(reader.readexactly(1))
        assert await served.ask(b"set=1\nfwmark=5\n\n") == b"errno=0\n\n"
        assert not first_byte.done()
        answer = await first_byte + await reader.readuntil(b"\n\n")
        assert answer.endswith(b"\nerrno=0\n\n")
        assert answer.count(b"public_key=") == 40_000

    run(scenario)


def test_beyond_the_cap_the_client_that_is_silent_longest_makes_room(run: Run) -> None:
    async def scenario(served: Served) -> None:
        clients = []
        for _ in range(256):
            reader, writer = await served.connect()
            writer.write(GET)
            assert await reader.readuntil(b"\n\n") == EMPTY
            clients.append((reader, writer))
        clients[0][1].write(GET)  # the second is now the one that is silent longest
        assert await clients[0][0].readuntil(b"\n\n") == EMPTY
        assert await served.ask(GET) == EMPTY
        assert await clients[1][0].read(-1) == b""
        clients[0][1].write(GET)
        assert await clients[0][0].readuntil(b"\n\n") == EMPTY

    run(scenario)


def test_beyond_the_cap_nobody_is_cut_off_amid_a_message(run: Run) -> None:
    async def scenario(served: Served) -> None:
        clients = [await served.connect() for _ in range(256)]
        for _reader, writer in clients:
            writer.write(b"set=1\n")
        await until(lambda: not any(each.is_idle for each in served.server._clients.values()))
        assert len(served.server._clients) == 256
        reader, _ = await served.connect()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read(-1) == b""
        clients[0][1].write(b"\n")
        assert await clients[0][0].readuntil(b"\n\n") == b"errno=0\n\n"

    run(scenario)


def test_who_waits_for_an_answer_makes_no_room(run: Run) -> None:
    """Else its change would go on without it, and more and more changes would wait."""

    async def scenario(served: Served) -> None:
        turn_has_come = asyncio.Event()
        apply = served.device.apply

        async def waiting(change: DeviceChange) -> None:
            await turn_has_come.wait()
            await apply(change)

        served.device.apply = waiting  # type: ignore[method-assign]
        clients = [await served.connect() for _ in range(256)]
        for _reader, writer in clients:
            writer.write(b"set=1\n\n")
        await until(lambda: len(served.server._changes) == 256)
        late, _ = await served.connect()
        try:
            with contextlib.suppress(ConnectionResetError):
                assert await late.read(-1) == b""
        finally:
            turn_has_come.set()
        for reader, writer in clients:
            assert await reader.readuntil(b"\n\n") == EMPTY
            writer.close()
        await until(lambda: len(served.server._clients) < 256)
        assert await served.ask(GET) == EMPTY, "now there is room"

    run(scenario)


def test_errno_of_the_device_is_negative_for_set_and_positive_for_get(run: Run) -> None:
    async def scenario(served: Served) -> None:
        refusal = ConfigurationError(errno.EADDRINUSE, "port 1 is taken")
        served.device.set_error = served.device.get_error = refusal
        number = errno.EADDRINUSE
        assert await served.ask(b"set=1\nlisten_port=1\n\n") == f"errno=-{number}\n\n".encode()
        assert await served.ask(GET) == f"errno={number}\n\n".encode()

    run(scenario)


def test_unexpected_faults_are_eio_and_logged_without_secrets(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(served: Served) -> None:
        served.device.set_error = served.device.get_error = KeyError(bytes.fromhex(SECRET), SECRET)
        reader, writer = await served.connect()
        for _ in range(2):
            writer.write(f"set=1\nprivate_key={SECRET}\n\n".encode())
            assert await reader.readuntil(b"\n\n") == b"errno=-5\n\n"
            writer.write(GET)
            assert await reader.readuntil(b"\n\n") == b"errno=5\n\n"
        writer.write(f"set=1\npreshared_key={SECRET}\n\n".encode())
        assert await reader.readuntil(b"\n\n") == b"errno=-22\n\n"

    with caplog.at_level(logging.DEBUG):
        run(scenario)
    assert "KeyError" in caplog.text
    assert "test_uapi_server.py" in caplog.text
    assert SECRET[:10] not in caplog.text
    assert repr(bytes.fromhex(SECRET))[2:10] not in caplog.text
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("wgd")]
    assert len(messages) == 5
    assert all("\n" not in message for message in messages)


def test_unrenderable_state_is_eio(run: Run) -> None:
    async def scenario(served: Served) -> None:
        served.device.state = DeviceState(listen_port=1, peers=(None,))  # type: ignore[arg-type]  # a fault on purpose
        assert await served.ask(GET) == b"errno=5\n\n"
        served.device.state = DeviceState()
        assert await served.ask(GET) == EMPTY

    run(scenario)


def test_zone_by_name_uses_the_interfaces_of_this_machine(run: Run) -> None:
    async def scenario(served: Served) -> None:
        index, name = socket.if_nameindex()[0]
        lines = f"set=1\npublic_key={'00' * 32}\nendpoint=[fe80::1%{name}]:1\n\n"
        assert await served.ask(lines.encode()) == b"errno=0\n\n"
        assert served.device.changes[0].peers[0].endpoint == Endpoint("fe80::1", 1, index)
        assert await served.ask(lines.replace(name, "nosuchif").encode()) == b"errno=-22\n\n"

    run(scenario)


def test_clients_that_vanish_leave_nothing_behind(run: Run) -> None:
    async def scenario(served: Served) -> None:
        served.device.state = many_peers(3000)
        for data in (b"", b"set=1\n", GET, GET * 50):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.connect(str(served.file.path))
                client.sendall(data)
        served.device.state = DeviceState()
        assert await served.ask(GET) == EMPTY
        await until(lambda: len(served.server._clients) <= 1)

    run(scenario)


def test_close_ends_every_connection(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served) -> None:
        reader, writer = await served.connect()
        writer.write(GET)
        assert await reader.readuntil(b"\n\n") == EMPTY
        writer.write(b"set=1\nlisten_port=1\n")
        await turn()
        served.file.remove()
        await served.server.close()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read(-1) == b""
        with pytest.raises(FileNotFoundError):
            await served.connect()
        assert served.device.changes == []  # half a set is not a set because the server ends

    run(scenario)
    assert caplog.records == []


# -- status and control ----------------------------------------------------------------------------

STATUS = b"status=1\n\n"


def status_in(answer: bytes) -> DeviceStatus:
    line, end = answer.split(b"\n", 1)
    assert end == b"errno=0\n\n"
    name, _, document = line.partition(b"=")
    assert name == b"status"
    return from_json(json.loads(document))


def test_a_status_is_one_line_of_json(run: Run) -> None:
    async def scenario(served: Served) -> None:
        peers = tuple(PeerStatus(f"key{n}", failures=()) for n in range(1000))
        served.device.shown = DeviceStatus("wg0", drops={"no_route": 3}, peers=peers)
        assert status_in(await served.ask(STATUS)) == served.device.shown

    run(scenario)


def test_a_status_of_65536_peers_lets_others_in_and_never_stops_the_loop_for_long(
    run: Run,
) -> None:
    async def scenario(served: Served) -> None:
        peer = PeerStatus("k" * 44, allowed_ips=("10.0.0.1/32",))
        served.device.shown = DeviceStatus("wg0", peers=(peer,) * 65_536)
        answer = asyncio.ensure_future(served.ask(STATUS))
        await until(lambda: served.device.statuses > 0)
        turns = 0
        for _ in range(20):
            assert await served.ask(b"set=1\nfwmark=5\n\n") == b"errno=0\n\n"
            turns += not answer.done()
        assert turns == 20
        assert (await answer).count(b"10.0.0.1/32") == 65_536

    run(scenario)


def test_a_control_is_applied_and_answered_like_a_set(run: Run) -> None:
    async def scenario(served: Served) -> None:
        key = bytes([7]) * 32
        lines = f"log_level=info\nendpoint_host={key.hex()} vpn.example.org:51820\n"
        assert await served.ask(f"control=1\n{lines}\n".encode()) == b"errno=0\n\n"
        assert await served.ask(f"control=1\n{lines}nonsense\n\n".encode()) == b"errno=-71\n\n"
        served.device.set_error = ConfigurationError(errno.ENOENT, "no such peer")
        assert await served.ask(f"control=1\n{lines}\n".encode()) == b"errno=-2\n\n"
        expected = ControlChange("info", ((key, "vpn.example.org:51820"),))
        assert served.device.controls == [expected]
        assert served.device.changes == []

    run(scenario)


def test_faults_of_status_and_control_stay_there(run: Run) -> None:
    async def scenario(served: Served) -> None:
        served.device.set_error = served.device.get_error = KeyError("x")
        assert await served.ask(STATUS) == b"errno=5\n\n"
        assert await served.ask(b"control=1\n\n") == b"errno=-5\n\n"
        served.device.get_error = None
        served.device.shown = DeviceStatus("wg0", peers=(None,))  # type: ignore[arg-type]  # a fault
        assert await served.ask(STATUS) == b"errno=5\n\n"
        assert await served.ask(GET) == EMPTY

    run(scenario)


def test_a_device_without_status_and_control_refuses_both(run: Run) -> None:
    async def scenario(served: Served) -> None:
        served.server._device = PlainDevice()
        number = errno.EOPNOTSUPP
        assert await served.ask(STATUS) == f"errno={number}\n\n".encode()
        assert await served.ask(b"control=1\nlog_level=info\n\n") == f"errno=-{number}\n\n".encode()
        assert await served.ask(GET) == EMPTY

    run(scenario)
