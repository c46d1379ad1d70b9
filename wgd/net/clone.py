"""Tells when this virtual machine has become a copy of itself: restored from a snapshot, or forked.

Two copies with the same keys would encrypt different packets with the same nonces. The hypervisor
changes the machine's generation id, the kernel mixes that into its random numbers, and newer ones
(6.10 does) tell processes with a uevent of the vmgenid device: NEW_VMGENID=1.
"""

import asyncio
import errno
import logging
import socket
import sys
from collections.abc import Callable
from typing import Final

if sys.platform != "linux":  # what follows is skipped by mypy elsewhere
    raise ImportError("this module is for Linux")

logger = logging.getLogger(__name__)

_NETLINK_KOBJECT_UEVENT: Final = 15
_KERNELS_GROUP: Final = 1
_KERNEL: Final = 0  # the port of what the kernel sends

_MAX_MESSAGE_SIZE: Final = 8192
"""More than the kernel's 2 KiB of variables and a path."""

MESSAGES_PER_WAKEUP: Final = 64
"""Other devices' uevents that are passed over before other work has its turn."""


def is_clone_notice(message: bytes) -> bool:
    """Whether a uevent says that the machine's generation id is new."""
    header, *variables = message.split(b"\0")
    return header.startswith(b"change@") and b"NEW_VMGENID=1" in variables


class CloneWatcher:
    """Calls `on_clone()` on `loop` when this machine may be a copy.

    That is also when uevents were lost: one of them may have said so. A machine without such a
    device never calls; where the kernel refuses, one line in the log says so.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_clone: Callable[[], None],
        open_socket: Callable[[], socket.socket] | None = None,
    ) -> None:
        self._loop = loop
        self._on_clone = on_clone
        self._socket: socket.socket | None = None
        try:
            self._socket = (open_socket or _open_socket)()
        except OSError as error:
            logger.info(
                "event=clones_not_watched error=%r effect=%r",
                *(error.strerror, "a copy of this machine goes on under the same session keys"),
            )
            return
        loop.add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        """Stop reporting; once or more, and from `on_clone`."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        if self._socket is not None and self._is_told(self._socket):
            self._on_clone()

    def _is_told(self, sock: socket.socket) -> bool:
        """Read what waits, up to a limit; return whether it means a copy."""
        is_told = False
        for _ in range(MESSAGES_PER_WAKEUP):
            try:
                message, _, _, sender = sock.recvmsg(_MAX_MESSAGE_SIZE)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                is_told = True
            else:
                # Anybody with CAP_NET_ADMIN here can send such messages, too.
                is_told |= sender[0] == _KERNEL and is_clone_notice(message)
        return is_told


def _open_socket() -> socket.socket:
    """Return a socket that receives the kernel's uevents. Raises OSError."""
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = socket.socket(socket.AF_NETLINK, kind, _NETLINK_KOBJECT_UEVENT)
    try:
        sock.bind((0, _KERNELS_GROUP))
    except OSError:
        sock.close()
        raise
    return sock
