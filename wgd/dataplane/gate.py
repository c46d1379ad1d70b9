"""Who is heard: initiations and responses on their way from the sockets to the control plane.

Whoever does not know our public key (MAC1) is never heard, and a copy of what was heard is not
heard again. While many messages wait, and for a second after ("under load"; paper, section 5.3), a
message is heard if

1 its MAC2 proves its source address, within a rate for each;
2 or it is expected: a response to an open initiation of ours, whose index only somebody on the way
  can know, or anything from where a peer is, within a rate for each;
3 or its source, which nothing proves, has sent little: within a rate for each and one for all, most
  of which is for those that had been quiet for a minute, as whoever wants to join has.

Anything else is answered by a cookie, at a bounded rate and at no cost to the control plane; most
cookies are for who had been quiet, and some are spare, so that who forges a source does not use up
what its owner gets. The three have queues of their own (`handshake_queue`), so that none can push
out another's, and what is merely claimed never takes what was proven. No memory here grows with the
number of senders.

The native engine has the same (native/engine/src/gate.rs). Sans-IO.
"""

import ipaddress
from collections.abc import Callable, Collection
from enum import Enum, auto
from typing import Final

from wgd.addresses import Endpoint
from wgd.constants import (
    COOKIE_REPLIES_PER_SECOND,
    COOKIE_REPLY_BURST,
    HANDSHAKE_BURST_PER_SOURCE,
    HANDSHAKES_PER_SECOND_PER_SOURCE,
    MAX_COOKIE_REPLY_SOURCES,
    MAX_HEARD_HANDSHAKES,
    MAX_RATE_LIMITED_SOURCES,
    MAX_STRANGERS,
    PEER_ENDPOINTS_LIFETIME_NS,
    QUIET_COOKIE_REPLIES_PER_SECOND,
    QUIET_COOKIE_REPLY_BURST,
    QUIET_STRANGER_HANDSHAKE_BURST,
    QUIET_STRANGER_HANDSHAKES_PER_SECOND,
    SPARE_COOKIE_REPLIES_PER_SECOND,
    SPARE_COOKIE_REPLY_BURST,
    STRANGER_HANDSHAKE_BURST,
    STRANGER_HANDSHAKES_PER_SECOND,
    UNDER_LOAD_QUEUE_DEPTH,
    UNDER_LOAD_STICKY_NS,
    UNPROVEN_HANDSHAKE_BURST_PER_SOURCE,
    UNPROVEN_HANDSHAKES_PER_SECOND_PER_SOURCE,
)
from wgd.dataplane.portable_state import Drops
from wgd.dataplane.rate_limiter import Rate, RateLimiter, TokenBucket
from wgd.dataplane.recent_sources import RecentSources
from wgd.noise.cookie import CookieChecker, HandshakeKeys
from wgd.noise.messages import MACS_SIZE
from wgd.noise.primitives import MAC_SIZE, Random

_PROVEN: Final = Rate(HANDSHAKES_PER_SECOND_PER_SOURCE, HANDSHAKE_BURST_PER_SOURCE)
_UNPROVEN: Final = Rate(
    UNPROVEN_HANDSHAKES_PER_SECOND_PER_SOURCE, UNPROVEN_HANDSHAKE_BURST_PER_SOURCE
)
_QUIET_STRANGERS: Final = Rate(QUIET_STRANGER_HANDSHAKES_PER_SECOND, QUIET_STRANGER_HANDSHAKE_BURST)
_ALL_STRANGERS: Final = Rate(STRANGER_HANDSHAKES_PER_SECOND, STRANGER_HANDSHAKE_BURST)
_QUIET_COOKIE_REPLIES: Final = Rate(QUIET_COOKIE_REPLIES_PER_SECOND, QUIET_COOKIE_REPLY_BURST)
_ALL_COOKIE_REPLIES: Final = Rate(COOKIE_REPLIES_PER_SECOND, COOKIE_REPLY_BURST)
_SPARE_COOKIE_REPLIES: Final = Rate(SPARE_COOKIE_REPLIES_PER_SECOND, SPARE_COOKIE_REPLY_BURST)

PeerEndpoints = Callable[[], Collection[tuple[str, int]]]
"""Returns hosts and ports where peers are; asked at most once a second, under load only."""


class Lane(Enum):
    """Who waits with whom: a flood in one lane pushes out nothing in another."""

    STRANGERS = auto()
    EXPECTED = auto()
    PROVEN = auto()
    COOKIE_REPLIES = auto()


class Gate:
    """The gate of one device; without keys nobody is heard."""

    def __init__(self, drops: Drops, random: Random) -> None:
        self.cookies_sent = 0
        self._drops = drops
        self._random = random
        self._under_load_until_ns = 0
        self.set_keys(None)

    def set_keys(self, keys: HandshakeKeys | None) -> None:
        """Check MACs with these keys from now on; what was known of senders is forgotten."""
        self._checker = None if keys is None else CookieChecker(keys)
        self._proven: RateLimiter[bytes] = RateLimiter(_PROVEN, MAX_RATE_LIMITED_SOURCES)
        self._expected: RateLimiter[int | tuple[str, int]] = RateLimiter(
            _UNPROVEN, MAX_RATE_LIMITED_SOURCES
        )
        self._strangers: RateLimiter[bytes] = RateLimiter(_UNPROVEN, MAX_STRANGERS)
        self._quiet_strangers = TokenBucket(_QUIET_STRANGERS)
        self._all_strangers = TokenBucket(_ALL_STRANGERS)
        self._quiet_cookie_replies = TokenBucket(_QUIET_COOKIE_REPLIES)
        self._cookie_replies: RateLimiter[bytes] = RateLimiter(_PROVEN, MAX_COOKIE_REPLY_SOURCES)
        self._all_cookie_replies = TokenBucket(_ALL_COOKIE_REPLIES)
        self._spare_cookie_replies = TokenBucket(_SPARE_COOKIE_REPLIES)
        self._heard: list[bytes | None] = [None] * MAX_HEARD_HANDSHAKES
        self._peer_endpoints: tuple[int, Collection[tuple[str, int]]] | None = None
        self._recent: RecentSources | None = None

    def note_queued(self, queued: int, now_ns: int) -> None:
        """So many initiations and responses wait at `now_ns` (boot time)."""
        if queued >= UNDER_LOAD_QUEUE_DEPTH:
            self._under_load_until_ns = now_ns + UNDER_LOAD_STICKY_NS

    def is_under_load(self, now_ns: int) -> bool:
        """Whether messages must prove where they come from."""
        return now_ns < self._under_load_until_ns

    def judge(
        self,
        datagram: bytes,
        source: Endpoint,
        answers: int | None,
        peer_endpoints: PeerEndpoints,
        now_ns: int,
    ) -> Lane | bytes | None:
        """Judge an initiation, or a response to what we sent under the index `answers`.

        Returns where it waits to be heard; or what its sender is to be sent, a cookie reply; or
        None: it is dropped.
        """
        checker = self._checker
        if checker is None or not checker.check_mac1(datagram):
            self._drops.wrong_mac1 += 1
            return None
        # A MAC1 that was right tells messages apart, and is no secret. Senders can choose its
        # place, and thereby at most be heard again.
        fingerprint = datagram[-MACS_SIZE:-MAC_SIZE]
        place = int.from_bytes(fingerprint[:2], "little") % MAX_HEARD_HANDSHAKES
        if self._heard[place] == fingerprint:
            self._drops.repeated_handshake += 1
            return None
        if not self.is_under_load(now_ns):
            self._forget(now_ns)
            self._heard[place] = fingerprint
            return Lane.STRANGERS
        verdict = self._lane_or_reply(checker, datagram, source, answers, peer_endpoints, now_ns)
        if isinstance(verdict, Lane):
            self._heard[place] = fingerprint
        else:
            self._drops.under_load += 1
        return verdict

    def judge_cookie_reply(self, index: int, now_ns: int) -> bool:
        """Whether a cookie reply to what we sent under `index` is worth a look."""
        return self._expected.allow(index, now_ns)

    def _lane_or_reply(
        self,
        checker: CookieChecker,
        datagram: bytes,
        source: Endpoint,
        answers: int | None,
        peer_endpoints: PeerEndpoints,
        now_ns: int,
    ) -> Lane | bytes | None:
        """Judge, under load, a message whose MAC1 is right."""
        unit = _unit(source)
        is_proven = checker.check_mac2(datagram, source, now_ns)
        if is_proven and self._proven.allow(unit, now_ns):
            return Lane.PROVEN
        if self._is_expected(source, answers, peer_endpoints, now_ns):
            return Lane.EXPECTED
        if is_proven:
            return None  # it has a cookie
        self._recent = self._recent or RecentSources(now_ns)
        was_quiet = self._recent.was_quiet(unit, now_ns)
        if self._is_strangers_turn(unit, was_quiet, now_ns):
            return Lane.STRANGERS
        if not self._may_answer(unit, was_quiet, now_ns):
            return None
        self.cookies_sent += 1
        sender_index = int.from_bytes(datagram[4:8], "little")
        return checker.create_reply(datagram, sender_index, source, now_ns, self._random)

    def _forget(self, now_ns: int) -> None:
        """There is no load: hold on to nothing that is for one."""
        self._peer_endpoints = None
        if self._recent is not None and self._recent.is_outdated(now_ns):
            self._recent = None

    def _is_expected(
        self, source: Endpoint, answers: int | None, peer_endpoints: PeerEndpoints, now_ns: int
    ) -> bool:
        if answers is not None:
            return self._expected.allow(answers, now_ns)
        endpoint = source[:2]
        is_known = self._is_peer_at(endpoint, peer_endpoints, now_ns)
        return is_known and self._expected.allow(endpoint, now_ns)

    def _is_strangers_turn(self, unit: bytes, was_quiet: bool, now_ns: int) -> bool:
        budget = self._all_strangers
        if was_quiet and self._quiet_strangers.has_token(now_ns):
            budget = self._quiet_strangers
        if not budget.has_token(now_ns) or not self._strangers.allow(unit, now_ns):
            return False
        budget.take()
        return True

    def _is_peer_at(
        self, endpoint: tuple[str, int], peer_endpoints: PeerEndpoints, now_ns: int
    ) -> bool:
        known = self._peer_endpoints
        if known is None or now_ns - known[0] >= PEER_ENDPOINTS_LIFETIME_NS:
            known = self._peer_endpoints = now_ns, peer_endpoints()
        return endpoint in known[1]

    def _may_answer(self, unit: bytes, was_quiet: bool, now_ns: int) -> bool:
        """Whether a source may be sent a cookie reply now; takes its token if so."""
        budget = self._all_cookie_replies
        if was_quiet and self._quiet_cookie_replies.has_token(now_ns):
            budget = self._quiet_cookie_replies
        elif not budget.has_token(now_ns) or not self._cookie_replies.allow(unit, now_ns):
            # Perhaps the source was forged, and this is who is really there.
            budget = self._spare_cookie_replies
            if not budget.has_token(now_ns):
                return False
        budget.take()
        return True


def _unit(source: Endpoint) -> bytes:
    """Return the source as rates see it: an IPv6 user commonly holds a whole /64."""
    address = ipaddress.ip_address(source.host).packed
    return address if len(address) == 4 else address[:8]
