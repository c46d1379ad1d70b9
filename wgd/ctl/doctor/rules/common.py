"""What several rules need: names for peers, failures that still matter, times in words."""

from typing import Final

from wgd.constants import SECOND_NS
from wgd.ctl.doctor.catalog import Finding, find
from wgd.ctl.doctor.facts import Facts, Source
from wgd.diagnosis import Failure, FailureReason
from wgd.status import DeviceStatus, PeerStatus

FRESH_NS: Final = 600 * SECOND_NS
"""What failed longer ago than this is history."""
QUIET_NS: Final = 5 * SECOND_NS
"""A peer heard from within this time is there, whatever else seems to be."""
SESSION_NS: Final = 180 * SECOND_NS
"""How long a session lasts (REJECT_AFTER_TIME)."""

_IN_VAIN: Final = (FailureReason.NOT_ANSWERED, FailureReason.SEND_FAILED, FailureReason.NO_ENDPOINT)


def about(finding_id: str, facts: Facts, peer: PeerStatus, **values: object) -> Finding:
    """Return a finding about a peer: its names, its endpoint and the interface are filled in."""
    endpoint = peer.endpoint or peer.configured_endpoint
    host, port = split_endpoint(endpoint)
    usual: dict[str, object] = {
        "interface": facts.interface,
        "peer": named(peer),
        "key": peer.public_key,
        "endpoint": endpoint or "its endpoint",
        "host": host,
        "port": port,
    }
    return find(finding_id, public_key=peer.public_key, **{**usual, **values})


def short(public_key: str) -> str:
    """Return a public key as logs show it."""
    return f"{public_key[:4]}…{public_key[39:43]}" if len(public_key) > 43 else public_key


def named(peer: PeerStatus) -> str:
    """Return what people recognise a peer by."""
    endpoint = peer.endpoint or peer.configured_endpoint
    return f"{short(peer.public_key)} ({endpoint})" if endpoint else short(peer.public_key)


def split_endpoint(endpoint: str) -> tuple[str, str]:
    """Return host (without brackets and zone) and port of `host:port`; "" for what is missing."""
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]").partition("%")[0], port


def is_ipv6(endpoint: str) -> bool:
    """Whether the host of a numeric endpoint is an IPv6 address."""
    return ":" in split_endpoint(endpoint)[0]


def failure_of(
    owner: DeviceStatus | PeerStatus, reason: FailureReason, facts: Facts
) -> Failure | None:
    """Return what failed lately for `reason`: after the last handshake, if it is a peer's.

    A failure whose time is not known counts as late.
    """
    for failure in owner.failures:
        if failure.reason is not reason or not failure.count:
            continue
        if not failure.last_ns:
            return failure
        is_over = isinstance(owner, PeerStatus) and failure.last_ns < owner.last_handshake_ns
        if facts.now_ns - failure.last_ns <= FRESH_NS and not is_over:
            return failure
    return None


def times(failure: Failure, facts: Facts) -> str:
    """Return how often something failed and when last, in words."""
    count = "once" if failure.count == 1 else f"{failure.count} times"
    if not failure.last_ns:
        return f"{count} since the daemon's start"
    return f"{count}, {ago(facts.now_ns - failure.last_ns)}"


def ago(nanoseconds: int) -> str:
    """Return how long ago something was, in words."""
    seconds = max(nanoseconds // SECOND_NS, 0)
    if seconds < 2:
        return "just now"
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} seconds ago"


def in_brackets(detail: str) -> str:
    """Return a detail to be put behind a sentence, nothing for none."""
    return f" ({detail})" if detail else ""


def is_silent(peer: PeerStatus, facts: Facts) -> bool:
    """Whether the peer was called lately and nothing came back."""
    if facts.now_ns - peer.last_received_ns < QUIET_NS:
        return False
    if facts.source is not Source.GET:
        # Not `unanswered_initiations`: of a peer that sleeps it stays until the next session.
        return any(failure_of(peer, reason, facts) is not None for reason in _IN_VAIN)
    # Of other daemons we know only what `wg show` shows.
    has_expired = facts.now_ns - peer.last_handshake_ns > SESSION_NS
    was_called = peer.sent_bytes > 0 and (
        not peer.last_handshake_ns or peer.persistent_keepalive_seconds > 0
    )
    return bool(peer.endpoint) and was_called and has_expired
