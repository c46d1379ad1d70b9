"""A userspace relay between two daemons, for kernels without netem: what `Weather` says, it does.

    left ── 198.18.1.0/24 ── relay ── 198.18.2.0/24 ── right

Each daemon takes the relay for its peer. The relay learns where left is from what left sends, and
knows where right is. It moves to another address or port on either side when it is told to, so
that a daemon sees its peer roam.
"""

import heapq
import selectors
import socket
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Final

from tests.faults.weather import Faults, Weather
from tests.testbed import Namespace

LEFT, RIGHT = "left", "right"

_BUFFER_BYTES: Final = 8 << 20
_MAX_DATAGRAM: Final = 65_535
_DATAGRAMS_PER_TURN: Final = 64
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h; root may exceed net.core.rmem_max


class _Side:
    """One side of the relay: a socket there, and who is beyond it."""

    def __init__(self, sock: socket.socket, daemon: tuple[str, int] | None) -> None:
        self.socket = sock
        self.daemon = daemon


class Relay:
    """Carries datagrams in a thread of its own while it is entered.

    `addresses` are those of the relay towards left and right, `right` is where that daemon listens.
    """

    def __init__(
        self, namespace: Namespace, addresses: dict[str, str], right: tuple[str, int], seed: int
    ) -> None:
        self.weather = {to: Weather(f"{seed} to {to}") for to in (LEFT, RIGHT)}
        """By where the datagrams go."""
        self.messages: Counter[int] = Counter()
        """How many datagrams of each type came in, by their first byte."""
        self._namespace = namespace
        self._sides = {
            LEFT: _Side(self._bind(addresses[LEFT]), None),
            RIGHT: _Side(self._bind(addresses[RIGHT]), right),
        }
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._under_way: list[tuple[int, int, str, bytes]] = []
        self._sequence = 0
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="relay")
        for side, it in self._sides.items():
            self._selector.register(it.socket, selectors.EVENT_READ, side)

    def __enter__(self) -> "Relay":
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._is_stopped = True
        self._thread.join()
        self._selector.close()
        for it in self._sides.values():
            it.socket.close()

    def endpoint(self, side: str) -> str:
        """Return where the daemon on that side finds the relay."""
        host, port = self._sides[side].socket.getsockname()
        return f"{host}:{port}"

    def set_faults(self, faults: Faults) -> None:
        """Be like this from now on, in both directions."""
        for weather in self.weather.values():
            weather.faults = faults

    def move(self, side: str, address: str) -> None:
        """Be at another port, perhaps of another address, on that side; the old one is closed."""
        moved = self._bind(address)
        with self._lock:
            it = self._sides[side]
            self._selector.unregister(it.socket)
            it.socket.close()
            it.socket = moved
            self._selector.register(moved, selectors.EVENT_READ, side)

    def _bind(self, address: str) -> socket.socket:
        sock = self._namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        sock.bind((address, 0))
        return sock

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_stopped:
            ready = self._selector.select(self._seconds_to_wait())
            with self._lock:
                for key, _ in ready:
                    if self._sides[key.data].socket is key.fileobj:
                        self._receive(key.data)
                self._send_due()

    def _seconds_to_wait(self) -> float:
        longest = 0.05  # somebody may have stopped or moved us
        if not self._under_way:
            return longest
        return min(max(self._under_way[0][0] - time.monotonic_ns(), 0) / 1e9, longest)

    def _receive(self, side: str) -> None:
        it, to = self._sides[side], LEFT if side == RIGHT else RIGHT
        for _ in range(_DATAGRAMS_PER_TURN):
            try:
                datagram, source = it.socket.recvfrom(_MAX_DATAGRAM)
            except BlockingIOError:
                return
            if side == LEFT:
                it.daemon = source
            self.messages[datagram[0] if datagram else 0] += 1
            for delay_ns, copy in self.weather[to].copies(datagram):
                if delay_ns:
                    self._sequence += 1
                    due_ns = time.monotonic_ns() + delay_ns
                    heapq.heappush(self._under_way, (due_ns, self._sequence, to, copy))
                else:
                    self._send(to, copy)

    def _send_due(self) -> None:
        now_ns = time.monotonic_ns()
        while self._under_way and self._under_way[0][0] <= now_ns:
            _, _, to, datagram = heapq.heappop(self._under_way)
            self._send(to, datagram)

    def _send(self, to: str, datagram: bytes) -> None:
        it = self._sides[to]
        if it.daemon is not None:
            try:
                it.socket.sendto(datagram, it.daemon)
            except OSError:
                return  # as on any network: it is lost
