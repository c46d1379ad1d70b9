"""Things that several targets use: keys, a resolver that asks nobody, devices out of changes."""

import base64
import re
import socket
from collections.abc import Callable, Iterable
from functools import cache
from typing import Final

from wgd.addresses import Prefix
from wgd.configuration import NO_KEY, DeviceChange, DeviceState, PeerChange, PeerState
from wgd.ctl import values

KEYS: Final = tuple(bytes([number]) * 31 + b"\x40" for number in range(1, 6))
BASE64: Final = tuple(base64.b64encode(key) for key in KEYS)
HEX: Final = tuple(key.hex().encode() for key in KEYS)

_SECRET: Final = re.compile(r"[A-Za-z0-9+/]{36}")


def check_no_key(text: str) -> None:
    """Check that a message holds nothing that could be a key."""
    assert not _SECRET.search(text), f"a message shows what may be a key: {text!a}"


def asking_nobody(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Let `values` look up only numbers and services in `run`: no input may go to a name server."""

    def run_alone(data: bytes) -> None:
        before, values._lookup = values._lookup, _look_up_numbers
        try:
            run(data)
        finally:
            values._lookup = before

    return run_alone


@cache
def _look_up_numbers(host: str | None, service: str) -> tuple[str, int, int]:
    flags = socket.AI_PASSIVE if host is None else 0
    answers = socket.getaddrinfo(
        host,
        service,
        socket.AF_UNSPEC,
        socket.SOCK_DGRAM,
        socket.IPPROTO_UDP,
        flags | socket.AI_NUMERICHOST,
    )
    address = answers[0][4]
    return str(address[0]), int(address[1]), int(address[3]) if len(address) == 4 else 0


def state_of(change: DeviceChange) -> DeviceState:
    """Return what a device shows that was empty before a change: the slow and simple way."""
    peers: dict[bytes, PeerState] = {}
    for each in change.peers:
        _apply(each, peers)
    return DeviceState(
        change.private_key or NO_KEY,
        change.listen_port or 0,
        change.fwmark or 0,
        tuple(peers.values()),
    )


def _apply(change: PeerChange, peers: dict[bytes, PeerState]) -> None:
    if change.remove:
        peers.pop(change.public_key, None)
        return
    old = peers.get(change.public_key)
    if old is None:
        if change.update_only:
            return
        old = peers[change.public_key] = PeerState(change.public_key)
    allowed = [] if change.replace_allowed_ips else list(old.allowed_ips)
    for each in change.allowed_ips:
        allowed = [prefix for prefix in allowed if prefix != each.prefix or not each.remove]
        if not each.remove:
            _take_from_others(each.prefix, peers, change.public_key)
            allowed += [each.prefix] * (each.prefix not in allowed)
    keepalive = change.persistent_keepalive_seconds
    peers[change.public_key] = PeerState(
        change.public_key,
        preshared_key=old.preshared_key if change.preshared_key is None else change.preshared_key,
        endpoint=old.endpoint if change.endpoint is None else change.endpoint,
        persistent_keepalive_seconds=old.persistent_keepalive_seconds
        if keepalive is None
        else keepalive,
        allowed_ips=tuple(allowed),
    )


def _take_from_others(prefix: Prefix, peers: dict[bytes, PeerState], owner: bytes) -> None:
    for key, peer in peers.items():
        if key != owner and prefix in peer.allowed_ips:
            rest = tuple(each for each in peer.allowed_ips if each != prefix)
            peers[key] = PeerState(
                key,
                preshared_key=peer.preshared_key,
                endpoint=peer.endpoint,
                persistent_keepalive_seconds=peer.persistent_keepalive_seconds,
                allowed_ips=rest,
            )


def lines(*parts: bytes) -> bytes:
    """Return lines."""
    return b"".join(part + b"\n" for part in parts)


def variants(whole: bytes) -> Iterable[bytes]:
    """Return an input, and it behind the byte that says how chunks are cut."""
    return (b"\0" + whole, b"\x05" + whole)
