"""Token buckets: one for each source in a bounded table, or one for all (paper, section 5.3).

Tokens are nanoseconds: a message costs the time that one message earns.
"""

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from wgd.constants import SECOND_NS

Source = TypeVar("Source", bound=Hashable)


class Rate(NamedTuple):
    """How much is allowed: a burst, then a steady rate."""

    per_second: int
    burst: int

    @property
    def cost_ns(self) -> int:
        """What one message costs."""
        return SECOND_NS // self.per_second

    @property
    def capacity_ns(self) -> int:
        """What a full bucket holds."""
        return self.cost_ns * self.burst


class TokenBucket:
    """One bucket for everybody, full at first."""

    def __init__(self, rate: Rate) -> None:
        self._cost_ns = rate.cost_ns
        self._capacity_ns = self._tokens_ns = rate.capacity_ns
        self._updated_ns = 0

    def has_token(self, now_ns: int) -> bool:
        """Whether there is a token."""
        self._tokens_ns = min(self._capacity_ns, self._tokens_ns + now_ns - self._updated_ns)
        self._updated_ns = now_ns
        return self._tokens_ns >= self._cost_ns

    def take(self) -> None:
        """Take one that there is."""
        self._tokens_ns -= self._cost_ns


class RateLimiter(Generic[Source]):
    """A bucket for each source, of which `most` are remembered; a full table allows no new one."""

    def __init__(self, rate: Rate, most: int) -> None:
        self._cost_ns = rate.cost_ns
        self._capacity_ns = rate.capacity_ns
        self._most = most
        # Oldest first: an entry is moved to the end whenever it is used.
        self._buckets: dict[Source, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, source: Source, now_ns: int) -> bool:
        """Whether a message of `source` may be handled at `now_ns`; takes its token if so."""
        self._forget_full_buckets(now_ns)
        tokens_ns, updated_ns = self._buckets.pop(source, (self._capacity_ns, now_ns))
        if len(self._buckets) >= self._most:
            return False
        tokens_ns = min(self._capacity_ns, tokens_ns + now_ns - updated_ns)
        allowed = tokens_ns >= self._cost_ns
        self._buckets[source] = (tokens_ns - self._cost_ns if allowed else tokens_ns, now_ns)
        return allowed

    def _forget_full_buckets(self, now_ns: int) -> None:
        """Drop what has been idle long enough to be full again: the same as not being there."""
        while self._buckets:
            source, (_, updated_ns) = next(iter(self._buckets.items()))
            if now_ns - updated_ns < self._capacity_ns:
                return
            del self._buckets[source]
