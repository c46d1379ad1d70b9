"""Who is heard while too many handshakes come (paper, section 5.3), sans-IO.

When many messages wait, and for a moment after, each must prove its source address with a MAC2 and
then finds a token bucket. Whoever cannot is told how to make a MAC2.
"""

from collections.abc import Callable

from wgd.constants import UNDER_LOAD_QUEUE_DEPTH, UNDER_LOAD_STICKY_NS
from wgd.core.rate_limiter import RateLimiter
from wgd.dataplane.interface import HandshakeMessage
from wgd.noise.cookie import CookieChecker


class Admission:
    """The door of one device; `random` returns that many random bytes."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._cookie_checker: CookieChecker | None = None
        self._rate_limiter = RateLimiter()
        self._under_load_until_ns = 0

    def set_public_key(self, public_key: bytes | None) -> None:
        """Check MAC2 with our static public key (32 bytes), None while there is none."""
        self._cookie_checker = None if public_key is None else CookieChecker(public_key)

    def saw_queue(self, queued: int, now_ns: int) -> None:
        """Note how many messages wait at `now_ns` (boot time)."""
        if queued >= UNDER_LOAD_QUEUE_DEPTH:
            self._under_load_until_ns = now_ns + UNDER_LOAD_STICKY_NS

    def is_under_load(self, now_ns: int) -> bool:
        """Whether messages must prove where they come from."""
        return now_ns < self._under_load_until_ns

    def admits(self, message: HandshakeMessage, now_ns: int) -> bool | None:
        """Whether an initiation or response is heard; None if a cookie reply shall say how."""
        if not self.is_under_load(now_ns):
            return True
        assert self._cookie_checker is not None  # noqa: S101 - there is one for every identity
        if self._cookie_checker.check_mac2(message.datagram, message.source, now_ns):
            return self._rate_limiter.allow(message.source, now_ns)
        return None

    def cookie_reply(self, message: HandshakeMessage, sender_index: int, now_ns: int) -> bytes:
        """Return the cookie reply (64 bytes) to a message with this sender index."""
        assert self._cookie_checker is not None  # noqa: S101 - see above
        return self._cookie_checker.create_reply(
            message.datagram, sender_index, message.source, now_ns, self._random
        )
