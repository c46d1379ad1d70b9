"""Sessions that are there and do not do: one way only, wrong inner addresses, missing routes."""

import os
from collections.abc import Iterator
from typing import Final

from wgd.constants import SECOND_NS
from wgd.ctl.doctor.catalog import Finding, find
from wgd.ctl.doctor.facts import Facts, Source
from wgd.ctl.doctor.rules.common import FRESH_NS, about, failure_of, in_brackets, times
from wgd.diagnosis import FailureReason
from wgd.status import DeviceStatus, PeerStatus

_RESPONSE_SIZE: Final = 92  # bytes
_STRICT: Final = 1
_ANSWER_NS: Final = 11 * SECOND_NS
"""Data is answered within 10 s, if only by a keepalive."""
MULTICASTS: Final = 20
"""So many packets for nobody are the system's own: it looks for IPv6 routers on each interface."""


def one_way(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """Handshakes pass, and what is sent then is not answered."""
    addresses = [] if facts.link is None else list(facts.link.addresses)
    for peer in device.peers:
        if _is_one_way(peer, facts):
            yield about(
                "one-way",
                facts,
                peer,
                counts=f"{peer.sent_bytes} bytes sent, {peer.received_bytes} received",
                addresses=", ".join(addresses) or "the one of our interface",
            )


def _is_one_way(peer: PeerStatus, facts: Facts) -> bool:
    if not peer.last_handshake_ns or facts.source is Source.GET:
        return False
    # Nothing but responses ever came, and data was sent in more than one session.
    has_only_responses = (
        peer.received_packets >= 2
        and peer.received_bytes == _RESPONSE_SIZE * peer.received_packets
        and peer.sent_packets > 2 * peer.received_packets
    )
    is_unanswered = (
        peer.last_received_ns <= peer.last_handshake_ns + SECOND_NS
        and peer.last_sent_ns > peer.last_handshake_ns + _ANSWER_NS
        and facts.now_ns - peer.last_sent_ns < _ANSWER_NS
        and facts.now_ns - peer.last_received_ns > _ANSWER_NS
        and not peer.persistent_keepalive_seconds
    )
    return has_only_responses or is_unanswered


def wrong_source(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """A peer sends from addresses that are not its own; a handshake since does not mend that."""
    for peer in device.peers:
        for failure in peer.failures:
            is_recent = facts.now_ns - failure.last_ns <= FRESH_NS or not failure.last_ns
            if failure.reason is FailureReason.NOT_AN_ALLOWED_IP and is_recent:
                yield about(
                    "source-not-allowed",
                    facts,
                    peer,
                    count=times(failure, facts),
                    detail=in_brackets(failure.detail),
                    prefixes=", ".join(peer.allowed_ips) or "none",
                )


def wrong_destination(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """The system routes more into the tunnel than the peers take."""
    failure = failure_of(device, FailureReason.NO_ROUTE, facts)
    if failure is not None and failure.count > MULTICASTS:
        yield find(
            "destination-not-allowed",
            interface=facts.interface,
            count=times(failure, facts),
            detail=in_brackets(failure.detail),
        )


def missing_routes(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """An allowed IP is not routed into the tunnel."""
    for peer in device.peers:
        for prefix in peer.allowed_ips:
            route = facts.prefix_routes.get(prefix)
            if route is None or route.is_local or route.interface == facts.interface:
                continue
            instead = f"to {route.interface}" if route.interface else "nowhere"
            if route.error:
                instead = f"nowhere ({os.strerror(route.error)})"
            is_everything = prefix.endswith("/0")
            finding_id = "no-default-route" if is_everything else "missing-route"
            yield about(finding_id, facts, peer, prefix=prefix, instead=instead)


def reverse_path_filter(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """A strict filter that does not look at marks drops what comes from the endpoint."""
    if facts.system.marks_are_valid_sources is not False or not device.fwmark:
        return
    for peer in device.peers:
        path = facts.paths.get(peer.public_key)
        if path is None or ":" in peer.endpoint.rpartition(":")[0]:
            continue  # IPv6 has no such filter
        underlay = path.marked.interface
        is_strict = facts.system.reverse_path_filter.get(underlay) == _STRICT
        goes_inside = path.unmarked.interface == facts.interface != underlay
        if is_strict and goes_inside:
            yield about("reverse-path-filter", facts, peer, underlay=underlay)


RULES: Final = (one_way, wrong_source, wrong_destination, missing_routes, reverse_path_filter)
