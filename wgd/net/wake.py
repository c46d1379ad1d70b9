"""Tells when the machine has slept, or its wall clock was set. Never polls.

After either it is time to look again at deadlines and at the network: the clock of the event loop
(CLOCK_MONOTONIC) stands still while a machine sleeps. Linux cancels a timer on the wall clock in
both cases, if that is asked for (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET), so one timer that is
never due is enough. Python has no binding before 3.13; these are the two calls it takes.
"""

import asyncio
import ctypes
import errno
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Final

if sys.platform != "linux":  # what follows is skipped by mypy elsewhere
    raise ImportError("this module is for Linux")

logger = logging.getLogger(__name__)

_TFD_TIMER_ABSTIME: Final = 1
_TFD_TIMER_CANCEL_ON_SET: Final = 2  # Linux 3.0
_NEVER: Final = 2 ** (8 * ctypes.sizeof(ctypes.c_long) - 1) - 1  # seconds
_EXPIRATIONS_SIZE: Final = 8


class _Itimerspec(ctypes.Structure):
    """struct itimerspec: both times in seconds and nanoseconds."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class WakeWatcher:
    """Calls `on_wake()` on `loop` after a resume from suspend, and after the wall clock was set.

    Several of these in a row may be one call. Slewing of the clock (NTP's everyday work) is none.
    Where the kernel refuses, it says so in the log and never calls.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_wake: Callable[[], None]) -> None:
        self._loop = loop
        self._on_wake = on_wake
        try:
            self._fd = _open_timer()
        except OSError as error:
            self._fd = -1
            logger.warning(
                "event=wake_not_watched error=%r effect=%r",
                *(error.strerror, "after a suspend, sessions resume when they are used"),
            )
            return
        loop.add_reader(self._fd, self._readable)

    def close(self) -> None:
        """Stop reporting; once or more, and from `on_wake`."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        try:
            os.read(self._fd, _EXPIRATIONS_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
            # Reading has armed the timer again: its time is absolute, and still to come.
            self._on_wake()


def _open_timer() -> int:
    """Return a timer on the wall clock that is never due, but cancelled. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    # TFD_NONBLOCK and TFD_CLOEXEC are these two.
    fd = int(libc.timerfd_create(time.CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC))
    if fd < 0:
        raise _last_error()
    flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
    never = _Itimerspec(value_s=_NEVER)
    if libc.timerfd_settime(fd, flags, ctypes.byref(never), None) != 0:
        error = _last_error()
        os.close(fd)
        raise error
    return fd


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
