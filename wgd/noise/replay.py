"""The sliding window that refuses a counter seen before or too old (RFC 6479; paper, 5.4.6).

One bit per counter in a ring that is never shifted: moving on only clears the bytes that are
reused. The ring is one byte (and more) longer than the window, so that a byte which is being
cleared never holds a counter still in the window.
"""

from typing import Final

from wgd.constants import REJECT_AFTER_MESSAGES, REPLAY_WINDOW

_RING_BITS: Final = 8192
_RING_SIZE: Final = _RING_BITS // 8
_RING_MASK: Final = _RING_SIZE - 1
_BIT: Final = (1, 2, 4, 8, 16, 32, 64, 128)


class ReplayWindow:
    """Which counters of one receiving key were seen.

    Ask it only about packets that are authentic: one forged counter could move the window.
    """

    __slots__ = ("_greatest", "_ring")

    def __init__(self) -> None:
        self._greatest = -1
        self._ring = bytearray(_RING_SIZE)

    def accept(self, counter: int) -> bool:
        """Mark a counter as seen; False if it was before, is more than 8128 behind the greatest
        one seen, or is at or past REJECT_AFTER_MESSAGES.
        """
        greatest = self._greatest
        position = counter >> 3
        bit = _BIT[counter & 7]
        if counter > greatest:
            if counter >= REJECT_AFTER_MESSAGES:
                return False
            self._greatest = counter
            ahead = position - (greatest >> 3)
            if ahead == 0:
                self._ring[position & _RING_MASK] |= bit
            elif ahead == 1:
                self._ring[position & _RING_MASK] = bit
            else:
                self._jump(position, min(ahead, _RING_SIZE))
                self._ring[position & _RING_MASK] = bit
            return True
        if greatest - counter > REPLAY_WINDOW:
            return False
        position &= _RING_MASK
        seen = self._ring[position]
        if seen & bit:
            return False
        self._ring[position] = seen | bit
        return True

    def _jump(self, position: int, cleared: int) -> None:
        """Clear the `cleared` bytes of the ring that end before or at `position`."""
        end = (position & _RING_MASK) + 1
        start = end - cleared
        if start < 0:
            self._ring[start:] = bytes(-start)
            start = 0
        self._ring[start:end] = bytes(end - start)
