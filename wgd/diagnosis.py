"""Why it does not work: failures in words, each with a count and the time of the last one.

The control plane notes what it refuses or waits for in vain, the data plane what it drops for a
peer. Nothing here is part of the configuration protocol's `get`; `wgd.status` shows it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_DETAIL_SIZE: Final = 200
"""Characters of a detail that are kept: it may hold what a stranger sent."""


class FailureReason(StrEnum):
    """What can fail; the value is its name in logs, metrics and JSON."""

    # a handshake, of one peer
    NO_ENDPOINT = "no_endpoint"
    NO_PRIVATE_KEY = "no_private_key"
    NOT_ANSWERED = "not_answered"
    SEND_FAILED = "send_failed"
    WEAK_KEY = "weak_key"
    REPLAYED_TIMESTAMP = "replayed_timestamp"
    INITIATION_FLOOD = "initiation_flood"
    INITIATION_NOT_AUTHENTIC = "initiation_not_authentic"
    RESPONSE_NOT_AUTHENTIC = "response_not_authentic"
    COOKIE_NOT_AUTHENTIC = "cookie_not_authentic"
    HOST_NOT_FOUND = "host_not_found"
    # a packet, of one peer
    PACKET_NOT_AUTHENTIC = "packet_not_authentic"
    PACKET_REPLAYED = "packet_replayed"
    SESSION_EXPIRED = "session_expired"
    NOT_AN_ALLOWED_IP = "not_an_allowed_ip"
    MALFORMED_PACKET = "malformed_packet"
    # of nobody we know
    WRONG_MAC1 = "wrong_mac1"
    UNKNOWN_PEER = "unknown_peer"
    UNKNOWN_INDEX = "unknown_index"
    MALFORMED_MESSAGE = "malformed_message"
    NO_ROUTE = "no_route"
    OWN_KEY_AS_PEER = "own_key_as_peer"


IN_WORDS: Final[dict[FailureReason, str]] = {
    FailureReason.NO_ENDPOINT: "there is something to send, but no endpoint to send it to",
    FailureReason.NO_PRIVATE_KEY: "the interface has no private key",
    FailureReason.NOT_ANSWERED: "a handshake initiation was not answered",
    FailureReason.SEND_FAILED: "the system could not send to the endpoint",
    FailureReason.WEAK_KEY: "the public key is of low order: no session can be made with it",
    FailureReason.REPLAYED_TIMESTAMP: "an initiation was older than one before (or a copy of it)",
    FailureReason.INITIATION_FLOOD: "initiations came too quickly after one another",
    FailureReason.INITIATION_NOT_AUTHENTIC: "an initiation with this peer's key was forged",
    FailureReason.RESPONSE_NOT_AUTHENTIC: (
        "a response could not be opened: forged, or the preshared keys differ"
    ),
    FailureReason.COOKIE_NOT_AUTHENTIC: "a cookie reply could not be opened",
    FailureReason.HOST_NOT_FOUND: "the host name of the endpoint was not found",
    FailureReason.PACKET_NOT_AUTHENTIC: "a packet could not be decrypted",
    FailureReason.PACKET_REPLAYED: "a packet was a copy, or came too late",
    FailureReason.SESSION_EXPIRED: "a packet came for a session that is over",
    FailureReason.NOT_AN_ALLOWED_IP: "a packet's inner source is not in the peer's allowed IPs",
    FailureReason.MALFORMED_PACKET: "an inner packet was malformed",
    FailureReason.WRONG_MAC1: "a handshake message was not made for our public key",
    FailureReason.UNKNOWN_PEER: "an initiation came from a public key that is no peer's",
    FailureReason.UNKNOWN_INDEX: "a message came for a session that nobody here has",
    FailureReason.MALFORMED_MESSAGE: "a datagram was no WireGuard message",
    FailureReason.OWN_KEY_AS_PEER: "a peer was configured with our own public key, and skipped",
    FailureReason.NO_ROUTE: "a packet's destination is in no peer's allowed IPs",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """How often something has failed; `last_ns` is Unix time in nanoseconds, 0 if not known.

    `detail` is for people: an address, an error of the system, a public key; never a secret.
    """

    reason: FailureReason
    count: int
    last_ns: int
    detail: str = ""


class FailureLog:
    """What has failed so far: one entry per reason, so it never grows."""

    __slots__ = ("_failures",)

    def __init__(self) -> None:
        self._failures: dict[FailureReason, Failure] = {}

    def note(
        self, reason: FailureReason, now_wall_ns: int, detail: str = "", *, count: int = 1
    ) -> None:
        """Count a failure that happened at `now_wall_ns` (Unix time)."""
        before = self._failures.get(reason)
        total = count if before is None else before.count + count
        self._failures[reason] = Failure(reason, total, now_wall_ns, detail[:MAX_DETAIL_SIZE])

    def count(self, reason: FailureReason) -> int:
        """Return how often `reason` was noted."""
        known = self._failures.get(reason)
        return 0 if known is None else known.count

    def failures(self, *others: Failure) -> tuple[Failure, ...]:
        """Return all of it and `others` (of the data plane), the latest first, each reason once."""
        merged = dict(self._failures)
        for other in others:
            known = merged.get(other.reason)
            if known is not None:
                count, last_ns = known.count + other.count, max(known.last_ns, other.last_ns)
                other = Failure(other.reason, count, last_ns, other.detail or known.detail)
            merged[other.reason] = other
        return latest_first(merged.values())


def latest_first(failures: Iterable[Failure]) -> tuple[Failure, ...]:
    """Return failures in the order in which people want them."""
    return tuple(sorted(failures, key=lambda failure: failure.last_ns, reverse=True))
