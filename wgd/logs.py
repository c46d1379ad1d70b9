"""Logs: one event per line on stdout, `key=value` readable, never a key or a packet.

Whoever reads them may stall: lines are written by a thread of their own, from a bounded queue that
drops what finds no room. The daemon never waits for its log.
"""

import contextlib
import logging
import os
import queue
import threading
import time
from logging.handlers import QueueHandler
from typing import Final

LEVELS: Final = {
    "verbose": logging.DEBUG,
    "debug": logging.DEBUG,
    "error": logging.ERROR,
    "silent": logging.CRITICAL + 1,
}
"""wireguard-go's names (`LOG_LEVEL`)."""

MAX_WAITING_RECORDS: Final = 1024
CLOSE_SECONDS: Final = 1.0
_STDOUT: Final = 1


class _Formatter(logging.Formatter):
    """`2026-11-22T09:30:00.123Z level=info interface=wg0 event=…`."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, interface: str) -> None:
        super().__init__(f"%(asctime)s level=%(level)s interface={interface} %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record.level = record.levelname.lower()
        return super().format(record)


class _DroppingHandler(QueueHandler):
    """Queues records, or drops them; an error in logging is nobody's business."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self.queue.put_nowait(record)


class Logs:
    """Writes what is at least of `level` (a name in `LEVELS`) to stdout, for one interface."""

    def __init__(self, level: str, interface: str) -> None:
        self._records: queue.Queue[logging.LogRecord | None] = queue.Queue(MAX_WAITING_RECORDS)
        self._formatter = _Formatter(interface)
        self._writer = threading.Thread(target=self._write, name="logs", daemon=True)
        self._writer.start()
        logging.raiseExceptions = False
        handler = _DroppingHandler(self._records)
        handler.setFormatter(logging.Formatter("%(message)s"))  # the rest is the writer's
        logging.basicConfig(level=LEVELS[level], handlers=[handler], force=True)

    def close(self) -> None:
        """Write what is left, if that takes no longer than a moment."""
        with contextlib.suppress(queue.Full):
            self._records.put_nowait(None)
            self._writer.join(CLOSE_SECONDS)

    def _write(self) -> None:
        # Not through sys.stdout, which Python flushes when it ends, and would wait for ever.
        while (record := self._records.get()) is not None:
            with contextlib.suppress(OSError):
                os.write(_STDOUT, f"{self._formatter.format(record)}\n".encode())
