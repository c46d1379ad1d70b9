"""A descriptor that is readable while something waits: how one side wakes the other's event loop.

An eventfd where there is one (Linux), elsewhere a pipe. May touch only its own descriptors.
"""

import contextlib
import os
import sys


class Wakeup:
    """A flag that an event loop can wait for. Setting a set one costs no system call."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            self._read_fd = self._write_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._read_fd, self._write_fd = os.pipe()
            os.set_blocking(self._read_fd, False)
            os.set_blocking(self._write_fd, False)
        self._is_set = False

    def fileno(self) -> int:
        """Return the descriptor to wait on; -1 once closed."""
        return self._read_fd

    def set(self) -> None:
        """Make the descriptor readable."""
        if not self._is_set and self._write_fd >= 0:
            self._is_set = True
            os.write(self._write_fd, (1).to_bytes(8, sys.byteorder))

    def clear(self) -> None:
        """Make the descriptor unreadable."""
        if self._is_set and self._read_fd >= 0:
            self._is_set = False
            os.read(self._read_fd, 8)

    def close(self) -> None:
        """Close the descriptor, once or more; later calls do nothing."""
        for fd in {self._read_fd, self._write_fd}:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._read_fd = self._write_fd = -1
