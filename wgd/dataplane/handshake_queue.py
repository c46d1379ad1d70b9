"""Handshake messages on their way to the control plane: filtered, then queued within bounds.

Initiations and responses without a right MAC1 go no further (paper, section 5.4.4): a sender who
does not know our public key costs one BLAKE2s and no memory. Cookie replies have no MAC1, so they
queue apart, where a flood of them can push out nothing else.
"""

from collections import deque

from wgd.addresses import Endpoint
from wgd.constants import MAX_QUEUED_COOKIE_REPLIES, MAX_QUEUED_HANDSHAKES
from wgd.dataplane.interface import HandshakeMessage
from wgd.dataplane.portable_state import Drops
from wgd.noise.messages import MACS_SIZE, MessageType, message_type
from wgd.noise.primitives import MAC_SIZE, equal, mac

_Queue = deque[tuple[int, HandshakeMessage]]


class HandshakeQueue:
    """Two bounded queues, read as one; each drops its oldest. `mac1_key` None accepts no MAC1."""

    def __init__(self, drops: Drops) -> None:
        self.mac1_key: bytes | None = None
        self._drops = drops
        self._handshakes: _Queue = deque(maxlen=MAX_QUEUED_HANDSHAKES)
        self._cookie_replies: _Queue = deque(maxlen=MAX_QUEUED_COOKIE_REPLIES)
        self._arrived = 0

    def __len__(self) -> int:
        return len(self._handshakes) + len(self._cookie_replies)

    def offer(self, datagram: memoryview, source: Endpoint) -> bool:
        """Queue a copy of a datagram if it may be a handshake message; False if it was dropped."""
        kind = message_type(datagram)
        if kind is None or kind is MessageType.TRANSPORT:
            self._drops.malformed_datagram += 1
            return False
        queue = self._cookie_replies
        if kind is not MessageType.COOKIE_REPLY:
            if not self._has_mac1(datagram):
                self._drops.wrong_mac1 += 1
                return False
            queue = self._handshakes
        if len(queue) == queue.maxlen:
            self._drops.handshake_queue_full += 1
        self._arrived += 1
        queue.append((self._arrived, HandshakeMessage(bytes(datagram), source)))
        return True

    def _has_mac1(self, datagram: memoryview) -> bool:
        if self.mac1_key is None:
            return False
        start = len(datagram) - MACS_SIZE
        expected = mac(self.mac1_key, datagram[:start])
        return equal(expected, bytes(datagram[start : start + MAC_SIZE]))

    def take(self, limit: int) -> tuple[list[HandshakeMessage], int]:
        """Take at most `limit` messages, oldest first; also return how many initiations and
        responses there were before.
        """
        queued = len(self._handshakes)
        messages: list[HandshakeMessage] = []
        while self and len(messages) < limit:
            # Arrival numbers are unique, so the comparison never reaches the messages.
            queues = [queue for queue in (self._handshakes, self._cookie_replies) if queue]
            oldest = min(queues, key=lambda queue: queue[0][0])
            messages.append(oldest.popleft()[1])
        return messages, queued
