"""The status of the peers over HTTP: `/metrics` for Prometheus, `/status` for `wgdctl top`.

The status is taken on the loop, some peers at a time, and made text in a thread; one request after
another, and never for more than half of the time: whoever asks without pause slows no handshake.
Nothing runs between two requests, and what is slow to load is loaded with the first one: the start
does not wait for it, and there is no thread before privileges are dropped.
"""

import asyncio
import contextlib
import dataclasses
import importlib.util
import logging
import socket
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from wgd.errors import WgdError
from wgd.status import PEERS_PER_PART, DeviceStatus, PeerStatus, json_parts
from wgd.uapi.stream_server import StreamServer
from wgd.watch.listener import open_sockets

if TYPE_CHECKING:
    from wgd.watch.http import Answer, HttpConnection, Question

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 16
"""Clients at once. For one more, one between two requests is closed; if there is none, the new one
is turned away. Each may hold one answer that it is slow to take."""

_READ_BUFFER_SIZE: Final = 16 * 1024

_NEEDED: Final = ("h11", "prometheus_client")
_HELP: Final = "wgd {}: /metrics for Prometheus, /status for wgdctl top (JSON)"


async def serve_metrics(
    opened: contextlib.AsyncExitStack,
    address: str,
    group: str | None,
    interface: str,
    status: Callable[[], DeviceStatus],
) -> None:
    """Serve what `status` returns on `address` until `opened` is closed.

    `address` is `HOST:PORT`, `[IPV6]:PORT`, `unix:PATH`, or `unix` for a socket named after the
    interface in the run directory. A unix socket is root's, with a `group` also its members'.
    Nothing is opened later than here, so privileges may be dropped after it. Raises WgdError.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise WgdError(
            f"--metrics needs the Python packages {' and '.join(missing)}: pip install "
            "'wgd[metrics]'"
        )
    server = StatusServer(interface, status)
    opened.push_async_callback(server.close)
    # The file of a unix socket is removed before the server closes: no client finds a dead one.
    await server.start(open_sockets(opened, address, group, interface))
    logger.info("event=metrics_ready address=%s", address)


class StatusServer:
    """Answers those who watch, on any number of listening sockets."""

    def __init__(self, interface: str, status: Callable[[], DeviceStatus]) -> None:
        self._interface = interface
        self._status = status
        self._servers: list[StreamServer] = []
        self._clients: dict[asyncio.Task[None], HttpConnection | None] = {}
        """The one that came first comes first; None while the code for it is loaded."""
        self._is_closing = False
        self._turn = asyncio.Lock()
        self._free_at = 0.0

    async def start(self, sockets: list[socket.socket]) -> None:
        """Serve clients of listening sockets; the server closes them in the end."""
        self._servers += [
            StreamServer(sock, self._serve_client, limit=_READ_BUFFER_SIZE) for sock in sockets
        ]

    async def close(self) -> None:
        """Close the listening sockets and every connection."""
        self._is_closing = True
        for server in self._servers:
            server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._servers.clear()

    # -- clients -----------------------------------------------------------------------------------

    async def _serve_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        if task is None or self._is_closing or not self._make_room():
            writer.transport.abort()
            return
        self._clients[task] = None
        try:
            make = await asyncio.to_thread(_connection_type)
            connection = self._clients[task] = make(reader, writer, self._answer)
            await connection.serve()
        except (OSError, asyncio.CancelledError):
            pass  # the client went away or was too slow, had to make room, or `close` was called
        except Exception as error:  # noqa: BLE001 - a fault of one client must stay there
            _log_fault(error)
        finally:
            self._clients.pop(task, None)
            writer.transport.abort()  # every answer has been taken, or there is nobody to wait for

    def _make_room(self) -> bool:
        """Return whether there is room for a client, made at the cost of an idle one if need be."""
        if len(self._clients) < MAX_CONNECTIONS:
            return True
        for task, connection in self._clients.items():
            if connection is not None and connection.is_idle:
                del self._clients[task]
                task.cancel()
                return True
        return False

    # -- answers -----------------------------------------------------------------------------------

    async def _answer(self, question: "Question") -> "Answer":
        from wgd.watch.http import text_answer

        match question.path:
            case "/":
                return text_answer(200, _HELP.format(ascii(self._interface)[1:-1]))
            case "/metrics":
                return await self._made_from_status(
                    lambda status: _metrics(status, question.accept)
                )
            case "/status":
                return await self._made_from_status(_json)
            case _:
                return text_answer(404, "there is /metrics, /status and /")

    async def _made_from_status(self, make: Callable[[DeviceStatus], "Answer"]) -> "Answer":
        """Return what a thread makes of the status, when it is this request's turn."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            await asyncio.sleep(self._free_at - loop.time())
            started = loop.time()
            try:
                return await asyncio.to_thread(make, await self._snapshot())
            except Exception as error:  # noqa: BLE001 - a fault of one request must stay there
                _log_fault(error)
                return _fault()
            finally:
                ended = loop.time()
                self._free_at = ended + (ended - started)

    async def _snapshot(self) -> DeviceStatus:
        """Return a status whose peers are there, made a part at a time: others have their turn."""
        status = self._status()
        peers: list[PeerStatus] = []
        for first in range(0, len(status.peers), PEERS_PER_PART):
            peers += status.peers[first : first + PEERS_PER_PART]
            await asyncio.sleep(0)
        return dataclasses.replace(status, peers=tuple(peers))


def _connection_type() -> "type[HttpConnection]":
    from wgd.watch.http import HttpConnection

    return HttpConnection


def _metrics(status: DeviceStatus, accept: str) -> "Answer":
    from wgd.watch.http import Answer
    from wgd.watch.metrics import render

    body, content_type = render(status, accept)
    return Answer(200, content_type, body)


def _fault() -> "Answer":
    from wgd.watch.http import text_answer

    return text_answer(500, "this failed: see the log of the daemon")


def _json(status: DeviceStatus) -> "Answer":
    from wgd.watch.http import Answer

    return Answer(200, "application/json", "".join(json_parts(status)).encode())


def _log_fault(error: Exception) -> None:
    """Say where it was and of what kind, but not the message: it may hold anything."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    logger.error(
        "event=metrics_request_failed error=%s at=%s:%s",
        type(error).__name__,
        place.filename,
        place.lineno,
    )
