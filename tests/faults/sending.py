"""Traffic in the background of a fault: datagrams without pause, and pings with their times."""

import itertools
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.testbed import Namespace, wait_until

PING_SECONDS = 0.05
_DATAGRAM = bytes(1000)
_BURST = 20
_PAUSE_SECONDS = 0.002


@contextmanager
def flood(namespace: Namespace, address: str) -> Iterator[None]:
    """Send some thousand datagrams a second to `address` until this ends, whatever errors come."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    is_over = threading.Event()

    def send() -> None:
        while not is_over.wait(_PAUSE_SECONDS):
            for _ in range(_BURST):
                with suppress(OSError):
                    sock.sendto(_DATAGRAM, (address, 9))

    with namespace.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


class Pings:
    """A run of ping(8); `answered` has the time of each answer, in Unix seconds."""

    def __init__(self, output: Path) -> None:
        self._output = output

    @property
    def answered(self) -> list[float]:
        """When an answer came."""
        text = self._output.read_text()
        return [float(one) for one in re.findall(r"^\[([\d.]+)\] \d+ bytes", text, re.MULTILINE)]

    def wait_for_more(self, count: int = 3, timeout_seconds: float = 10) -> None:
        """Wait until so many more pings were answered."""
        before = len(self.answered)
        wait_until(
            lambda: len(self.answered) >= before + count, timeout_seconds, what="more answers"
        )

    def seconds_until_answer(self, since: float, timeout_seconds: float = 20) -> float:
        """Return how long after the time `since` the first answer came; waits for it."""
        later = wait_until(
            lambda: [one for one in self.answered if one > since],
            timeout_seconds,
            what="an answer",
        )
        return later[0] - since

    def longest_silence_seconds(self) -> float:
        """Return the longest time between two answers."""
        return max(later - earlier for earlier, later in itertools.pairwise(self.answered))


@contextmanager
def pinging(namespace: Namespace, address: str, directory: Path) -> Iterator[Pings]:
    """Ping twenty times a second until this ends."""
    output = directory / f"pings-{time.monotonic_ns()}"
    with output.open("wb") as file:
        process = subprocess.Popen(
            namespace.command("ping", "-n", "-D", "-i", str(PING_SECONDS), address),
            stdout=file,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Pings(output)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
