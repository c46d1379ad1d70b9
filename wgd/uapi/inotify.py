"""Linux inotify for one file: a callback when it may have been deleted, renamed or replaced.

The file itself is watched, and its directory only for its own end: other files may come and go
beside it without waking anybody. What exactly happened is not passed on: the callback looks for
itself, so an overflowing event queue loses nothing. Python has no binding of its own, and
pyroute2's blocks, leaks into children and takes a third of a second to import; these are the two
calls it takes.
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

_IN_ATTRIB: Final = 0x00000004
_IN_MOVED_FROM: Final = 0x00000040
_IN_MOVED_TO: Final = 0x00000080
_IN_CREATE: Final = 0x00000100
_IN_DELETE: Final = 0x00000200
_IN_DELETE_SELF: Final = 0x00000400
_IN_MOVE_SELF: Final = 0x00000800
# A bound socket lives on after its file is deleted or replaced: what is seen is the link count,
# an attribute. The same event is a chmod or chown, which the callback finds harmless.
_FILE_MASK: Final = _IN_ATTRIB | _IN_DELETE_SELF | _IN_MOVE_SELF
_DIRECTORY_MASK: Final = _IN_DELETE_SELF | _IN_MOVE_SELF
_ENTRIES_MASK: Final = _DIRECTORY_MASK | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
# One read per wake-up; what does not fit wakes the loop again. Never too small for one event.
_READ_SIZE: Final = 64 * 1024

_CURES: Final = {
    errno.EMFILE: "raise fs.inotify.max_user_instances or the limit of open files",
    errno.ENOSPC: "raise fs.inotify.max_user_watches",
}


class InotifyWatch:
    """Calls `on_change` from `loop` after something happened to `path` or to its directory.

    With `entries`, `path` is a directory and `on_change` is called when something comes to be or
    ceases to be in it. A file that is not there is no error. Raises WgdError when the kernel
    refuses, naming its limit.
    """

    def __init__(
        self,
        path: Path,
        loop: asyncio.AbstractEventLoop,
        on_change: Callable[[], None],
        *,
        entries: bool = False,
    ) -> None:
        self._loop = loop
        self._on_change = on_change
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise _refused(path, ctypes.get_errno())
        watches = [(path.parent, _DIRECTORY_MASK), (path, _FILE_MASK)]
        for watched, mask in [(path, _ENTRIES_MASK)] if entries else watches:
            number = self._add(watched, mask)
            if number and not (number == errno.ENOENT and watched is path and not entries):
                os.close(self._fd)
                raise _refused(watched, number)
        loop.add_reader(self._fd, self._on_readable)

    def close(self) -> None:
        """Stop watching; may be called again, and from `on_change`."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _add(self, watched: Path, mask: int) -> int:
        """Watch one more thing; return 0 or the errno."""
        failed = self._libc.inotify_add_watch(self._fd, os.fsencode(watched), mask) < 0
        return ctypes.get_errno() if failed else 0

    def _on_readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, _READ_SIZE)
        self._on_change()


def _refused(path: Path, number: int) -> WgdError:
    cure = _CURES.get(number, "check the directory")
    return WgdError(f"cannot watch {path}: {os.strerror(number)}; {cure}")
