"""Handshake messages that wait for the control plane, within bounds."""

from collections import deque
from typing import Final

from wgd.constants import MAX_QUEUED_COOKIE_REPLIES, MAX_QUEUED_HANDSHAKES
from wgd.dataplane.gate import Lane
from wgd.dataplane.interface import HandshakeMessage

_LIMITS: Final = dict.fromkeys(Lane, MAX_QUEUED_HANDSHAKES) | {
    Lane.COOKIE_REPLIES: MAX_QUEUED_COOKIE_REPLIES
}


class HandshakeQueue:
    """Bounded lanes, read as one queue; each drops its oldest."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, deque[tuple[int, HandshakeMessage]]] = {
            lane: deque(maxlen=limit) for lane, limit in _LIMITS.items()
        }
        self._arrived = 0

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._lanes.values())

    @property
    def load(self) -> int:
        """How many initiations and responses wait: the measure of load."""
        return len(self) - len(self._lanes[Lane.COOKIE_REPLIES])

    def push(self, lane: Lane, message: HandshakeMessage) -> bool:
        """Queue a message; True if the oldest of its lane made room."""
        queue = self._lanes[lane]
        was_full = len(queue) == queue.maxlen
        self._arrived += 1
        queue.append((self._arrived, message))
        return was_full

    def take(self, limit: int) -> list[HandshakeMessage]:
        """Take at most `limit` messages, oldest first."""
        messages: list[HandshakeMessage] = []
        while self and len(messages) < limit:
            # Arrival numbers are unique, so the comparison never reaches the messages.
            queues = [queue for queue in self._lanes.values() if queue]
            oldest = min(queues, key=lambda queue: queue[0][0])
            messages.append(oldest.popleft()[1])
        return messages
