"""BSD kqueue for one file: a callback when it may have been deleted, renamed or replaced.

The directory is watched, as a socket cannot be opened to be watched itself: its NOTE_WRITE says
that a name came or went, NOTE_DELETE and NOTE_RENAME that the directory itself did. What exactly
happened is not passed on: the callback looks for itself.
"""

import asyncio
import contextlib
import os
import select
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from wgd.errors import WgdError

# sys/event.h: the same on macOS and every BSD.
EVFILT_VNODE: Final = -4
EV_ADD: Final = 0x0001
EV_CLEAR: Final = 0x0020
NOTE_DELETE: Final = 0x0001
NOTE_WRITE: Final = 0x0002
NOTE_RENAME: Final = 0x0020

_MAX_EVENTS: Final = 8

_select: Any = select  # typed for this system, which may know no kqueue


class KqueueWatch:
    """Calls `on_change` from `loop` after a name came or went beside `path`, or its directory did.

    A file that is not there is no error, a directory is: raises WgdError.
    """

    def __init__(
        self, path: Path, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._on_change = on_change
        with contextlib.ExitStack() as opened:
            try:
                directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                opened.callback(os.close, directory)
                self._queue = _select.kqueue()
                opened.callback(self._queue.close)
                # Cleared when it is read; not EV_ONESHOT, which would miss what happens meanwhile.
                self._queue.control(
                    [
                        _select.kevent(
                            directory,
                            filter=EVFILT_VNODE,
                            flags=EV_ADD | EV_CLEAR,
                            fflags=NOTE_DELETE | NOTE_WRITE | NOTE_RENAME,
                        )
                    ],
                    0,
                )
            except OSError as error:
                raise WgdError(
                    f"cannot watch {path.parent}: {error.strerror}; check the directory"
                ) from error
            loop.add_reader(self._queue.fileno(), self._on_readable)
            self._opened: contextlib.ExitStack | None = opened.pop_all()

    def close(self) -> None:
        """Stop watching; may be called again, and from `on_change`."""
        if self._opened is not None:
            self._loop.remove_reader(self._queue.fileno())
            self._opened.close()
            self._opened = None

    def _on_readable(self) -> None:
        self._queue.control(None, _MAX_EVENTS, 0)
        self._on_change()
