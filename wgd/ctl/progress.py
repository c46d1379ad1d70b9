"""A line on the terminal while a configuration takes longer than a second.

A thread draws it, because resolver and daemon block. It shows a bar where the end is known and the
seconds where it is not. Nothing is drawn unless stderr is a terminal, and the line is wiped away.
"""

import sys
import threading
import time
from types import TracebackType
from typing import Final, Self

from wgd.ctl.session import warn

DELAY_SECONDS: Final = 1.0
INTERVAL_SECONDS: Final = 0.2
BAR_WIDTH: Final = 30

_WIPE: Final = "\r\x1b[K"


class Progress:
    """A context manager; tell it what is going on, and it may show it."""

    def __init__(self) -> None:
        self._text = ""
        self._done = self._total = 0
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._is_drawn = False
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()

    def waits(self, text: str) -> None:
        """Say what is waited for, with no way to tell how long."""
        self._text, self._total = text, 0

    def has_done(self, text: str, done: int, total: int) -> None:
        """Say how much of something has been done."""
        self._text, self._done, self._total = text, done, total

    def warn(self, text: str) -> None:
        """Tell the user something that is no error, on a line of its own."""
        with self._lock:
            self._wipe()
            warn(text)

    def line(self) -> str:
        """Return what there is to show now."""
        seconds = int(time.monotonic() - self._started)
        if not self._total:
            return f"{self._text} … {seconds} s"
        filled = BAR_WIDTH * self._done // self._total
        bar = "█" * filled + "░" * (BAR_WIDTH - filled)
        return f"{bar} {self._done}/{self._total} {self._text}, {seconds} s"

    def _draw(self) -> None:
        if self._is_over.wait(DELAY_SECONDS):
            return
        while not self._is_over.wait(INTERVAL_SECONDS):
            with self._lock:
                self._is_drawn = True
                sys.stderr.write(_WIPE + self.line())
                sys.stderr.flush()
        with self._lock:
            self._wipe()

    def _wipe(self) -> None:
        if self._is_drawn:
            self._is_drawn = False
            sys.stderr.write(_WIPE)
            sys.stderr.flush()
