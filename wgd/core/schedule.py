"""When each peer is to be looked at: a heap of deadlines, of which one timer serves the earliest.

A deadline that moved away is left in place: looking early is cheap, and it is what turns ten
thousand busy peers into ten thousand looks per ten seconds.
"""

import heapq

from wgd.dataplane.interface import PeerId


class Schedule:
    """Deadlines in boot nanoseconds, at most one per peer that counts."""

    def __init__(self) -> None:
        # The entry of a peer counts only if `_deadlines` has the same for it.
        self._heap: list[tuple[int, PeerId]] = []
        self._deadlines: dict[PeerId, int] = {}

    def look_by(self, peer: PeerId, deadline_ns: int | None) -> None:
        """Make sure the peer is looked at no later than its deadline; None asks for nothing."""
        before_ns = self._deadlines.get(peer)
        if deadline_ns is None or (before_ns is not None and before_ns <= deadline_ns):
            return
        self._deadlines[peer] = deadline_ns
        heapq.heappush(self._heap, (deadline_ns, peer))
        if len(self._heap) > 4 * len(self._deadlines) + 64:
            self._heap = [(when_ns, who) for who, when_ns in self._deadlines.items()]
            heapq.heapify(self._heap)

    def forget(self, peer: PeerId) -> None:
        """Look at this peer no more."""
        self._deadlines.pop(peer, None)

    def next_deadline(self) -> int | None:
        """Return the earliest deadline, None without any."""
        while self._heap:
            deadline_ns, peer = self._heap[0]
            if self._deadlines.get(peer) == deadline_ns:
                return deadline_ns
            heapq.heappop(self._heap)
        return None

    def take_due(self, now_ns: int, limit: int) -> list[PeerId]:
        """Take at most `limit` peers whose deadline has come, the earliest first."""
        due: list[PeerId] = []
        while (
            len(due) < limit
            and (deadline_ns := self.next_deadline()) is not None
            and deadline_ns <= now_ns
        ):
            _, peer = heapq.heappop(self._heap)
            del self._deadlines[peer]
            due.append(peer)
        return due
