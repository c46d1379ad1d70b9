"""Tells when routes or addresses of the daemon's own namespace change, where its sockets live.

A change may make a pinned source wrong: the address is gone, or the way to the peer now leaves
through another interface. Kernel events only say "look again"; what they contain is not decoded.
After one, the watcher is deaf for a moment, so that a routing daemon that replaces a million routes
costs a few wake-ups a second. An idle daemon makes no system calls here.
"""

import asyncio
import ipaddress
import socket
import sys
from collections.abc import Callable

if sys.platform != "linux":  # what follows is skipped by mypy elsewhere
    raise ImportError("this module is for Linux")

from wgd.addresses import Endpoint
from wgd.net import netlink

SETTLE_SECONDS = 0.1
# More waiting events than a socket buffer of the default size holds.
MAX_DISCARDED_EVENTS = 4096

_GROUPS = (
    netlink.RTMGRP_LINK
    | netlink.RTMGRP_IPV4_IFADDR
    | netlink.RTMGRP_IPV4_ROUTE
    | netlink.RTMGRP_IPV4_RULE
    | netlink.RTMGRP_IPV6_IFADDR
    | netlink.RTMGRP_IPV6_ROUTE
    | netlink.RTMGRP_IPV6_RULE
)


class RouteWatcher:
    """Calls `on_change()` on `loop` within SETTLE_SECONDS of a change, once for many of them.

    Construct it in the daemon's own network namespace: changes from then on are reported. Raises
    OSError if the netlink socket cannot be opened.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]) -> None:
        self._loop = loop
        self._on_change = on_change
        self._settling: asyncio.TimerHandle | None = None
        self._socket = netlink.open_socket(_GROUPS)
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        """Stop reporting; once or more."""
        if self._settling is not None:
            self._settling.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _readable(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._settling = self._loop.call_later(SETTLE_SECONDS, self._settled)

    def _settled(self) -> None:
        self._settling = None
        # Discard first: what changes from here on is a change after `on_change` has looked.
        for _event in range(MAX_DISCARDED_EVENTS):
            try:
                self._socket.recv(1)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: events were lost, which is all the same here
                continue
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._on_change()


def source_is_valid(endpoint: Endpoint, fwmark: int) -> bool:
    """Return whether `endpoint.source` is still what answers to the endpoint should leave from.

    That is: the address is still ours, and the route from it to the endpoint leaves through the
    interface that the peer reached us on. True when no source is pinned, and when there are no
    descriptors or memory to find out. Never raises; takes two local system call round trips (and
    imports pyroute2).
    """
    source = endpoint.source
    if source is None:
        return True
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    try:
        # A route lookup does not check that an IPv6 source is local; binding does, for both.
        is_link_local = ipaddress.ip_address(source.address).is_link_local
        scope_id = source.interface_index if is_link_local else 0
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            if family == socket.AF_INET6:
                probe.bind((source.address, 0, 0, scope_id))
            else:
                probe.bind((source.address, 0))
        leaves_through = netlink.get_route_interface(
            family, endpoint.host, source.address, fwmark, endpoint.scope_id
        )
    except ValueError:
        return False
    except OSError as error:
        return error.errno in netlink.PASSING_ERRNOS
    return leaves_through == source.interface_index
