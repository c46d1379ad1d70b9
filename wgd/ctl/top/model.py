"""What `top` knows from one look to the next: rates, a history of them, and the rows it shows.

No input or output here, and no clock: a status says when it was taken.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from wgd.constants import SECOND_NS
from wgd.status import DeviceStatus, PeerStatus

HISTORY: Final = 40
"""Looks that a sparkline can go back."""

RECENT_NS: Final = 60 * SECOND_NS
"""A failure is news for that long."""


class Sort(Enum):
    """What rows can be ordered by; the value is the column's heading."""

    PEER = "PEER"
    ENDPOINT = "ENDPOINT"
    HANDSHAKE = "AGE"
    RECEIVED = "RX/s"
    SENT = "TX/s"
    NOTE = "NOTE"


class PeerKey(NamedTuple):
    """Which peer of which interface."""

    interface: str
    public_key: str


class _Trace:
    """The last figures of a peer, and its rates (bytes a second) in the looks before."""

    __slots__ = ("at_ns", "history", "received", "received_rate", "sent", "sent_rate")

    def __init__(self) -> None:
        self.at_ns = 0
        self.received = self.sent = 0
        self.received_rate = self.sent_rate = 0.0
        self.history: deque[float] = deque(maxlen=HISTORY)

    def add(self, peer: PeerStatus, now_ns: int) -> None:
        seconds = (now_ns - self.at_ns) / SECOND_NS
        if self.at_ns and seconds <= 0:
            return  # the same look again, or the clock was set back
        if self.at_ns:
            # Counters start anew with the daemon, or when a peer is removed and added.
            self.received_rate = max(0, peer.received_bytes - self.received) / seconds
            self.sent_rate = max(0, peer.sent_bytes - self.sent) / seconds
            self.history.append(self.received_rate + self.sent_rate)
        self.at_ns = now_ns
        self.received = peer.received_bytes
        self.sent = peer.sent_bytes


@dataclass(frozen=True, slots=True)
class Row:
    """One peer as it is shown; rates are in bytes a second."""

    interface: str
    peer: PeerStatus
    now_ns: int
    received_rate: float
    sent_rate: float
    history: tuple[float, ...]

    @property
    def key(self) -> PeerKey:
        """Return what tells this row from every other."""
        return PeerKey(self.interface, self.peer.public_key)

    def note(self) -> str:
        """Return what is wrong with this peer now, in a word or two; "" if nothing is known to be.

        What lies in the way of packets now comes before what has failed in the last minute.
        """
        peer = self.peer
        if peer.unanswered_initiations:
            return f"unanswered {peer.unanswered_initiations}"
        if peer.staged_packets:
            return f"waiting {peer.staged_packets}"
        for failure in peer.failures[:1]:
            if self.now_ns - failure.last_ns < RECENT_NS:
                return failure.reason.value.replace("_", " ")
        return "" if peer.last_handshake_ns else "no handshake"


class Model:
    """The statuses of the last look, with what was remembered of those before."""

    def __init__(self) -> None:
        self.statuses: tuple[DeviceStatus, ...] = ()
        self._traces: dict[PeerKey, _Trace] = {}

    def update(self, statuses: Iterable[DeviceStatus]) -> None:
        """Take a new look; who is not in it is forgotten."""
        self.statuses = tuple(statuses)
        traces = {}
        for status in self.statuses:
            for peer in status.peers:
                key = PeerKey(status.interface, peer.public_key)
                trace = traces[key] = self._traces.get(key) or _Trace()
                trace.add(peer, status.now_ns)
        self._traces = traces

    def rates(self, status: DeviceStatus) -> tuple[float, float]:
        """Return received and sent bytes a second of all peers of an interface."""
        traces = [self._traces[PeerKey(status.interface, peer.public_key)] for peer in status.peers]
        return sum(each.received_rate for each in traces), sum(each.sent_rate for each in traces)

    def rows(
        self, sort: Sort, *, is_reversed: bool = False, text: str = "", interface: str = ""
    ) -> list[Row]:
        """Return the peers that have `text` in key, endpoint, allowed IPs or note.

        Of one interface, or with "" of all. The most, the latest and the troubled come first.
        """
        rows = [
            self._row(status, peer)
            for status in self.statuses
            if interface in ("", status.interface)
            for peer in status.peers
        ]
        if wanted := text.lower():
            rows = [row for row in rows if wanted in _searchable(row)]
        rows.sort(key=_ORDER[sort], reverse=is_reversed)
        return rows

    def _row(self, status: DeviceStatus, peer: PeerStatus) -> Row:
        trace = self._traces[PeerKey(status.interface, peer.public_key)]
        return Row(
            status.interface,
            peer,
            status.now_ns,
            trace.received_rate,
            trace.sent_rate,
            tuple(trace.history),
        )


_ORDER: Final[dict[Sort, Callable[[Row], tuple[Any, ...]]]] = {
    Sort.PEER: lambda row: row.key,
    Sort.ENDPOINT: lambda row: (not row.peer.endpoint, row.peer.endpoint),
    Sort.HANDSHAKE: lambda row: (-row.peer.last_handshake_ns, row.key),
    Sort.RECEIVED: lambda row: (-row.received_rate, -row.peer.received_bytes),
    Sort.SENT: lambda row: (-row.sent_rate, -row.peer.sent_bytes),
    Sort.NOTE: lambda row: (
        not row.note(),
        -max((each.last_ns for each in row.peer.failures), default=0),
    ),
}


def _searchable(row: Row) -> str:
    peer = row.peer
    return " ".join(
        (row.interface, peer.public_key, peer.endpoint, *peer.allowed_ips, row.note())
    ).lower()
