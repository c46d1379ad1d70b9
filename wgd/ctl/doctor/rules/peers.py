"""What is configured: allowed IPs, endpoints, and what the file has that the device has not."""

import ipaddress
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from wgd.ctl.doctor.catalog import Finding, find
from wgd.ctl.doctor.facts import Facts
from wgd.ctl.doctor.rules.common import about, failure_of, short
from wgd.diagnosis import FailureReason
from wgd.status import DeviceStatus, PeerStatus

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def without_allowed_ips(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """A peer has no allowed IPs."""
    for peer in device.peers:
        if not peer.allowed_ips:
            yield about("no-allowed-ips", facts, peer)


def without_endpoint(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """A peer has no endpoint and has never called."""
    for peer in device.peers:
        if peer.endpoint or peer.configured_endpoint or peer.last_handshake_ns:
            continue
        is_wanted = peer.staged_packets or failure_of(peer, FailureReason.NO_ENDPOINT, facts)
        yield about("no-endpoint" if is_wanted else "never-called", facts, peer)


def weak_key(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """A peer's public key is none."""
    for peer in device.peers:
        if any(failure.reason is FailureReason.WEAK_KEY for failure in peer.failures):
            yield about("weak-key", facts, peer)


def prefix_twice(facts: Facts, _device: DeviceStatus) -> Iterator[Finding]:
    """The file gives one prefix to several peers."""
    owners: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for peer in facts.file_peers:
        for prefix in peer.allowed_ips:
            owners[prefix][peer.public_key] = None
    for prefix, keys in owners.items():
        if len(keys) > 1:
            last = list(keys)[-1]
            yield find(
                "prefix-twice",
                public_key=last,
                file=facts.file_name,
                prefix=prefix,
                peer=short(last),
            )


def prefix_nested(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """A prefix of one peer lies within another's; within everything (`/0`) is surely meant so."""
    prefixes = sorted(
        (
            (_network(prefix), peer)
            for peer in device.peers
            for prefix in peer.allowed_ips
            if not prefix.endswith("/0")
        ),
        key=lambda pair: (pair[0].version, int(pair[0].network_address), pair[0].prefixlen),
    )
    around: list[tuple[_Network, PeerStatus]] = []
    for network, peer in prefixes:
        while around and not _holds(around[-1][0], network):
            around.pop()
        if around and around[-1][1] is not peer:
            outer, other = around[-1]
            yield about(
                "prefix-nested",
                facts,
                peer,
                inner=network,
                outer=outer,
                other=short(other.public_key),
            )
        around.append((network, peer))


def own_key(facts: Facts, device: DeviceStatus) -> Iterator[Finding]:
    """Our own key is a peer's: the file says so, or nobody is left after it was skipped.

    Beside other peers it may be meant so: one file for all nodes.
    """
    in_file = any(peer.public_key == device.public_key for peer in facts.file_peers)
    was_skipped = any(each.reason is FailureReason.OWN_KEY_AS_PEER for each in device.failures)
    is_alone = was_skipped and not device.peers
    if device.public_key and (in_file or is_alone):
        source = facts.file_name if in_file else "What was set"
        yield find("own-key-as-peer", file=source, key=short(device.public_key))


RULES: Final = (
    without_allowed_ips,
    without_endpoint,
    weak_key,
    prefix_twice,
    prefix_nested,
    own_key,
)


def _network(prefix: str) -> _Network:
    return ipaddress.ip_network(prefix, strict=False)


def _holds(outer: _Network, inner: _Network) -> bool:
    # Sorted by address and length: what begins within `outer` lies within it.
    return outer.version == inner.version and int(inner.network_address) <= int(
        outer.broadcast_address
    )
