"""Tells when a TUN interface goes up or down, changes its MTU, or is gone. Never polls.

1. A netlink socket in the daemon's own namespace listens to link events from construction on.
2. In the loop's next turn the interface is located: the TUN descriptor is asked for its namespace
   and its name, and netlink for that interface's state. The answer gives the index.
3. Events of that index in that namespace, the answer among them, are reported if they change
   anything. A new name is no matter.
4. When the interface leaves the namespace, or events were lost, go to 2. Without descriptors or
   memory for that, it is tried again until there are.

An interface in another namespace is followed by that namespace's id: the same socket then hears
all namespaces that have an id here (NETLINK_LISTEN_ALL_NSID). A socket *in* the other namespace
would keep it alive: `ip netns delete`, or the end of a container, would no longer delete the TUN.
"""

import asyncio
import errno
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import NamedTuple, Protocol

if sys.platform != "linux":  # what follows is skipped by mypy elsewhere
    raise ImportError("this module is for Linux")

from wgd.net import netlink
from wgd.net.namespaces import is_own_namespace

logger = logging.getLogger(__name__)

IFF_UP = 0x1
_INT = struct.Struct("=i")
# A rename or a move may slip in between asking for name and state: ask again, but not for ever.
MAX_LOCATE_ATTEMPTS = 16
PAUSE_SECONDS = 1.0


class WatchedTun(Protocol):
    """What the watcher asks of a TUN device; see `LinuxTun`."""

    def current_name(self) -> str:
        """Return what the interface is called now. Raises OSError."""

    def is_gone(self) -> bool:
        """Return whether the interface was deleted."""

    def network_namespace(self) -> int:
        """Return a new descriptor of the interface's network namespace. Raises OSError."""


class LinkWatcher:
    """Watches the interface of `tun` and calls back, on `loop`, on changes only.

    `on_link(up)` says whether the interface is administratively up (IFF_UP, what `ip link set up`
    does), first for the state it is found in; `on_mtu(mtu)` gives its MTU in bytes, likewise.
    `on_gone(reason)` comes last, when the interface was deleted; not when another namespace was
    deleted with it, which only the TUN descriptor tells (EBADFD).

    Construct it in the daemon's own network namespace and before it reports readiness: that opens
    the socket; the rest, with the import of pyroute2, waits for the loop's next turn. Raises
    OSError if the netlink socket cannot be opened.
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
        self._loop = loop
        self._on_link = on_link
        self._on_mtu = on_mtu
        self._on_gone = on_gone
        self._socket, self._port_id = _listen()
        self._sequence = 0
        self._attempts = 0
        self._hears_everywhere = False
        self._is_out_of_resources = False
        self._namespace_id: int | None = None  # None is our own
        self._index: int | None = None  # None until the state has been answered
        self._up: bool | None = None
        self._mtu: int | None = None
        self._beginning: asyncio.Handle = loop.call_soon(self._begin)

    def close(self) -> None:
        """Stop reporting; once or more."""
        self._beginning.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _begin(self) -> None:
        self._hears_everywhere = False
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._locate()

    def _begin_anew(self) -> None:
        """Begin again on a new socket: the old one's full queue has no room for an answer."""
        self.close()
        try:
            self._socket, self._port_id = _listen()
        except OSError as error:
            self._begin_later(error)
            return
        self._begin()

    def _begin_later(self, error: OSError) -> None:
        """Begin anew when what is missing may be there again; the state is then asked for."""
        self.close()
        if not self._is_out_of_resources:  # told once for all attempts in a row
            self._is_out_of_resources = True
            logger.error("event=link_events_delayed error=%r", error.strerror)
        self._beginning = self._loop.call_later(PAUSE_SECONDS, self._begin_anew)

    # -- where the interface is --------------------------------------------------------------------

    def _locate(self) -> None:
        """Find the interface's namespace and name, and request its state there."""
        self._index = None
        self._attempts += 1
        self._sequence += 1
        try:
            self._namespace_id = self._find_namespace()
            name = self._tun.current_name()
            self._listen_everywhere(self._namespace_id is not None)
            self._socket.send(netlink.link_request(self._sequence, name, self._namespace_id))
        except OSError as error:
            if error.errno in netlink.PASSING_ERRNOS and not self._tun.is_gone():
                self._begin_later(error)
            else:
                self._lost(error.errno)

    def _find_namespace(self) -> int | None:
        """Return the id of the interface's namespace, None for our own. Raises OSError."""
        try:
            namespace = self._tun.network_namespace()
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL, errno.ENOTTY):
                raise
            return None  # an old kernel, or no CAP_NET_ADMIN: it is ours unless somebody moved it
        try:
            return None if is_own_namespace(namespace) else netlink.get_namespace_id(namespace)
        finally:
            os.close(namespace)

    def _listen_everywhere(self, enable: bool) -> None:
        """Hear other namespaces only while needed: on a container host they have much to say.

        Even to say again that it is not needed takes CAP_NET_BROADCAST.
        """
        if enable != self._hears_everywhere:
            option = netlink.NETLINK_LISTEN_ALL_NSID
            self._socket.setsockopt(netlink.SOL_NETLINK, option, int(enable))
            self._hears_everywhere = enable

    def _lost(self, error: int | None) -> None:
        """Report a deleted interface; look again for one that has just moved; else give up."""
        if self._tun.is_gone():
            self.close()
            self._on_gone("the TUN interface was deleted")
        elif error in (errno.ENODEV, errno.EINVAL) and self._attempts < MAX_LOCATE_ATTEMPTS:
            self._locate()
        else:
            logger.error(
                "event=link_events_lost error=%r effect=%r cure=%r",
                os.strerror(error or 0),
                "up, down and MTU of the interface are no longer seen",
                "CAP_NET_ADMIN and CAP_NET_BROADCAST to follow it to another network namespace",
            )

    # -- what is heard -----------------------------------------------------------------------------

    def _readable(self) -> None:
        """Take one datagram; the loop calls again while there are more."""
        try:
            data, ancillary, _flags, (sender, _groups) = self._socket.recvmsg(
                netlink.RECEIVE_SIZE, socket.CMSG_SPACE(4)
            )
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._begin_anew()  # events were lost
            return
        if sender != 0:
            return  # not the kernel
        heard_in = _namespace_id(ancillary)
        try:
            messages = netlink.decode(data)
            links = [_Link.of(message) for message in messages]
        except OSError as error:
            if error.errno == errno.EBADMSG:
                logger.warning("event=link_event_refused reason=%r", error.strerror)
            else:  # the first time, `decode` imports modules
                self._begin_later(error)
            return
        for message, link in zip(messages, links, strict=True):
            is_answer = (heard_in, message.port_id) == (None, self._port_id)
            if is_answer:
                if message.sequence == self._sequence:
                    self._answered(message, link)
            elif (
                self._index is not None
                and link is not None
                and (heard_in, link.interface) == (self._namespace_id, self._index)
            ):
                if message.kind == netlink.RTM_DELLINK:
                    self._attempts = 0
                    self._locate()
                    return
                self._report(link)

    def _answered(self, message: netlink.Message, link: "_Link | None") -> None:
        if message.error:
            self._lost(message.error)
        elif message.kind == netlink.RTM_NEWLINK and link is not None:
            self._attempts = 0
            self._is_out_of_resources = False
            self._index = link.interface
            self._report(link)

    def _report(self, link: "_Link") -> None:
        if link.mtu is not None and link.mtu != self._mtu:
            self._mtu = link.mtu
            self._on_mtu(link.mtu)
        if link.is_up != self._up:
            self._up = link.is_up
            self._on_link(link.is_up)


class _Link(NamedTuple):
    """What a message says of an interface."""

    interface: int
    is_up: bool
    mtu: int | None

    @classmethod
    @netlink.understood()
    def of(cls, message: netlink.Message) -> "_Link | None":
        """Return what it says, None if it is about none. Raises OSError (EBADMSG)."""
        if message.kind not in (netlink.RTM_NEWLINK, netlink.RTM_DELLINK):
            return None
        body = message.body
        mtu = body.get_attr("IFLA_MTU")
        is_up = bool(body["flags"] & IFF_UP)
        return cls(int(body["index"]), is_up, None if mtu is None else int(mtu))


def _listen() -> tuple[socket.socket, int]:
    """Return a socket that hears link events, and its port id, which answers to it carry."""
    opened = netlink.open_socket(netlink.RTMGRP_LINK)
    return opened, opened.getsockname()[0]


def _namespace_id(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """Return the id of the namespace an event happened in, None for our own."""
    for level, kind, data in ancillary:
        which, size = (level, kind), len(data)
        if which == (netlink.SOL_NETLINK, netlink.NETLINK_LISTEN_ALL_NSID) and size == _INT.size:
            return int(_INT.unpack(data)[0])
    return None
