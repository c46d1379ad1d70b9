"""What a macOS route socket says about links, addresses and routes. Never polls.

`decode` reads the kernel's messages; the two watchers act on them:

    DarwinLinkWatcher   our utun goes up or down, or changes its MTU
    NetworkWatcher      the network under the tunnel has changed: its UDP sockets want replacing

Structures and numbers are those of xnu: bsd/net/route.h, bsd/net/if.h, in the byte order of the
machine, and aligned as its compiler does.
"""

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

logger = logging.getLogger(__name__)

AF_ROUTE: Final = 17  # as a number: Linux's is another, and tests run there
RTM_VERSION: Final = 5

RTM_ADD: Final = 0x1
RTM_DELETE: Final = 0x2
RTM_CHANGE: Final = 0x3
RTM_NEWADDR: Final = 0xC
RTM_DELADDR: Final = 0xD
RTM_IFINFO: Final = 0xE

RTF_HOST: Final = 0x4
IFF_UP: Final = 0x1
IFF_RUNNING: Final = 0x40

SETTLE_SECONDS: Final = 1.0
"""A network change is many messages: look once for all that come within this time."""

STORM_PAUSE_SECONDS: Final = 10.0
"""Sends that fail lead to new sockets at most this often: the network may just be away."""

PEER_TO_PEER_INTERFACES: Final = ("awdl", "llw")
"""AirDrop and the like: they come and go all day, and never lead to a peer."""

MESSAGES_PER_WAKEUP: Final = 64

_RECEIVE_SIZE: Final = 4096  # more than any header with eight addresses behind it
_RTA_DST: Final = 0x1
_RTA_NETMASK: Final = 0x4
_ADDRESS_KINDS: Final = 8
_AF_INET6: Final = 30

_HEADER: Final = struct.Struct("=HBB")  # length, version, type
_ROUTE: Final = struct.Struct("=HBBH2xiiiii")  # index, flags, addresses, pid, sequence, errno
_ROUTE_SIZE: Final = 92
_INTERFACE: Final = struct.Struct("=HBBiiH")  # addresses, flags, index; addresses alike
_ROUTES: Final = (RTM_ADD, RTM_DELETE, RTM_CHANGE)
_INTERFACES: Final = (RTM_NEWADDR, RTM_DELADDR, RTM_IFINFO)


class RouteMessage(NamedTuple):
    """One message: its RTM_ kind, the interface it is about, and for RTM_IFINFO its IFF_ flags.

    `is_default`: it is about a default route.
    """

    kind: int
    interface_index: int
    flags: int = 0
    is_default: bool = False


def decode(data: bytes) -> Iterator[RouteMessage]:
    """Yield what `data`, one read of a route socket, says; what is not understood is left out."""
    while len(data) >= _HEADER.size:
        length, version, kind = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            return
        message, data = data[:length], data[length:]
        if version != RTM_VERSION:
            continue
        if kind in _INTERFACES and length >= _INTERFACE.size:
            *_header, flags, index = _INTERFACE.unpack_from(message)
            yield RouteMessage(kind, index, flags if kind == RTM_IFINFO else 0)
        elif kind in _ROUTES and length >= _ROUTE_SIZE:
            *_header, index, flags, addresses, _pid, _sequence, error = _ROUTE.unpack_from(message)
            if not error:  # else somebody's request that has failed
                is_default = not flags & RTF_HOST and _is_default(message[_ROUTE_SIZE:], addresses)
                yield RouteMessage(kind, index, is_default=is_default)


def _is_default(data: bytes, present: int) -> bool:
    """Return whether destination and netmask among these socket addresses are zero.

    wg-quick's 0.0.0.0/1 has the same destination as the default route, but not its netmask.
    """
    if not present & _RTA_DST:
        return False
    family = 0
    for number in range(_ADDRESS_KINDS):
        kind = 1 << number
        if not present & kind:
            continue
        if not data or len(data) < data[0]:
            return False  # cut
        address = data[: data[0]]
        # A netmask has no family of its own, and only as many bytes as are not zero.
        if kind == _RTA_DST and len(address) > 1:
            family = address[1]
        if kind in (_RTA_DST, _RTA_NETMASK) and any(address[8 if family == _AF_INET6 else 4 :]):
            return False
        data = data[max((data[0] + 3) & ~3, 4) :]
    return True


class _RouteSocket:
    """Hands every message to `on_message`, and calls `on_lost` when there were too many."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[RouteMessage], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._on_message = on_message
        self._on_lost = on_lost
        self._socket = socket.socket(AF_ROUTE, socket.SOCK_RAW, 0)
        self._socket.setblocking(False)
        loop.add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _readable(self) -> None:
        """Take some; the loop calls again while there are more."""
        for _message in range(MESSAGES_PER_WAKEUP):
            if self._socket.fileno() < 0:  # closed by what a message led to
                return
            try:
                data = self._socket.recv(_RECEIVE_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._on_lost()
                continue
            for message in decode(data):
                self._on_message(message)


class WatchedTun(Protocol):
    """What is asked of a TUN device; see `DarwinTun`."""

    def interface_index(self) -> int:
        """Return the index of the interface. Raises OSError."""

    def is_up(self) -> bool:
        """Return whether it is administratively up. Raises OSError (ENXIO: gone)."""

    def mtu(self) -> int:
        """Return its MTU in bytes. Raises OSError (ENXIO: gone)."""


class DarwinLinkWatcher:
    """Watches the interface of `tun` and calls back, on `loop`, on changes only.

    `on_link(up)` says whether the interface is up, first for the state it is found in;
    `on_mtu(mtu)` gives its MTU in bytes, likewise. `on_gone(reason)` comes last. A message only
    says "look": the state is asked of the kernel, so that none is missed when messages are lost.
    Raises OSError if the route socket cannot be opened.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tun: WatchedTun,
        *,
        on_link: Callable[[bool], None],
        on_mtu: Callable[[int], None],
        on_gone: Callable[[str], None],
    ) -> None:
        self._tun = tun
        self._index = tun.interface_index()
        self._on_link = on_link
        self._on_mtu = on_mtu
        self._on_gone = on_gone
        self._up: bool | None = None
        self._mtu: int | None = None
        self._socket = _RouteSocket(loop, self._handle, self._look)
        self._beginning = loop.call_soon(self._look)

    def close(self) -> None:
        """Stop reporting; once or more."""
        self._beginning.cancel()
        self._socket.close()

    def _handle(self, message: RouteMessage) -> None:
        if message.kind == RTM_IFINFO and message.interface_index == self._index:
            self._look()

    def _look(self) -> None:
        try:
            mtu, up = self._tun.mtu(), self._tun.is_up()
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENODEV):
                raise
            self.close()
            self._on_gone("the utun interface is gone")
            return
        if mtu != self._mtu:
            self._mtu = mtu
            self._on_mtu(mtu)
        if up != self._up:
            self._up = up
            self._on_link(up)


class NetworkWatcher:
    """Calls `on_change()` on `loop` when the network under the tunnel has become another one.

    That is: another interface than the tunnel's own (`own_index`) goes up or down, gets or loses an
    address, or a default route comes, goes or moves. Once for all that happens within
    SETTLE_SECONDS. Raises OSError if the route socket cannot be opened.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, own_index: int, on_change: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._own_index = own_index
        self._on_change = on_change
        self._links: dict[int, int] = {}
        """The flags each interface was last said to have."""
        self._settling: asyncio.TimerHandle | None = None
        self._changed_at_seconds: float | None = None
        self._socket = _RouteSocket(loop, self._handle, self._changed)

    def close(self) -> None:
        """Stop reporting; once or more."""
        if self._settling is not None:
            self._settling.cancel()
        self._socket.close()

    def suspect(self) -> None:
        """Sending fails: report a change, unless there was one within STORM_PAUSE_SECONDS."""
        last = self._changed_at_seconds
        if last is None or self._loop.time() - last >= STORM_PAUSE_SECONDS:
            self._changed()

    def _handle(self, message: RouteMessage) -> None:
        if message.interface_index != self._own_index and self._matters(message):
            self._changed()

    def _matters(self, message: RouteMessage) -> bool:
        if message.kind in _ROUTES:
            return message.is_default
        if message.kind == RTM_IFINFO:
            # Most of these tell of nothing that concerns us.
            state = message.flags & (IFF_UP | IFF_RUNNING)
            if self._links.get(message.interface_index) == state:
                return False
            self._links[message.interface_index] = state
        return not _interface_name(message.interface_index).startswith(PEER_TO_PEER_INTERFACES)

    def _changed(self) -> None:
        if self._settling is None:
            self._settling = self._loop.call_later(SETTLE_SECONDS, self._settled)

    def _settled(self) -> None:
        self._settling = None
        self._changed_at_seconds = self._loop.time()
        logger.info("event=network_changed")
        self._on_change()


def _interface_name(index: int) -> str:
    """Return its name; empty when it is gone."""
    try:
        return socket.if_indextoname(index)
    except (OSError, OverflowError):
        return ""
