"""When no client can be accepted, clients wait, and the server does not burn a CPU meanwhile."""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from tests.testbed.limits import no_new_descriptors
from wgd.uapi.stream_server import StreamServer

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def runner(scenario: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(30):
                await scenario()

        with asyncio.Runner(loop_factory=request.param) as loop:
            loop.run(main())

    return runner


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readline())
    writer.close()


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[None]:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen(8)
    listening.setblocking(False)
    server = StreamServer(listening, echo, limit=1024)
    try:
        yield
    finally:
        server.close()
        server.close()
        assert listening.fileno() == -1


async def asks(client: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, b"hello\n")
    return await loop.sock_recv(client, 100)


def connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.setblocking(False)
    client.connect(str(path))  # in the backlog
    return client


def test_without_a_descriptor_clients_wait(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with served(tmp_path / "s"):
            clients = [connected(tmp_path / "s") for _ in range(3)]
            with no_new_descriptors():
                used = time.process_time()
                asked = [asyncio.create_task(asks(client)) for client in clients]
                await asyncio.sleep(0.5)
                assert not any(task.done() for task in asked)
                assert time.process_time() - used < 0.1
            assert await asyncio.gather(*asked) == [b"hello\n"] * 3
            for client in clients:
                client.close()

    with caplog.at_level(logging.INFO):
        run(scenario)
    assert [record.getMessage() for record in caplog.records] == [
        "event=accept_failed reason='Too many open files' effect='clients wait'"
    ]


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED])
def test_other_failures_to_accept_pass_too(
    run: Run, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [number, number]

    def accept(self: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise OSError(failures.pop(), "as the test wants it")
        fd, address = self._accept()  # type: ignore[attr-defined]
        return socket.socket(fileno=fd), address

    async def scenario() -> None:
        async with served(tmp_path / "s"):
            with connected(tmp_path / "s") as client:
                assert await asks(client) == b"hello\n"
        assert not failures

    monkeypatch.setattr(socket.socket, "accept", accept)
    run(scenario)


def test_a_server_that_waits_can_be_closed(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path / "s"):
            with connected(tmp_path / "s"), no_new_descriptors():
                await asyncio.sleep(0.05)

    run(scenario)
