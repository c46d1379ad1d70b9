"""Linux inotify for one directory: a callback when an entry appears, vanishes or is renamed.

What exactly happened is not passed on: the callback looks for itself, so an overflowing event queue
loses nothing. Python has no binding of its own, and pyroute2's blocks, leaks into children and
takes a third of a second to import; these are the two calls it takes.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from wgd.errors import WgdError

_IN_MOVED_FROM: Final = 0x00000040
_IN_MOVED_TO: Final = 0x00000080
_IN_CREATE: Final = 0x00000100
_IN_DELETE: Final = 0x00000200
_IN_DELETE_SELF: Final = 0x00000400
_IN_MOVE_SELF: Final = 0x00000800
_IN_ONLYDIR: Final = 0x01000000
_MASK: Final = (
    _IN_MOVED_FROM
    | _IN_MOVED_TO
    | _IN_CREATE
    | _IN_DELETE
    | _IN_DELETE_SELF
    | _IN_MOVE_SELF
    | _IN_ONLYDIR
)
# One read per wake-up; what does not fit wakes the loop again. Never too small for one event.
_READ_SIZE: Final = 64 * 1024

_CURES: Final = {
    errno.EMFILE: "raise fs.inotify.max_user_instances or the limit of open files",
    errno.ENOSPC: "raise fs.inotify.max_user_watches",
}


class InotifyWatch:
    """Calls `on_change` from `loop` after anything came, went or was renamed in `directory`.

    Raises WgdError when the kernel refuses, naming its limit.
    """

    def __init__(
        self, directory: Path, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._on_change = on_change
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise _refused(directory)
        if libc.inotify_add_watch(self._fd, os.fsencode(directory), _MASK) < 0:
            error = _refused(directory)
            os.close(self._fd)
            raise error
        loop.add_reader(self._fd, self._on_readable)

    def close(self) -> None:
        """Stop watching; may be called again, and from `on_change`."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _on_readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, _READ_SIZE)
        self._on_change()


def _refused(directory: Path) -> WgdError:
    number = ctypes.get_errno()
    cure = _CURES.get(number, "check the directory")
    return WgdError(f"cannot watch {directory}: {os.strerror(number)}; {cure}")
