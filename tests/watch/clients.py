"""A status server on loopback or a unix socket, and clients of it that say what they like."""

import asyncio
import contextlib
import http.client
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

from tests.watch.statuses import device, peer
from wgd.status import DeviceStatus
from wgd.watch import server as watch_server
from wgd.watch.server import serve_metrics

Runs = Callable[[Coroutine[None, None, None]], None]

ONE_PEER = device(peer(1))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.asynccontextmanager
async def served(
    status: Callable[[], DeviceStatus] = lambda: ONE_PEER,
) -> AsyncIterator[tuple[str, int]]:
    """Serve on a free port of the loopback address."""
    port = free_port()
    async with contextlib.AsyncExitStack() as opened:
        await serve_metrics(opened, f"127.0.0.1:{port}", None, "wg7", status)
        yield "127.0.0.1", port


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def connected(place: tuple[str, int] | Path) -> AsyncIterator[Streams]:
    """Connect, and close in the end."""
    if isinstance(place, Path):
        reader, writer = await asyncio.open_unix_connection(place)
    else:
        reader, writer = await asyncio.open_connection(*place)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def answer_to(place: tuple[str, int] | Path, request: bytes) -> bytes:
    """Send bytes and return all that comes until the server closes."""
    async with connected(place) as (reader, writer):
        writer.write(request)
        with contextlib.suppress(ConnectionError):
            return await reader.read(-1)
    return b""


@contextlib.asynccontextmanager
async def crowd(place: tuple[str, int]) -> AsyncIterator[list[Streams]]:
    """Connect as often as is allowed."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(connected(place))
            for _ in range(watch_server.MAX_CONNECTIONS)
        ]


async def one_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return head and body of one answer on a connection that stays open."""
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = (
        int(line.split(b":")[1])
        for line in head.splitlines()
        if line.lower().startswith(b"content-length:")
    )
    return head, await reader.readexactly(length)


def request(method: str = "GET", path: str = "/metrics", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: h", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def get(host: str, port: int, path: str = "/metrics") -> bytes:
    """Ask as Python's own client does."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read()
