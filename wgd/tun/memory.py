"""A TUN device made of two queues: for tests, simulations and tunnels inside another program.

    inject -> [outgoing] -> read_into     what the host sends into the tunnel
    take   <- [incoming] <- write         what came out of the tunnel

A descriptor to wait on is only made when somebody asks for it.
"""

import errno
import os
from collections import deque
from typing import Final

from wgd.dataplane.wakeup import Wakeup

QUEUE_LIMIT: Final = 4096
"""How many packets a queue holds by default; then new ones are dropped, as a real device does."""

_CLOSED_ERRNO: Final = getattr(errno, "EBADFD", errno.EBADF)


class MemoryTun:
    """The `Tun` of the data plane, in memory. Set `is_up` to False to see the link down."""

    def __init__(self, queue_limit: int = QUEUE_LIMIT) -> None:
        self.is_up = True
        self._queue_limit = queue_limit
        self._outgoing: deque[bytes] = deque()
        self._incoming: deque[bytes] = deque()
        self._wakeup: Wakeup | None = None
        self._is_closed = False

    # -- the host's side ---------------------------------------------------------------------------

    def inject(self, packet: bytes) -> bool:
        """Send an IP packet into the tunnel; False if the queue is full."""
        if len(self._outgoing) >= self._queue_limit:
            return False
        self._outgoing.append(packet)
        if self._wakeup is not None:
            self._wakeup.set()
        return True

    def take(self) -> list[bytes]:
        """Take all packets that came out of the tunnel, oldest first."""
        packets = list(self._incoming)
        self._incoming.clear()
        return packets

    def close(self) -> None:
        """Delete the device: from now on reading and writing raise OSError (EBADFD or EBADF)."""
        self._is_closed = True
        if self._wakeup is not None:
            self._wakeup.set()

    def release(self) -> None:
        """Give back the descriptor, if one was made. The data plane must have stopped."""
        if self._wakeup is not None:
            self._wakeup.close()
            self._wakeup = None

    # -- the data plane's side ---------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor to wait on: readable while packets wait or the device is gone."""
        if self._wakeup is None:
            self._wakeup = Wakeup()
            if self._outgoing or self._is_closed:
                self._wakeup.set()
        return self._wakeup.fileno()

    def read_into(self, buffer: memoryview) -> int:
        """Read one IP packet into `buffer` and return its length; longer ones are cut."""
        self._require_open()
        if not self._outgoing:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        packet = self._outgoing.popleft()
        if not self._outgoing and self._wakeup is not None:
            self._wakeup.clear()
        length = min(len(packet), len(buffer))
        buffer[:length] = packet[:length]
        return length

    def write(self, packet: memoryview) -> None:
        """Write one IP packet. Raises OSError: EIO while down, ENOBUFS when nobody takes them."""
        self._require_open()
        if not self.is_up:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if len(self._incoming) >= self._queue_limit:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        self._incoming.append(bytes(packet))

    def _require_open(self) -> None:
        if self._is_closed:
            raise OSError(_CLOSED_ERRNO, os.strerror(_CLOSED_ERRNO))
