"""The configuration socket: clients in, answers out (asyncio, plain or uvloop).

One coroutine per client: 1 read a chunk; 2 let the protocol turn it into requests; 3 answer each
with one write, and wait until the client has taken it. So a client that does not read its answer is
not read from either, holds one answer and a bounded read buffer, and keeps nobody waiting.

What takes long is done in slices with other work in between. A change that was begun is applied
whole even when its client goes away meanwhile.
"""

import asyncio
import errno
import logging
import select
import socket
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, runtime_checkable

from wgd.configuration import ControlChange, DeviceChange, DeviceState
from wgd.errors import ConfigurationError
from wgd.status import DeviceStatus
from wgd.uapi.format import end_of_answer, get_answer, status_answer
from wgd.uapi.grammar import ResolveZone
from wgd.uapi.protocol import (
    BadRequest,
    Close,
    Connection,
    ControlRequest,
    GetRequest,
    Request,
    SetRequest,
    StatusRequest,
)
from wgd.uapi.stream_server import StreamServer

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 256
"""Clients at once. For one more the one that has been silent longest between two messages is
closed; if there is none, the new one is turned away without an answer. Who waits for an answer is
not silent."""

READ_SIZE: Final = 16 * 1024
"""Bytes parsed in one go, a few milliseconds' worth."""


class Configurable(Protocol):
    """What the server shows and changes."""

    def reading(self) -> AbstractAsyncContextManager[DeviceState]:
        """Give a consistent snapshot whose peers are made when they are looked at.

        Changes wait for the end of it.
        """

    async def apply(self, change: DeviceChange) -> None:
        """Apply `change` whole; raises ConfigurationError when none of it was applied."""


@runtime_checkable
class Managed(Configurable, Protocol):
    """A device that also answers `status` and `control`."""

    def status(self) -> DeviceStatus:
        """Return what it is doing: a consistent snapshot."""

    async def control(self, change: ControlChange) -> None:
        """Apply `change` whole; raises ConfigurationError when none of it was applied.

        With ENOENT for a public key that is no peer's.
        """


class UapiServer:
    """Serves the configuration protocol on one listening unix socket.

    A `device` that is not `Managed` refuses `status` and `control` with EOPNOTSUPP.
    """

    def __init__(
        self, device: Configurable, resolve_zone: ResolveZone = socket.if_nametoindex
    ) -> None:
        self._device = device
        self._resolve_zone = resolve_zone
        self._server: StreamServer | None = None
        self._clients: dict[asyncio.Task[None], Connection] = {}
        """The one heard from last comes last."""
        self._waiting: dict[asyncio.Task[None], Request] = {}
        """What clients wait for the answer to: none of them makes room for others."""
        self._is_closing = False
        self._changes: set[asyncio.Task[None]] = set()

    async def start(self, sock: socket.socket) -> None:
        """Serve clients of `sock`, a listening stream socket; the server closes it in the end."""
        self._server = StreamServer(sock, self._serve_client, limit=READ_SIZE)

    async def close(self) -> None:
        """Close the listening socket and every connection. Remove the socket file before this.

        What is being changed is changed when it returns, and its client knows.
        """
        if self._server is None:
            return
        self._is_closing = True
        self._server.close()
        for task in self._clients:
            if not isinstance(self._waiting.get(task), SetRequest | ControlRequest):
                task.cancel()
        await asyncio.gather(*self._clients, *self._changes, return_exceptions=True)
        self._server = None

    async def _serve_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        if task is None or self._is_closing or not self._make_room():
            logger.warning("event=uapi_client_refused connections=%d", len(self._clients))
            writer.transport.abort()
            return
        self._clients[task] = connection = Connection(self._resolve_zone)
        try:
            # With a high-water mark of 0, drain() waits until the client has taken everything.
            writer.transport.set_write_buffer_limits(high=0)
            while data := await reader.read(READ_SIZE):
                if self._clients.pop(task, None) is None:
                    return  # it had to make room
                self._clients[task] = connection
                if not await self._answer(task, connection.receive_data(data), writer):
                    return
                await asyncio.sleep(0)  # more may have been read by the loop already
            # A client that has only finished sending (`nc -U`) still gets its answer, and what it
            # said counts. One that was killed amid a `set` would have half of it applied.
            if not _is_gone(writer.get_extra_info("socket").fileno()):
                await self._answer(task, connection.receive_eof(), writer)
        except (OSError, asyncio.CancelledError):
            # The client went away, had to make room, or `close` was called. It ends here: from a
            # cancelled task asyncio 3.11 makes an error in the log.
            pass
        finally:
            self._clients.pop(task, None)
            # Not close(): every answer has been taken, or there is nobody to wait for.
            writer.transport.abort()

    def _make_room(self) -> bool:
        """Return whether there is room for a client, made at the cost of an idle one if need be."""
        if len(self._clients) < MAX_CONNECTIONS:
            return True
        for task, connection in self._clients.items():
            if connection.is_idle and task not in self._waiting:
                del self._clients[task]
                task.cancel()
                return True
        return False

    async def _answer(
        self, task: asyncio.Task[None], requests: list[Request], writer: asyncio.StreamWriter
    ) -> bool:
        for request in requests:
            if isinstance(request, Close):
                return False
            self._waiting[task] = request
            try:
                answer = await self._answer_to(request)
            finally:
                del self._waiting[task]
            writer.write(answer)
            if self._is_closing:
                await asyncio.sleep(0)  # It leaves now, or never: nobody is waited for.
                return False
            await writer.drain()
            await asyncio.sleep(0)  # Pipelined requests of one client take turns with the others.
        return True

    async def _answer_to(
        self, request: GetRequest | StatusRequest | SetRequest | ControlRequest | BadRequest
    ) -> bytes:
        match request:
            case GetRequest():
                return await self._shown(get_answer)
            case StatusRequest():
                return await self._shown(lambda _state: status_answer(self._managed().status()))
            case SetRequest():
                return await self._changed(self._device.apply(request.change))
            case ControlRequest():
                return await self._changed(self._control(request.change))
            case BadRequest():
                _log_refusal(request.errno, request.reason)
                return end_of_answer(request.errno)

    async def _shown(self, answer: Callable[[DeviceState], Iterable[bytes]]) -> bytes:
        """Return an answer that is made in parts, with a turn for others after each."""
        try:
            parts = []
            async with self._device.reading() as state:
                for part in answer(state):
                    parts.append(part)
                    await asyncio.sleep(0)
            return b"".join(parts)
        except Exception as error:  # noqa: BLE001 - a fault of one request must stay there
            return end_of_answer(_errno_of(error))

    async def _changed(self, change: Coroutine[None, None, None]) -> bytes:
        """Return the answer to a change, which goes on if nobody waits for it any more."""
        task = asyncio.get_running_loop().create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        try:
            await asyncio.shield(task)
        except Exception as error:  # noqa: BLE001 - a fault of one request must stay there
            return end_of_answer(-_errno_of(error))
        return end_of_answer(0)

    async def _control(self, change: ControlChange) -> None:
        await self._managed().control(change)

    def _managed(self) -> Managed:
        if isinstance(self._device, Managed):
            return self._device
        raise ConfigurationError(
            errno.EOPNOTSUPP, "the program this tunnel is in offers neither status nor control"
        )


def _errno_of(error: Exception) -> int:
    """Log what went wrong and return the positive errno for it."""
    if isinstance(error, ConfigurationError):
        _log_refusal(error.errno, str(error))
        return error.errno
    # Neither the message nor a traceback, which may hold keys: the type and the place must do.
    place = traceback.extract_tb(error.__traceback__)[-1]
    logger.error(
        "event=uapi_request_failed error=%s at=%s:%s",
        type(error).__name__,
        place.filename,
        place.lineno,
    )
    return errno.EIO


def _log_refusal(number: int, reason: str) -> None:
    name = errno.errorcode.get(abs(number), str(number))
    logger.warning("event=uapi_request_refused errno=%s reason=%r", name, reason)


def _is_gone(fd: int) -> bool:
    """Whether the client of this unix socket has closed it, and not only finished sending."""
    if sys.platform == "linux":
        poll = select.poll()
        poll.register(fd, 0)
        return bool(poll.poll(0))  # POLLHUP, which half a close is not
    with socket.fromfd(fd, socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.getpeername()
        except OSError:
            return True
    return False
