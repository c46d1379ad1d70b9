"""The way to a peer: its name, the route, the firewall, the host, the port.

`obstacle` gives one finding for a peer that does not answer: the nearest thing in the way.
"""

import errno
import os
from collections.abc import Iterator
from typing import Final

from wgd.ctl.doctor.catalog import Finding, find
from wgd.ctl.doctor.facts import EndpointProbe, Facts, FirewallRule
from wgd.ctl.doctor.rules.common import about, failure_of, is_silent, times
from wgd.diagnosis import FailureReason
from wgd.status import DeviceStatus, PeerStatus

_UNREACHABLE: Final = (errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH)
_BLOCKED: Final = (errno.EPERM, errno.EACCES)


def names(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """The endpoint's name is not found, or it is somewhere else by now."""
    for peer in device.peers:
        name = peer.configured_endpoint
        answer = facts.names.get(peer.public_key)
        failure = failure_of(peer, FailureReason.HOST_NOT_FOUND, facts)
        host, _, _ = name.rpartition(":")
        if failure is not None or (answer is not None and answer.error):
            reason = answer.error if answer is not None and answer.error else ""
            reason = reason or (failure.detail if failure is not None else "") or "no such name"
            yield about("name-not-found", facts, peer, name=name, host=host, reason=reason)
        elif answer is not None and answer.addresses and not _is_at(peer, answer.addresses):
            addresses = ", ".join(answer.addresses)
            values = {"name": name, "addresses": addresses, "address": peer.endpoint or "nowhere"}
            yield about("name-moved", facts, peer, **values)


def routes(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """There is no route to an endpoint, or it leads into the tunnel."""
    for peer in device.peers:
        path = facts.paths.get(peer.public_key)
        if path is None:
            continue
        if path.marked.error:
            yield about("no-route-to-endpoint", facts, peer, reason=_words(path.marked.error))
        elif path.marked.interface == facts.interface:
            yield about("route-loop", facts, peer)


def obstacles(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """A peer that is called does not answer."""
    for peer in device.peers:
        path = facts.paths.get(peer.public_key)
        if path is not None and (path.marked.error or path.marked.interface == facts.interface):
            continue  # `routes` has said it
        if not peer.endpoint:
            continue  # nowhere to call it: `without_endpoint` and `names` see to that
        if (found := _obstacle(facts, device, peer)) is not None:
            yield found


def firewall(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """Rules are in the way of what we receive and send, whether or not it was tried."""
    peers = {peer.public_key: peer for peer in device.peers}
    for rule in facts.firewall:
        peer = peers.get(rule.public_key)
        if rule.hook == "output" and peer is not None and _is_blocked(facts, peer):
            continue  # `obstacles` has said it
        if not rule.is_certain and any(peer.has_session for peer in device.peers):
            continue  # it did not drop theirs
        towards = peer.endpoint if peer is not None else "peers"
        to_us = f"comes in for UDP port {device.listen_port}"
        yield find(
            "firewall-drops" if rule.is_certain else "firewall-may-drop",
            public_key=rule.public_key,
            direction=to_us if rule.hook == "input" else f"goes out to {towards}",
            rule=rule.text,
            port=device.listen_port,
        )


RULES: Final = (names, routes, obstacles, firewall)


def _obstacle(facts: Facts, device: DeviceStatus, peer: PeerStatus) -> Finding | None:
    probe = facts.probes.get(peer.public_key, EndpointProbe())
    refused = failure_of(peer, FailureReason.SEND_FAILED, facts)
    if _is_blocked(facts, peer):
        return about("own-firewall", facts, peer, rule=_rule_text(facts, peer))
    if not is_silent(peer, facts):
        return None
    if probe.error in _UNREACHABLE:
        return about("host-unreachable", facts, peer, reason=_words(probe.error))
    if probe.error == errno.ECONNREFUSED:
        return about("port-closed", facts, peer)
    if refused is not None:
        reason = refused.detail or _words(probe.error or errno.EIO)
        return about("send-failed", facts, peer, reason=f"{reason} ({times(refused, facts)})")
    if failure_of(peer, FailureReason.RESPONSE_NOT_AUTHENTIC, facts) is not None:
        return None  # it does answer: `handshakes` says what is wrong
    count = peer.unanswered_initiations
    if not count and (failure := failure_of(peer, FailureReason.NOT_ANSWERED, facts)) is not None:
        count = failure.count
    called = "one handshake was sent" if count == 1 else f"{count or 'some'} handshakes were sent"
    return about(
        "endpoint-silent",
        facts,
        peer,
        called=called,
        ping=_ping_text(probe),
        own_key=device.public_key,
    )


def _is_blocked(facts: Facts, peer: PeerStatus) -> bool:
    """Whether this machine refuses to send to the peer."""
    if (probe := facts.probes.get(peer.public_key)) is not None and probe.error in _BLOCKED:
        return True
    failure = failure_of(peer, FailureReason.SEND_FAILED, facts)
    return failure is not None and any(
        os.strerror(number) in failure.detail or errno.errorcode[number] in failure.detail
        for number in _BLOCKED
    )


def _rule_text(facts: Facts, peer: PeerStatus) -> str:
    rules = [rule for rule in facts.firewall if _is_about(rule, peer)]
    rules.sort(key=lambda rule: not rule.is_certain)
    return rules[0].text if rules else "sending is not permitted"


def _is_about(rule: FirewallRule, peer: PeerStatus) -> bool:
    return rule.hook == "output" and rule.public_key in ("", peer.public_key)


def _is_at(peer: PeerStatus, addresses: tuple[str, ...]) -> bool:
    host, _, _ = peer.endpoint.rpartition(":")
    return host.strip("[]") in addresses


def _ping_text(probe: EndpointProbe) -> str:
    if probe.answers_ping is None:
        return ""
    if probe.answers_ping:
        return "Its host answers a ping, so the way there works."
    return "Its host does not answer a ping either, which may be its firewall's doing."


def _words(number: int) -> str:
    return os.strerror(number)
