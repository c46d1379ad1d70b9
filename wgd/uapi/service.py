"""The UAPI socket of a tunnel that must not depend on it: one in the sandbox, or an embedded one.

1 try to make the socket and serve it; 2 if that fails, say why in the log and wait until something
changes in the directory, or in the nearest one above it that exists; then go to 1. A directory that
is not there yet is not made: in a container it is the system that makes it.
3 A socket file that somebody deletes is not made again, but if its directory went with it, go to 2.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path

from wgd.errors import WgdError
from wgd.uapi.listener import FileWatch, SocketFile, watch_entries
from wgd.uapi.server import Configurable, UapiServer
from wgd.uapi.socket_policy import SocketPlace

logger = logging.getLogger(__name__)


class UapiService:
    """Serves `device` at `place` whenever that can be; with a `tunnel_name`, a name file, too."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        device: Configurable,
        place: SocketPlace,
        interface_name: str,
        tunnel_name: str | None = None,
    ) -> None:
        self._loop = loop
        self._device = device
        self._place = place
        self._interface_name = interface_name
        self._tunnel_name = tunnel_name
        self._socket_file: SocketFile | None = None
        self._server: UapiServer | None = None
        self._wait: FileWatch | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_reason = ""

    async def start(self) -> None:
        """Make the socket now, or as soon as it can be made. Never raises."""
        try:
            socket_file = self._open()
        except (WgdError, OSError) as error:
            self._report(str(error))
            self._wait_for_change()
            return
        self._socket_file = socket_file
        socket_file.watch(self._loop, self._lost)
        self._server = UapiServer(self._device)
        await self._server.start(socket_file.sock)
        self._last_reason = ""
        logger.info("event=uapi_ready path=%s", socket_file.path)

    async def close(self) -> None:
        """Take the socket away and end every connection."""
        self._stop_waiting()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._close_socket()

    def _open(self) -> SocketFile:
        directory = self._place.directory
        if not directory.is_dir():
            raise WgdError(f"{directory} is not a directory (yet)")
        return SocketFile.create(directory, self._interface_name, tunnel_name=self._tunnel_name)

    async def _close_socket(self) -> None:
        socket_file, self._socket_file = self._socket_file, None
        server, self._server = self._server, None
        if socket_file is not None:
            socket_file.remove()
        if server is not None:
            await server.close()

    # -- failure and loss --------------------------------------------------------------------------

    def _report(self, reason: str) -> None:
        if reason != self._last_reason:
            self._last_reason = reason
            logger.error("event=uapi_unavailable reason=%r", reason)

    def _lost(self) -> None:
        logger.error("event=uapi_lost path=%s", self._place.directory / self._interface_name)
        self._run(self._after_loss)

    async def _after_loss(self) -> None:
        await self._close_socket()
        if not self._place.directory.is_dir():
            await self.start()

    def _wait_for_change(self) -> None:
        nearest = self._nearest_directory()
        try:
            self._wait = watch_entries(nearest, self._loop, self._changed)
        except (WgdError, OSError) as error:
            self._report(f"{error}; not tried again")
            return
        if self._nearest_directory() != nearest:
            self._loop.call_soon(self._changed)  # something came before the watch did

    def _nearest_directory(self) -> Path:
        nearest = self._place.directory
        while not nearest.is_dir():
            nearest = nearest.parent
        return nearest

    def _changed(self) -> None:
        if self._wait is not None:
            self._stop_waiting()
            self._run(self.start)

    def _stop_waiting(self) -> None:
        if self._wait is not None:
            self._wait.close()
            self._wait = None

    def _run(self, step: Callable[[], Coroutine[None, None, None]]) -> None:
        self._task = self._loop.create_task(step())
