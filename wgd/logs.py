"""Logs: one event per line on stdout, `key=value` readable, never a key or a packet."""

import logging
import sys
import time
from typing import Final

LEVELS: Final = {
    "verbose": logging.DEBUG,
    "debug": logging.DEBUG,
    "error": logging.ERROR,
    "silent": logging.CRITICAL + 1,
}
"""wireguard-go's names (`LOG_LEVEL`)."""


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


def configure(level: str, interface: str) -> None:
    """Send what is at least of `level` (a name in `LEVELS`) to stdout."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Formatter(interface))
    logging.basicConfig(level=LEVELS[level], handlers=[handler], force=True)
