"""One descriptor on an event loop: a step for every wake-up, and a pause when it only fails.

A descriptor in an error state stays readable; without the pause it would burn a whole CPU.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

MAX_FAILING_WAKEUPS: Final = 10
PAUSE_SECONDS: Final = 0.1


class Cancellable(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None:
        """Do not make the call."""


class Loop(Protocol):
    """What an engine needs of an asyncio event loop."""

    def add_reader(self, fd: int, callback: Callable[[], Any]) -> Any:
        """Call `callback` whenever `fd` is readable."""

    def remove_reader(self, fd: int) -> Any:
        """Stop doing so."""

    def call_later(self, delay: float, callback: Callable[[], Any]) -> Cancellable:
        """Call `callback` once, `delay` seconds from now."""


class Reader:
    """Runs `step` whenever `fd` is readable, until closed; a step returns False when it failed."""

    def __init__(self, loop: Loop, fd: int, step: Callable[[], bool]) -> None:
        self._loop = loop
        self._fd = fd
        self._step = step
        self._failing_wakeups = 0
        self._pause: Cancellable | None = None
        self._is_closed = False
        loop.add_reader(fd, self._wake)

    def _wake(self) -> None:
        if self._step():
            self._failing_wakeups = 0
            return
        self._failing_wakeups += 1
        if self._failing_wakeups >= MAX_FAILING_WAKEUPS and not self._is_closed:
            self._loop.remove_reader(self._fd)
            self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._failing_wakeups = 0
        self._loop.add_reader(self._fd, self._wake)

    def close(self) -> None:
        """Stop, once or more."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._pause is not None:
            self._pause.cancel()
        else:
            self._loop.remove_reader(self._fd)
