"""A token bucket per source address, in a bounded table (paper, section 5.3).

Applied under load to initiations whose MAC2 has proven the address, so entries cannot be forged.
One IPv6 user commonly holds a whole /64, so that is the unit there.
"""

import ipaddress

from wgd.addresses import Endpoint
from wgd.constants import (
    HANDSHAKE_BURST_PER_SOURCE,
    HANDSHAKES_PER_SECOND_PER_SOURCE,
    MAX_RATE_LIMITED_SOURCES,
    SECOND_NS,
)

_COST_NS = SECOND_NS // HANDSHAKES_PER_SECOND_PER_SOURCE
_CAPACITY_NS = _COST_NS * HANDSHAKE_BURST_PER_SOURCE


class RateLimiter:
    """Allows each source a burst, then a steady rate; a full table allows no new source.

    Tokens are nanoseconds: a message costs the time that one message earns.
    """

    def __init__(self) -> None:
        # Oldest first: an entry is moved to the end whenever it is used.
        self._buckets: dict[bytes, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, source: Endpoint, now_ns: int) -> bool:
        """Whether a message of `source` may be handled at `now_ns`; takes its token if so."""
        self._forget_full_buckets(now_ns)
        address = ipaddress.ip_address(source.host).packed
        unit = address if len(address) == 4 else address[:8]
        tokens_ns, updated_ns = self._buckets.pop(unit, (_CAPACITY_NS, now_ns))
        if len(self._buckets) >= MAX_RATE_LIMITED_SOURCES:
            return False
        tokens_ns = min(_CAPACITY_NS, tokens_ns + now_ns - updated_ns)
        allowed = tokens_ns >= _COST_NS
        self._buckets[unit] = (tokens_ns - _COST_NS if allowed else tokens_ns, now_ns)
        return allowed

    def _forget_full_buckets(self, now_ns: int) -> None:
        """Drop what has been idle long enough to be full again: the same as not being there."""
        while self._buckets:
            unit, (_, updated_ns) = next(iter(self._buckets.items()))
            if now_ns - updated_ns < _CAPACITY_NS:
                return
            del self._buckets[unit]
