"""Accepts clients on a listening socket; each is served by a coroutine of its own.

What asyncio's and uvloop's servers do for us, but for one thing: when no client can be accepted,
because the process or the system is out of descriptors or memory, clients wait in the backlog and
we wait with them. uvloop would turn them away, and would burn a whole CPU if even that fails.
"""

import asyncio
import logging
import math
import socket
from collections.abc import Awaitable, Callable
from typing import Final

logger = logging.getLogger(__name__)

ACCEPTS_PER_TURN: Final = 16
"""How many clients are accepted before the loop may see to something else."""

PAUSE_SECONDS: Final = 0.2
"""After a failure, before the next attempt."""

SILENCE_SECONDS: Final = 60.0
"""Failures are told once in this time."""

ServeClient = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one client, and closes the connection in the end."""


class StreamServer:
    """Serves clients of `sock`, which listens and does not block; it is this server's from now on.

    `limit` is what a client's `StreamReader` holds, in bytes.
    """

    def __init__(self, sock: socket.socket, serve: ServeClient, *, limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._serve = serve
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._silent_until = -math.inf
        self._loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Close the listening socket, once or more; the clients stay."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                client, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._wait(error)
                return
            client.setblocking(False)
            task = self._loop.create_task(self._serve_client(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _wait(self, error: OSError) -> None:
        """Let those who come wait, and try again soon."""
        self._loop.remove_reader(self._socket.fileno())
        self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)
        now = self._loop.time()
        if now >= self._silent_until:
            self._silent_until = now + SILENCE_SECONDS
            logger.error("event=accept_failed reason=%r effect='clients wait'", error.strerror)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    async def _serve_client(self, client: socket.socket) -> None:
        reader = asyncio.StreamReader(limit=self._limit, loop=self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
        try:
            transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, client)
        except OSError:  # it is gone, or there is no memory
            client.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        await self._serve(reader, writer)
