"""What can be configured, as typed values: the common language of `uapi` and `device`.

A change is parsed and checked whole before anything is applied; a state is a consistent snapshot.
Keys are 32 raw bytes and never appear in a repr.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from wgd.addresses import Endpoint, Prefix

NO_KEY = bytes(32)
"""All zeros: in a change it removes the private or preshared key; in a state it means none."""


LOG_LEVELS: Final = ("verbose", "debug", "info", "error", "silent")
"""The names of the log's levels: wireguard-go's, and "info". "debug" is the same as "verbose"."""


@dataclass(frozen=True, slots=True)
class AllowedIpChange:
    """Give `prefix` to the peer, or with `remove` take it away if this peer has exactly it."""

    prefix: Prefix
    remove: bool = False


@dataclass(frozen=True, slots=True)
class PeerChange:
    """What to do to one peer; None leaves a value as it is.

    `remove` wins over everything else; with `update_only` an unknown peer is not created;
    `replace_allowed_ips` drops the peer's entries before `allowed_ips` apply in order.
    `endpoint_host` is the `name:port` that `endpoint` was looked up from, to be looked up again
    when the peer is not heard from; an `endpoint` without it makes the device forget the name.
    """

    public_key: bytes = field(repr=False)
    remove: bool = False
    update_only: bool = False
    preshared_key: bytes | None = field(default=None, repr=False)
    endpoint: Endpoint | None = None
    endpoint_host: str | None = None
    persistent_keepalive_seconds: int | None = None
    replace_allowed_ips: bool = False
    allowed_ips: tuple[AllowedIpChange, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """A whole configuration change; None leaves a value as it is. Peers apply in order."""

    private_key: bytes | None = field(default=None, repr=False)
    listen_port: int | None = None
    fwmark: int | None = None
    replace_peers: bool = False
    peers: tuple[PeerChange, ...] = ()


@dataclass(frozen=True, slots=True)
class ControlChange:
    """What to change that is no part of a device's configuration; None leaves it as it is.

    `log_level` is one of `LOG_LEVELS`. `endpoint_hosts` gives peers, by their public keys, a
    `name:port` to look up again as `PeerChange.endpoint_host` says; the last one of a peer counts.
    """

    log_level: str | None = None
    endpoint_hosts: tuple[tuple[bytes, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class PeerState:
    """One peer as `get` shows it; `last_handshake_ns` is Unix time, 0 for never."""

    public_key: bytes = field(repr=False)
    preshared_key: bytes = field(default=NO_KEY, repr=False)
    endpoint: Endpoint | None = None
    last_handshake_ns: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    persistent_keepalive_seconds: int = 0
    allowed_ips: tuple[Prefix, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A consistent snapshot of a device; peers are in the order they were added.

    They need not be made before they are looked at: there may be very many.
    """

    private_key: bytes = field(default=NO_KEY, repr=False)
    listen_port: int = 0
    fwmark: int = 0
    peers: Sequence[PeerState] = ()
