"""Attempts at a handshake with one peer, sans-IO: when an initiation goes out, and when none does.

An attempt begins when a handshake is wanted. An initiation that is not answered is followed by
another after REKEY_TIMEOUT and a jitter, perhaps to another place, until there is an answer or
REKEY_ATTEMPT_TIME has passed. Nothing is sent within REKEY_TIMEOUT of the last initiation or
response, unless that never left.
"""

import logging
from collections.abc import Sequence
from typing import Protocol

from wgd.addresses import Endpoint
from wgd.clock import Instant
from wgd.constants import (
    INITIATION_INTERVAL_MIN_NS,
    REKEY_ATTEMPT_TIME_NS,
    REKEY_TIMEOUT_JITTER_MAX_NS,
    REKEY_TIMEOUT_NS,
)
from wgd.core import timers
from wgd.core.handshake_counts import HandshakeCounts
from wgd.core.locator import Locator
from wgd.diagnosis import FailureLog, FailureReason
from wgd.noise.primitives import Random

logger = logging.getLogger(__name__)


class Initiating(Protocol):
    """What an attempt needs of its peer, whose repr is what the log calls it."""

    def may_initiate(self, now: Instant) -> bool:
        """Return whether there is a link to send on and a key to send with."""

    def make_initiation(self, now: Instant) -> bytes | None:
        """Return a new initiation with its MACs; None if that can never be."""

    def given_up(self, now: Instant) -> None:
        """Note that an attempt was in vain."""


class Initiator:
    """The attempts of one peer."""

    __slots__ = (
        "_at_ns",
        "_attempt_started_ns",
        "_counts",
        "_failures",
        "_first_sent_ns",
        "_initiated_ns",
        "_is_out",
        "_last_sent_ns",
        "_locator",
        "_peer",
        "_random",
        "_unanswered_since_ns",
        "jitter_ns",
        "unanswered",
    )

    def __init__(
        self,
        peer: Initiating,
        locator: Locator,
        *,
        failures: FailureLog,
        counts: HandshakeCounts,
        random: Random,
    ) -> None:
        self._peer = peer
        self._locator = locator
        self._failures = failures
        self._counts = counts
        self._random = random
        self.unanswered = 0
        """Initiations in a row that were not answered in time, also those that never left."""
        self.jitter_ns = self._draw_jitter()
        """Drawn anew for each initiation."""
        self._attempt_started_ns = 0
        self._first_sent_ns: int | None = None
        """When the first initiation of this attempt was sent."""
        self._last_sent_ns: int | None = None
        """When we last sent an initiation or a response: neither is sent again too soon."""
        self._initiated_ns: int | None = None
        """When we last sent an initiation that left; `reset` does not forget this."""
        self._is_out = True
        """Whether the system has taken that message, so that it may be answered."""
        self._unanswered_since_ns: int | None = None
        """When the initiation was sent that the retransmit timer watches."""
        self._at_ns: int | None = None
        """One was wanted and could not be sent: try again then."""

    # -- attempts ----------------------------------------------------------------------------------

    def wanted(self, now: Instant) -> None:
        """A handshake is wanted: begin an attempt, unless there is one."""
        if not self._is_under_way:
            self._attempt_started_ns = now.boot_ns
        self._initiate(now)

    def responded(self, now: Instant) -> None:
        """We have sent a response."""
        self._last_sent_ns = now.boot_ns
        self._is_out = True

    def answered(self, now: Instant) -> None:
        """The response to an initiation has come; `completed` follows."""
        if self._first_sent_ns is not None:
            self._counts.answered_after(now.boot_ns - self._first_sent_ns)

    def completed(self) -> None:
        """There is a session, whoever began: no attempt is needed."""
        self.unanswered = 0
        self._locator.heard()
        self._end()

    def reset(self) -> None:
        """Stop, and begin anew when that is wanted."""
        self._end()
        self._last_sent_ns = None

    def has_sent_since(self, since_ns: int) -> bool:
        """Whether the last initiation or response left after this (boot time)."""
        return self._last_sent_ns is not None and self._last_sent_ns > since_ns

    def _end(self) -> None:
        self._unanswered_since_ns = None
        self._at_ns = None
        self._first_sent_ns = None

    @property
    def _is_under_way(self) -> bool:
        return self._unanswered_since_ns is not None or self._at_ns is not None

    def _is_too_long(self, now: Instant) -> bool:
        return now.boot_ns - self._attempt_started_ns >= REKEY_ATTEMPT_TIME_NS

    def _give_up(self, now: Instant) -> None:
        self._counts.given_up += 1
        logger.info("%r event=handshake_given_up", self._peer)
        self._end()
        self._locator.give_up()
        self._peer.given_up(now)

    # -- initiations -------------------------------------------------------------------------------

    def _initiate(self, now: Instant) -> None:
        """Send an initiation, unless it cannot be sent or the last one was just now."""
        if self._at_ns is not None and now.boot_ns < self._at_ns:
            return
        self._at_ns = None
        if not self._peer.may_initiate(now):
            return
        if self._locator.endpoint is None:
            self._wait_for_endpoint(now)
            return
        allowed_ns = self._allowed_ns()
        if now.boot_ns < allowed_ns:
            if self._unanswered_since_ns is None:  # else the retransmit timer sees to it
                self._at_ns = allowed_ns
            return
        datagram = self._peer.make_initiation(now)
        if datagram is None:
            return
        self.jitter_ns = self._draw_jitter()
        self._last_sent_ns = now.boot_ns
        self._unanswered_since_ns = now.boot_ns
        if self._first_sent_ns is None:
            self._first_sent_ns = now.boot_ns
        self._is_out = self._locator.send(datagram, now)
        if self._is_out:
            self._initiated_ns = now.boot_ns
            self._counts.initiated += 1
            logger.debug("%r event=initiation_sent", self._peer)
        else:
            logger.debug("%r event=initiation_not_sent", self._peer)
            self._locator.missed(now)

    def _allowed_ns(self) -> int:
        """Return from when on an initiation may be sent, in boot nanoseconds.

        However often we begin anew: one that comes too soon after another is for the responder a
        part of a flood, and being dropped costs more time than waiting.
        """
        allowed_ns = 0
        if self._last_sent_ns is not None:
            allowed_ns = self._last_sent_ns + REKEY_TIMEOUT_NS
        if self._initiated_ns is not None:
            allowed_ns = max(allowed_ns, self._initiated_ns + 2 * INITIATION_INTERVAL_MIN_NS)
        return allowed_ns

    def _wait_for_endpoint(self, now: Instant) -> None:
        self._failures.note(FailureReason.NO_ENDPOINT, now.wall_ns)
        logger.debug("%r event=no_endpoint", self._peer)
        if not self._locator.has_host:
            self._locator.refuse()
            return
        if self._is_too_long(now):
            self._give_up(now)
            return
        self._locator.missed(now)
        # Or as soon as the host is found.
        self._at_ns = max(self._locator.lookup_after_ns, now.boot_ns + REKEY_TIMEOUT_NS)

    def _initiate_again(self, now: Instant) -> None:
        """Do not wait any more, if we do: send another initiation.

        At once if the last one never left, else as soon as that may be.
        """
        if not self._is_under_way:
            return
        if not self._is_out:
            self._last_sent_ns = None
        self._unanswered_since_ns = None
        self._at_ns = None
        self._initiate(now)

    # -- time --------------------------------------------------------------------------------------

    def next_deadline(self) -> int | None:
        """Return when `on_deadline` is due next, in boot nanoseconds; None for never."""
        retransmit_ns = timers.retransmit_handshake(self._unanswered_since_ns, self.jitter_ns)
        if retransmit_ns is None or self._at_ns is None:
            return self._at_ns if retransmit_ns is None else retransmit_ns
        return min(retransmit_ns, self._at_ns)

    def on_deadline(self, now: Instant) -> None:
        """Do whatever is due at `now`."""
        retransmit_ns = timers.retransmit_handshake(self._unanswered_since_ns, self.jitter_ns)
        if retransmit_ns is not None and retransmit_ns <= now.boot_ns:
            self._expired_retransmit(now)
        if self._at_ns is not None and self._at_ns <= now.boot_ns:
            self._initiate(now)

    def _expired_retransmit(self, now: Instant) -> None:
        self.unanswered += 1
        if self._is_out:  # else the data plane has said why not
            self._counts.unanswered += 1
            detail = str(self._locator.endpoint)
            self._failures.note(FailureReason.NOT_ANSWERED, now.wall_ns, detail)
        if self._is_too_long(now):
            self._give_up(now)
            return
        self._locator.try_next(self._unanswered_since_ns or 0)
        self._locator.missed(now)
        self._unanswered_since_ns = None
        logger.debug("%r event=handshake_retried", self._peer)
        self._initiate(now)

    # -- the network changes -----------------------------------------------------------------------

    def rebound(self, now: Instant) -> None:
        """Our port has changed: the answer to an initiation that is out will not find us.

        The next one goes out as soon as the responder takes it.
        """
        if self._unanswered_since_ns is not None:
            self._unanswered_since_ns = None
            self._last_sent_ns = None
            self._at_ns = max(now.boot_ns, self._allowed_ns())

    def endpoint_set(self) -> None:
        """There is an endpoint where there was none: it was waited for."""
        self._at_ns = None

    def resolved(self, endpoints: Sequence[Endpoint], now: Instant) -> None:
        """Take what the endpoint's name stands for, nothing if it was not found."""
        moved_to = self._locator.found(endpoints, now)
        if moved_to is not None and (self._locator.endpoint is None or self._is_missed()):
            self._locator.move(moved_to)
            self._initiate_again(now)
        elif endpoints and not self._is_out:
            self._initiate_again(now)  # there may be a way to another address

    def _is_missed(self) -> bool:
        """Whether the peer has not been heard from since it should have answered."""
        is_waiting = self._first_sent_ns is not None or self.unanswered > 0
        return is_waiting and not self._locator.was_heard_since(self._last_sent_ns or 0)

    @property
    def waits_for_network(self) -> bool:
        """Whether a change of the network may help to reach the peer."""
        return not self._is_out or self.unanswered > 0 or self._locator.has_host

    @property
    def has_given_up(self) -> bool:
        """Whether the last attempt was in vain, and there is no other yet."""
        return self.unanswered > 0 and not self._is_under_way

    def network_changed(self, now: Instant) -> None:
        """What could not be sent may be sent now. What is out will be answered or repeated.

        Nothing is sent here but at the deadline, which is now: thousands may wait for a network.
        """
        if self._is_under_way and (not self._is_out or self._locator.endpoint is None):
            if not self._is_out:
                self._last_sent_ns = None
            self._unanswered_since_ns = None
            self._at_ns = now.boot_ns

    def _draw_jitter(self) -> int:
        return int.from_bytes(self._random(4), "little") % (REKEY_TIMEOUT_JITTER_MAX_NS + 1)
