"""Handshakes that were refused: here, or by what came back."""

import re
from collections.abc import Iterator
from typing import Final

from wgd.constants import SECOND_NS
from wgd.ctl.doctor.catalog import Finding, find
from wgd.ctl.doctor.facts import Facts, Source
from wgd.ctl.doctor.rules.common import (
    SESSION_NS,
    about,
    failure_of,
    in_brackets,
    is_silent,
    times,
)
from wgd.diagnosis import IN_WORDS, FailureReason
from wgd.status import DeviceStatus, PeerStatus

_KEY: Final = re.compile(r"[A-Za-z0-9+/]{43}=")
_LATELY_NS: Final = 30 * SECOND_NS
_FORGED: Final = (
    FailureReason.INITIATION_NOT_AUTHENTIC,
    FailureReason.COOKIE_NOT_AUTHENTIC,
    FailureReason.PACKET_NOT_AUTHENTIC,
)


def strangers(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """Somebody calls whose key is no peer's."""
    failure = failure_of(device, FailureReason.UNKNOWN_PEER, facts)
    if failure is None:
        return
    found = _KEY.search(failure.detail)
    caller = found[0] if found is not None else "PUBLIC-KEY"
    yield find(
        "unknown-peer",
        public_key=found[0] if found is not None else "",
        interface=facts.interface,
        count=times(failure, facts),
        who=failure.detail or "nobody knows who",
        caller=caller,
    )


def wrong_mac1(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """Somebody calls who believes in another key of ours."""
    failure = failure_of(device, FailureReason.WRONG_MAC1, facts)
    if failure is not None:
        yield find(
            "wrong-public-key",
            count=times(failure, facts),
            detail=in_brackets(failure.detail),
            own_key=device.public_key,
        )


def preshared_keys(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """A response came from the right place and cannot be opened."""
    for peer in device.peers:
        failure = failure_of(peer, FailureReason.RESPONSE_NOT_AUTHENTIC, facts)
        if failure is not None:
            ours = "this one has one" if peer.has_preshared_key else "this one has none"
            yield about(
                "preshared-keys-differ", facts, peer, count=times(failure, facts), ours=ours
            )


def not_taken(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """A peer calls, is answered, and there is no session."""
    for peer in device.peers:
        if facts.source is Source.GET or peer.has_session or is_silent(peer, facts):
            continue
        was_heard = 0 <= facts.now_ns - peer.last_received_ns <= _LATELY_NS
        is_long_ago = peer.last_received_ns - peer.last_handshake_ns > SESSION_NS + _LATELY_NS
        is_explained = failure_of(peer, FailureReason.RESPONSE_NOT_AUTHENTIC, facts) is not None
        if was_heard and is_long_ago and peer.sent_bytes and not is_explained:
            yield about("answer-not-taken", facts, peer, port=device.listen_port)


def replayed(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """A peer's clock went back."""
    for peer in device.peers:
        failure = failure_of(peer, FailureReason.REPLAYED_TIMESTAMP, facts)
        if failure is None:
            continue
        is_copy = failure.last_ns < peer.last_handshake_ns + SECOND_NS  # made by the network
        was_heard_since = peer.last_received_ns > failure.last_ns
        if not is_copy and not was_heard_since:
            yield about("replayed-timestamp", facts, peer, count=times(failure, facts))


def shared_key(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """A peer's endpoint went from one address to another and back."""
    peers = {peer.public_key: peer for peer in device.peers}
    for key, seen in facts.seen_endpoints.items():
        if key in peers and len(seen) > len(set(seen)):
            endpoints = " and ".join(dict.fromkeys(seen))
            yield about("shared-key", facts, peers[key], endpoints=endpoints)


def forged(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """Something came in a peer's name that it did not make."""
    for peer in device.peers:
        for reason in _FORGED:
            failure = failure_of(peer, reason, facts)
            if failure is not None and not _is_alive(peer):
                yield about(
                    "forged", facts, peer, count=times(failure, facts), what=IN_WORDS[reason]
                )


RULES: Final = (
    strangers,
    wrong_mac1,
    preshared_keys,
    not_taken,
    replayed,
    shared_key,
    forged,
)


def _is_alive(peer: PeerStatus) -> bool:
    return peer.has_session
