"""UDP in memory: named hosts, sockets and a network whose faults a test chooses. Deterministic.

1 `MemorySocket.send` picks the source address and hands a `Transit` to the network;
2 the network asks its `fate` how many copies arrive and when: none is loss, two a duplicate,
  different delays reorder;
3 copies without delay arrive at once, the others when `deliver` is called at or after their time;
4 a copy is queued at whatever socket has its destination at that moment, or is lost.

May touch nothing outside; a descriptor to wait on is only made when somebody asks for it.
"""

import errno
import heapq
import os
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from wgd.addresses import Endpoint, Source
from wgd.clock import Clock
from wgd.constants import MAX_DATAGRAM_SIZE
from wgd.dataplane.wakeup import Wakeup

QUEUE_LIMIT: Final = 4096
"""Datagrams that wait at one socket, or under way; then new ones are lost."""

INTERFACE_INDEX: Final = 1
"""Every host has one interface."""

_FIRST_EPHEMERAL_PORT: Final = 49_152


class Transit(NamedTuple):
    """A datagram under way; `source` and `destination` have neither zone nor pinned source."""

    source: Endpoint
    destination: Endpoint
    datagram: bytes
    traffic_class: int = 0


Fate = Callable[[Transit], Iterable[int]]
"""Returns the delay (ns) of each copy that arrives: `(0,)` is a perfect network, `()` loss."""


def _perfect(_transit: Transit) -> Iterable[int]:
    return (0,)


class MemoryNetwork:
    """Hosts that reach one another directly. Change `fate` to break it."""

    def __init__(self, clock: Clock, fate: Fate = _perfect) -> None:
        self.fate = fate
        self._clock = clock
        self._hosts: dict[str, MemoryHost] = {}
        self._under_way: list[tuple[int, int, Transit]] = []
        self._sequence = 0

    def host(self, name: str, *addresses: str) -> "MemoryHost":
        """Add a host with these IPv4 and IPv6 addresses."""
        self._hosts[name] = host = MemoryHost(self, name, addresses)
        return host

    def next_deadline(self) -> int | None:
        """Return when (boot ns) `deliver` has something to do, or None."""
        return self._under_way[0][0] if self._under_way else None

    def deliver(self) -> None:
        """Let every delayed datagram arrive whose time has come."""
        now_ns = self._clock.boot_ns()
        while self._under_way and self._under_way[0][0] <= now_ns:
            self._arrive(heapq.heappop(self._under_way)[2])

    def send(self, transit: Transit) -> None:
        """Take a datagram from a socket and meet its fate."""
        for delay_ns in self.fate(transit):
            self.carry(transit, delay_ns)

    def carry(self, transit: Transit, delay_ns: int) -> None:
        """Let a datagram arrive after `delay_ns`, whatever its fate would have been."""
        if not delay_ns:
            self._arrive(transit)
        elif len(self._under_way) < QUEUE_LIMIT:
            self._sequence += 1  # equal times arrive in the order they were sent
            due_ns = self._clock.boot_ns() + delay_ns
            heapq.heappush(self._under_way, (due_ns, self._sequence, transit))

    def _arrive(self, transit: Transit) -> None:
        host, port = transit.destination.host, transit.destination.port
        for candidate in self._hosts.values():
            if host in candidate.addresses:
                sock = candidate.sockets.get((transit.destination.is_ipv6, port))
                if sock is not None:
                    sock.arrive(transit)
                return


class MemoryHost:
    """A host; assign `addresses` to let it move to another network."""

    def __init__(self, network: MemoryNetwork, name: str, addresses: Iterable[str]) -> None:
        self.name = name
        self.addresses = tuple(addresses)
        self.sockets: dict[tuple[bool, int], MemorySocket] = {}
        """By (is IPv6, port)."""
        self._network = network

    def bind(self, *, is_ipv6: bool = False, port: int = 0) -> "MemorySocket":
        """Open a socket; port 0 takes the first free ephemeral one.

        Raises OSError (EADDRINUSE) when the port is taken.
        """
        if port == 0:
            port = _FIRST_EPHEMERAL_PORT
            while (is_ipv6, port) in self.sockets:
                port += 1
        elif (is_ipv6, port) in self.sockets:
            raise _os_error(errno.EADDRINUSE)
        self.sockets[is_ipv6, port] = sock = MemorySocket(self._network, self, port, is_ipv6)
        return sock


class MemorySocket:
    """The `DatagramSocket` of the data plane, in memory.

    Errors put into `send_errors`, `segment_errors` or `receive_errors` (numbers) are raised by the
    next `send`, `send_segments` or `receive_into`. With `coalesces`, datagrams of one sender and
    size are received together, as UDP GRO does.
    """

    def __init__(self, network: MemoryNetwork, host: MemoryHost, port: int, is_ipv6: bool) -> None:
        self.is_ipv6 = is_ipv6
        self.port = port
        self.max_segments = 64
        self.coalesces = False
        self.segment_sends = 0
        """How often `send_segments` was called."""
        self.send_errors: deque[int] = deque()
        self.segment_errors: deque[int] = deque()
        self.receive_errors: deque[int] = deque()
        self._network = network
        self._host = host
        self._received: deque[Transit] = deque()
        self._wakeup: Wakeup | None = None

    def fileno(self) -> int:
        """Return the descriptor to wait on: readable while datagrams wait."""
        if self._wakeup is None:
            self._wakeup = Wakeup()
            if self._received:
                self._wakeup.set()
        return self._wakeup.fileno()

    def receive_into(self, buffer: memoryview) -> tuple[int, int, Endpoint, int]:
        """Receive one datagram; a length of 0 stands for one that is longer than `buffer`."""
        if self.receive_errors:
            raise _os_error(self.receive_errors.popleft())
        if not self._received:
            raise _os_error(errno.EAGAIN)
        source, destination, datagram, traffic_class = first = self._received.popleft()
        size = len(datagram)
        while self.coalesces and self._continues(first, size, len(datagram), len(buffer)):
            datagram += self._received.popleft().datagram
            if len(datagram) % size:
                break  # a shorter one is the last
        if not self._received and self._wakeup is not None:
            self._wakeup.clear()
        sender = source._replace(source=Source(destination.host, INTERFACE_INDEX))
        if len(datagram) > len(buffer):
            return 0, 0, sender, traffic_class
        buffer[: len(datagram)] = datagram
        return len(datagram), size, sender, traffic_class

    def _continues(self, first: Transit, size: int, length: int, room: int) -> bool:
        """Whether the next datagram may be received together with those before it."""
        if not self._received or not size:
            return False
        following = self._received[0]
        return (
            following.source == first.source
            and following.traffic_class == first.traffic_class
            and 0 < len(following.datagram) <= size
            and length + len(following.datagram) <= room
        )

    def send(
        self,
        datagram: bytes | bytearray | memoryview,
        endpoint: Endpoint,
        traffic_class: int = 0,
    ) -> None:
        """Send one datagram. Raises OSError: EMSGSIZE beyond 65,507 bytes, EADDRNOTAVAIL when the
        pinned source is not (or no longer) an address of this host, ENETUNREACH without any.
        """
        if self.send_errors:
            raise _os_error(self.send_errors.popleft())
        if len(datagram) > MAX_DATAGRAM_SIZE:
            raise _os_error(errno.EMSGSIZE)
        if endpoint.is_ipv6 != self.is_ipv6:
            raise _os_error(errno.EAFNOSUPPORT)
        ours = [address for address in self._host.addresses if (":" in address) == self.is_ipv6]
        if not ours:
            raise _os_error(errno.ENETUNREACH)
        address = ours[0]
        if endpoint.source is not None:
            address = endpoint.source.address
            if address not in ours:
                raise _os_error(errno.EADDRNOTAVAIL)
        destination = Endpoint(endpoint.host, endpoint.port)
        source = Endpoint(address, self.port)
        self._network.send(Transit(source, destination, bytes(datagram), traffic_class))

    def send_segments(
        self, datagrams: memoryview, size: int, endpoint: Endpoint, traffic_class: int = 0
    ) -> None:
        """Send datagrams of `size` bytes that lie end to end; the last may be shorter."""
        self.segment_sends += 1
        if self.segment_errors:
            raise _os_error(self.segment_errors.popleft())
        for offset in range(0, len(datagrams), size):
            self.send(datagrams[offset : offset + size], endpoint, traffic_class)

    def arrive(self, transit: Transit) -> None:
        """Queue a datagram that came over the network, or lose it if the queue is full."""
        if len(self._received) < QUEUE_LIMIT:
            self._received.append(transit)
            if self._wakeup is not None:
                self._wakeup.set()

    def set_fwmark(self, mark: int) -> None:
        """Accept any mark: there is no routing here that could heed it."""

    def close(self) -> None:
        """Stop receiving, free the port and the descriptor; once or more."""
        self._host.sockets.pop((self.is_ipv6, self.port), None)
        self._received.clear()
        if self._wakeup is not None:
            self._wakeup.close()
            self._wakeup = None


def _os_error(number: int) -> OSError:
    # OSError picks the subclass that fits the number, BlockingIOError for one.
    return OSError(number, os.strerror(number))
