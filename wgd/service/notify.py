"""Talking to the service manager that started us: systemd's notification protocol (sd_notify(3)).

A datagram of `KEY=value` lines to the socket that NOTIFY_SOCKET names; descriptors go along for the
manager to keep. Nobody is asked for an answer, and without a manager nothing happens at all.

Source: sd_notify(3), sd_watchdog_enabled(3) and systemd.service(5), "FileDescriptorStoreMax".
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from wgd.errors import WgdError
from wgd.uapi.paths import connect_address

logger = logging.getLogger(__name__)

SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
MAX_DESCRIPTORS: Final = 253
"""In one datagram; the kernel's SCM_MAX_FD."""

_SEND_SECONDS: Final = 1.0
"""How long a manager that does not read may hold us up."""


class ServiceManager:
    """Who started us and wants to know how we are; perhaps nobody.

    Nothing here raises: a tunnel does not end because its manager cannot be reached.
    """

    def __init__(self, address: str | None, watchdog_seconds: float | None = None) -> None:
        self._address = address
        self.watchdog_seconds = watchdog_seconds
        """Within which it wants to hear from us again and again; None if it does not."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], pid: int) -> "ServiceManager":
        """Return the manager that the environment of process `pid` tells of."""
        address = environment.get(SOCKET_VARIABLE)
        if address and address[0] not in "/@":
            logger.warning("event=notify_socket_unknown address=%r", address)
            address = None
        if not address:
            return cls(None)
        return cls(address, _watchdog_seconds(environment, pid))

    @property
    def is_there(self) -> bool:
        """Whether there is a manager."""
        return self._address is not None

    # -- what it is told ---------------------------------------------------------------------------

    def ready(self, status: str) -> None:
        """Say that we are ready, which process we are, and in words what we do."""
        self._send(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")

    def status(self, text: str) -> None:
        """Say in words what we do; one line."""
        self._send(f"STATUS={text}")

    def reloading(self, status: str) -> None:
        """Say that there will be another `ready` soon."""
        # Later versions of systemd want the time, in microseconds.
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        """Say that the end has begun."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def alive(self) -> None:
        """Tell the watchdog so, where the loop cannot: before and after what takes long."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def store(self, name: str, descriptors: Sequence[int]) -> None:
        """Have copies of descriptors kept under `name` and handed to whoever is started next.

        How many it takes is the unit's FileDescriptorStoreMax; what is too much it forgets.
        """
        self._send(f"FDSTORE=1\nFDNAME={name}", descriptors)

    def forget(self, name: str) -> None:
        """Have everything closed that is kept under `name`."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def watch(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        """Tell the manager from `loop` that the loop is alive, as often as it asked for.

        Twice in its time, as sd_watchdog_enabled(3) advises. Returns what ends it.
        """
        if self.watchdog_seconds is None:
            return lambda: None
        interval = self.watchdog_seconds / 2

        next_beat: asyncio.Handle

        def beat() -> None:
            nonlocal next_beat
            self.alive()
            next_beat = loop.call_later(interval, beat)

        next_beat = loop.call_soon(beat)
        return lambda: next_beat.cancel()

    def _send(self, text: str, descriptors: Sequence[int] = ()) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_SEND_SECONDS)
                self._connect(sock, self._address)
                socket.send_fds(sock, [text.encode()], list(descriptors))
        except (OSError, WgdError) as error:
            first = text.partition("=")[0]
            logger.warning("event=notify_failed message=%s reason=%r", first, str(error))

    @staticmethod
    def _connect(sock: socket.socket, address: str) -> None:
        if address[0] == "@":
            sock.connect("\0" + address[1:])
            return
        with connect_address(Path(address)) as path:
            sock.connect(path)


def _watchdog_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    """Return the watchdog's time if it is meant for this process."""
    text = environment.get("WATCHDOG_USEC", "")
    meant_for = environment.get("WATCHDOG_PID") or str(pid)
    if not (text.isascii() and text.isdigit() and len(text) < 20) or meant_for != str(pid):
        return None
    return int(text) / 1e6 or None
