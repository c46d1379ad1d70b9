"""Requests over one plain route netlink socket, blocking, with pyroute2 to encode and decode.

pyroute2's own sockets run an event loop, so they cannot be used while the daemon's runs.
"""

import errno
import os
from typing import Any, Final, Self

from wgd.net import netlink

_ABSENT: Final = (errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV, errno.EAFNOSUPPORT)
_MAX_DUMPS: Final = 3  # of one table that changes while it is read

# linux/netlink.h
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
_NLMSG_DONE: Final = 3
_NLM_F_DUMP: Final = 0x300
_NLM_F_DUMP_INTR: Final = 0x10
_NETLINK_GET_STRICT_CHK: Final = 12


class Connection:
    """A connection, with a context manager; it raises OSError for what the kernel refuses.

    `filters` says whether the kernel leaves out of a dump what does not fit the request.
    """

    def __init__(self) -> None:
        self._socket = netlink.open_socket()
        self._socket.settimeout(10 * netlink.REQUEST_TIMEOUT_SECONDS)
        # The kernel then filters what is dumped; before 4.20 it does not know how: we do, too.
        try:
            self._socket.setsockopt(netlink.SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
            self.filters = True
        except OSError:
            self.filters = False
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    # -- messages ----------------------------------------------------------------------------------

    def remove(self, message: Any, kind: int, attributes: netlink.Attributes) -> bool:
        """Send a request to remove something; False if there was nothing to remove."""
        try:
            self.request(message, kind, netlink.NLM_F_ACK, attributes)
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise
        return True

    def request(
        self, message: Any, kind: int, flags: int, attributes: netlink.Attributes
    ) -> list[Any]:
        """Send one request and return the bodies of its answer, none for an acknowledgement."""
        self._send(message, kind, flags, attributes)
        while True:
            for answer in netlink.decode(self._socket.recv(netlink.RECEIVE_SIZE)):
                if answer.sequence != self._sequence:
                    continue  # of an earlier request that timed out
                if answer.error:
                    raise OSError(answer.error, os.strerror(answer.error))
                return [] if answer.kind == netlink.NLMSG_ERROR else [answer.body]

    def dump(self, message: Any, kind: int, attributes: netlink.Attributes) -> list[Any]:
        """Return the bodies of all that the kernel has of a kind."""
        for _attempt in range(_MAX_DUMPS):
            self._send(message, kind, _NLM_F_DUMP, attributes)
            bodies, is_consistent = self._dumped()
            if is_consistent:
                break
        return bodies

    def _dumped(self) -> tuple[list[Any], bool]:
        bodies: list[Any] = []
        is_consistent = True
        while True:
            for answer in netlink.decode(self._socket.recv(netlink.RECEIVE_SIZE)):
                if answer.sequence != self._sequence:
                    continue
                if answer.error:
                    raise OSError(answer.error, os.strerror(answer.error))
                if answer.body["header"]["flags"] & _NLM_F_DUMP_INTR:
                    is_consistent = False
                if answer.kind == _NLMSG_DONE:
                    return bodies, is_consistent
                bodies.append(answer.body)

    def _send(self, message: Any, kind: int, flags: int, attributes: netlink.Attributes) -> None:
        self._sequence += 1
        header = message["header"]
        header["type"] = kind
        header["flags"] = netlink.NLM_F_REQUEST | flags
        header["sequence_number"] = self._sequence
        message["attrs"] = attributes
        message.reset()
        message.encode()
        self._socket.send(message.data)
