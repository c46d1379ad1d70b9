"""Looks up host names beside the event loop: what `Device` asks for, with `socket.getaddrinfo`.

That call may take half a minute and cannot be interrupted, so it runs in a few threads of our own.
They are no reason for the process to wait: nothing is joined, what comes too late is dropped.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from wgd.addresses import Endpoint

logger = logging.getLogger(__name__)

MAX_LOOKUPS: Final = 4
"""Names that are looked up at the same time; the others wait."""

OnResolved = Callable[[bytes, str, int, Sequence[Endpoint]], None]
"""Given the peer's public key, host and port as they were asked for, and what was found."""

GetAddrInfo = Callable[..., Sequence[tuple[Any, ...]]]
"""As `socket.getaddrinfo`."""


class Resolver:
    """Answers each `look_up` once, by `on_resolved` on `loop`: endpoints in the system's order.

    Nothing found, or a failure of the system's, is an empty answer.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_resolved: OnResolved,
        getaddrinfo: GetAddrInfo = socket.getaddrinfo,
    ) -> None:
        self._loop = loop
        self._on_resolved = on_resolved
        self._getaddrinfo = getaddrinfo
        self._asked: dict[str, list[tuple[bytes, int]]] = {}
        """Who waits for which host; each is looked up once for all of them."""
        self._waiting: deque[str] = deque()
        self._under_way = 0
        self._is_closed = False

    def look_up(self, public_key: bytes, host: str, port: int) -> None:
        """Find the addresses of `host` for this peer."""
        if (asked := self._asked.get(host)) is not None:
            asked.append((public_key, port))
            return
        self._asked[host] = [(public_key, port)]
        self._waiting.append(host)
        self._begin()

    def close(self) -> None:
        """Answer nothing any more; once or more."""
        self._is_closed = True
        self._asked.clear()
        self._waiting.clear()

    def _begin(self) -> None:
        while self._waiting and self._under_way < MAX_LOOKUPS:
            self._under_way += 1
            host = self._waiting.popleft()
            thread = threading.Thread(target=self._find, args=(host,), name="lookup", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more of them
                self._loop.call_soon(self._found, host, [])

    def _find(self, host: str) -> None:
        """Run in a thread: nothing else of this object is touched here."""
        try:
            found = self._getaddrinfo(host, None, type=socket.SOCK_DGRAM)
            addresses = [each[4] for each in found]
        except (OSError, ValueError) as error:  # UnicodeError is a ValueError
            logger.debug("event=lookup_failed host=%s reason=%r", host, str(error))
            addresses = []
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._found, host, addresses)

    def _found(self, host: str, addresses: Sequence[tuple[Any, ...]]) -> None:
        self._under_way -= 1
        if self._is_closed:
            return
        for public_key, port in self._asked.pop(host):
            self._on_resolved(
                public_key, host, port, [_endpoint(address, port) for address in addresses]
            )
        self._begin()


def _endpoint(address: tuple[Any, ...], port: int) -> Endpoint:
    scope_id = address[3] if len(address) == 4 else 0
    return Endpoint(str(address[0]).partition("%")[0], port, scope_id)
