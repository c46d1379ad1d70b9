"""Logs: one event per line on stdout, as `key=value` or as JSON, never a key or a packet.

Whoever reads them may stall, and a disk may be full: lines are written by a thread of their own,
from a bounded queue that drops what finds no room. The daemon never waits for its log. How many
lines were lost is told when there is room again.
"""

import contextlib
import json
import logging
import os
import queue
import threading
import time
from typing import Final, Literal

from wgd.log_events import printable, read_event

LEVELS: Final = {
    "verbose": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "error": logging.ERROR,
    "silent": logging.CRITICAL + 1,
}
"""The names of `wgd.configuration.LOG_LEVELS` (`LOG_LEVEL`) as logging's numbers."""

LogFormat = Literal["text", "json"]

MAX_WAITING_RECORDS: Final = 1024
CLOSE_SECONDS: Final = 1.0
_STDOUT: Final = 1
_TIME: Final = "%Y-%m-%dT%H:%M:%S"

logger = logging.getLogger(__name__)


class _TextHandler(logging.Handler):
    """Queues lines `2026-11-22T09:30:00.123Z level=info interface=wg0 event=…`.

    A full queue drops them; an error in logging is nobody's business. A line is made in the thread
    that logs: what it shows may have changed when it is written.
    """

    def __init__(self, lines: "queue.Queue[str | None]", interface: str) -> None:
        super().__init__()
        self._lines = lines
        self._interface = interface
        self.lost = 0
        """Lines that were dropped or could not be written since that was last told."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self._line(record))
        except queue.Full:
            self.lost += 1
        except Exception:  # noqa: BLE001 - whoever logs must not fail because of it
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += f" exception={_exception(record)!r}"
        start = f"{_time_of(record)} level={record.levelname.lower()} interface={self._interface}"
        return printable(f"{start} {message}")


class _JsonHandler(_TextHandler):
    """The same, each line a JSON object: time, level, interface and the fields of the event."""

    def _line(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "interface": self._interface,
            **read_event(record),
        }
        if record.exc_info:
            fields["exception"] = _exception(record)
        return json.dumps(fields)


def _exception(record: logging.LogRecord) -> str:
    return logging.Formatter().formatException(record.exc_info) if record.exc_info else ""


def _time_of(record: logging.LogRecord) -> str:
    return f"{time.strftime(_TIME, time.gmtime(record.created))}.{int(record.msecs):03d}Z"


class Logs:
    """Writes what is at least of `level` (a name in `LEVELS`) to stdout, for one interface.

    It becomes the log of the whole process.
    """

    def __init__(self, level: str, interface: str, log_format: LogFormat = "text") -> None:
        self._level = self._chosen_level = level
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING_RECORDS)
        kind = _JsonHandler if log_format == "json" else _TextHandler
        self._handler = kind(self._lines, interface)
        self._writer = threading.Thread(target=self._write, name="logs", daemon=True)
        self._writer.start()
        logging.raiseExceptions = False
        logging.basicConfig(level=LEVELS[level], handlers=[self._handler], force=True)

    @property
    def level(self) -> str:
        """The name of the level in use."""
        return self._level

    def set_level(self, level: str) -> None:
        """Log from now on what is at least of `level`. Raises KeyError if it is not in `LEVELS`."""
        self._use(level)
        self._chosen_level = level

    def toggle_verbose(self) -> None:
        """Change to "verbose", or if everything is logged already back to the level chosen before.

        The level chosen is that of the start or of the last `set_level`. If that logs everything,
        too, "error" takes its place.
        """
        if LEVELS[self._level] != LEVELS["verbose"]:
            self._use("verbose")
        elif LEVELS[self._chosen_level] != LEVELS["verbose"]:
            self._use(self._chosen_level)
        else:
            self._use("error")

    def close(self) -> None:
        """Write what is left, if that takes no longer than a moment."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
            self._writer.join(CLOSE_SECONDS)

    def _use(self, level: str) -> None:
        number, before = LEVELS[level], LEVELS[self._level]
        self._level = level
        root = logging.getLogger()
        if number != before:  # said if the more talkative of the two would say it
            root.setLevel(min(number, before))
            logger.info("event=log_level_changed to=%s", level)
        root.setLevel(number)

    def _write(self) -> None:
        """Write lines until there is a None: each whole, or cut off and ended before the next."""
        is_line_open = False
        while (line := self._lines.get()) is not None:
            data = f"{line}\n".encode()
            left = data = b"\n" + data if is_line_open else data
            # Not through sys.stdout, which Python flushes when it ends, and would wait for ever.
            try:
                while left:
                    left = left[os.write(_STDOUT, left) :]
            except OSError:
                self._handler.lost += 1
                written = data[: len(data) - len(left)]
                is_line_open = not written.endswith(b"\n") if written else is_line_open
                continue
            is_line_open = False
            if (lost := self._handler.lost) > 0:
                logger.error("event=log_lines_lost count=%d", lost)
                self._handler.lost -= lost
