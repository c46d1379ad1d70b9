"""`syncconf`: the change that makes a device what a file says, touching nothing that is so already.

A session of a peer that the file does not change goes on undisturbed.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from wgd.addresses import Prefix
from wgd.configuration import NO_KEY, DeviceChange, PeerChange
from wgd.uapi.client import Device, Peer

_T = TypeVar("_T")


def difference(device: Device, wanted: DeviceChange) -> DeviceChange:
    """Return what turns `device` into `wanted`, a `whole` configuration: vanished peers go first.

    A listen port of 0 in `wanted` means any, and stands for a new one, as `wg` has it.
    """
    peers = _wanted_peers(wanted)
    current = {peer.public_key: peer for peer in device.peers}
    changes = [PeerChange(key, remove=True) for key in current if key not in peers]
    for key, peer in peers.items():
        if (change := _peer_difference(current.get(key), peer)) is not None:
            changes.append(change)
    return DeviceChange(
        private_key=_unless(wanted.private_key, device.private_key),
        listen_port=_unless(wanted.listen_port, device.listen_port),
        fwmark=_unless(wanted.fwmark, device.fwmark),
        peers=tuple(changes),
    )


def _wanted_peers(wanted: DeviceChange) -> dict[bytes, PeerChange]:
    """Return one section a peer, with the prefixes that will be its own in the end.

    A prefix given to several peers stays with the last one. That has to be settled before the
    comparison, because a peer that is left alone cannot take it back.
    """
    peers: dict[bytes, PeerChange] = {}
    owners: dict[Prefix, bytes] = {}
    for peer in wanted.peers:
        earlier = peers.get(peer.public_key)
        peers[peer.public_key] = _merged(earlier, peer)
        if earlier is not None and peer.replace_allowed_ips:
            owners = {prefix: key for prefix, key in owners.items() if key != peer.public_key}
        for change in peer.allowed_ips:
            if not change.remove:
                owners[change.prefix] = peer.public_key
            elif owners.get(change.prefix) == peer.public_key:
                del owners[change.prefix]
    return {
        key: replace(
            peer,
            allowed_ips=tuple(
                change
                for change in peer.allowed_ips
                if change.remove or owners.get(change.prefix) == key
            ),
        )
        for key, peer in peers.items()
    }


def _merged(earlier: PeerChange | None, later: PeerChange) -> PeerChange:
    """Return two sections on the same peer as one."""
    if earlier is None:
        return later
    keepalive_seconds = later.persistent_keepalive_seconds
    if keepalive_seconds is None:
        keepalive_seconds = earlier.persistent_keepalive_seconds
    keeps = not later.replace_allowed_ips
    return replace(
        later,
        preshared_key=later.preshared_key or earlier.preshared_key,
        endpoint=later.endpoint or earlier.endpoint,
        persistent_keepalive_seconds=keepalive_seconds,
        replace_allowed_ips=later.replace_allowed_ips or earlier.replace_allowed_ips,
        allowed_ips=(earlier.allowed_ips if keeps else ()) + later.allowed_ips,
    )


def _peer_difference(current: Peer | None, wanted: PeerChange) -> PeerChange | None:
    """Return what turns `current` into `wanted`; None if it is that already."""
    if current is None:
        return wanted
    change = PeerChange(
        wanted.public_key,
        preshared_key=_unless(wanted.preshared_key or NO_KEY, current.preshared_key),
        endpoint=_unless(wanted.endpoint, current.endpoint),
        persistent_keepalive_seconds=_unless(
            wanted.persistent_keepalive_seconds or 0, current.persistent_keepalive_seconds
        ),
    )
    if not wanted.replace_allowed_ips or set(_prefixes(wanted)) != set(current.allowed_ips):
        change = replace(
            change,
            replace_allowed_ips=wanted.replace_allowed_ips,
            allowed_ips=wanted.allowed_ips,
        )
    return change if change != PeerChange(wanted.public_key) else None


def _prefixes(peer: PeerChange) -> Iterator[Prefix]:
    return (change.prefix for change in peer.allowed_ips)


def _unless(wanted: _T, current: object) -> _T | None:
    return None if wanted == current else wanted
