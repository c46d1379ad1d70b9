"""The body of a `set`: its lines, collected into a `DeviceChange` (sans-IO).

Source: the cross-platform interface page of wireguard.com, as wireguard-go understands it.
"""

import errno
import re
from typing import Final

from wgd.addresses import Endpoint
from wgd.configuration import AllowedIpChange, DeviceChange, PeerChange
from wgd.errors import ConfigurationError
from wgd.shown import shown
from wgd.uapi import grammar
from wgd.uapi.grammar import ResolveZone

# Lines whose value is never shown.
_KEYS_OF_KEYS: Final = (b"private_key", b"preshared_key", b"public_key")
_NAME: Final = re.compile(rb"[a-z_]{1,32}")


class _PeerSection:
    """The lines from one `public_key` to the next."""

    __slots__ = (
        "_allowed_ips",
        "_earlier_allowed_ips",
        "_endpoint",
        "_persistent_keepalive_seconds",
        "_preshared_key",
        "_public_key",
        "_remove",
        "_replace_allowed_ips",
        "_resolve_zone",
        "_update_only",
    )

    def __init__(self, public_key: bytes, resolve_zone: ResolveZone) -> None:
        self._public_key = public_key
        self._resolve_zone = resolve_zone
        self._remove = False
        self._update_only = False
        self._preshared_key: bytes | None = None
        self._endpoint: Endpoint | None = None
        self._persistent_keepalive_seconds: int | None = None
        self._replace_allowed_ips = False
        self._allowed_ips: list[AllowedIpChange] = []
        # What stood above a `replace_allowed_ips`, each with its own "replace".
        self._earlier_allowed_ips: list[tuple[bool, list[AllowedIpChange]]] = []

    def take(self, key: bytes, value: bytes) -> bool:
        """Take one line; False if there is no such key here. Raises ValueError for the value."""
        match key:
            case b"allowed_ip":
                self._allowed_ips.append(grammar.allowed_ip(value))
            case b"preshared_key":
                self._preshared_key = grammar.key(value)
            case b"endpoint":
                self._endpoint = grammar.endpoint(value, self._resolve_zone)
            case b"persistent_keepalive_interval":
                self._persistent_keepalive_seconds = grammar.keepalive_seconds(value)
            case b"replace_allowed_ips":
                grammar.require_true(value)
                self._start_allowed_ips_over()
            case b"protocol_version":
                grammar.require_version(value)
            case b"remove":
                grammar.require_true(value)
                self._remove = True
            case b"update_only":
                grammar.require_true(value)
                self._update_only = True
            case _:
                return False
        return True

    def changes(self) -> list[PeerChange]:
        """Return what the lines said: one change, or more if allowed IPs were started over."""
        if self._remove:
            return [PeerChange(self._public_key, remove=True)]
        changes = [
            PeerChange(
                self._public_key,
                update_only=self._update_only,
                replace_allowed_ips=replace,
                allowed_ips=tuple(allowed_ips),
            )
            for replace, allowed_ips in self._earlier_allowed_ips
        ]
        changes.append(
            PeerChange(
                self._public_key,
                update_only=self._update_only,
                preshared_key=self._preshared_key,
                endpoint=self._endpoint,
                persistent_keepalive_seconds=self._persistent_keepalive_seconds,
                replace_allowed_ips=self._replace_allowed_ips,
                allowed_ips=tuple(self._allowed_ips),
            )
        )
        return changes

    def _start_allowed_ips_over(self) -> None:
        # The lines above still count: they may take a prefix away from another peer.
        if self._allowed_ips:
            self._earlier_allowed_ips.append((self._replace_allowed_ips, self._allowed_ips))
            self._allowed_ips = []
        self._replace_allowed_ips = True


class SetBody:
    """The lines of one set, collected into a `DeviceChange`."""

    def __init__(self, resolve_zone: ResolveZone) -> None:
        self._resolve_zone = resolve_zone
        self._private_key: bytes | None = None
        self._listen_port: int | None = None
        self._fwmark: int | None = None
        self._replace_peers = False
        self._peer: _PeerSection | None = None
        self._changes: list[PeerChange] = []

    def take_line(self, line: bytes) -> None:
        """Take one line without its end.

        Raises ConfigurationError: EPROTO without `=`, EINVAL for a key or a value not understood.
        """
        key, equals, value = line.partition(b"=")
        if not equals:
            # Not shown: it might be a secret that lost its name.
            raise ConfigurationError(errno.EPROTO, "there is no '=' in it")
        try:
            if key == b"public_key":
                self._start_peer(grammar.key(value))
                return
            known = (
                self._take_device(key, value)
                if self._peer is None
                else (self._peer.take(key, value))
            )
        except ValueError as expected:
            name = key.decode("ascii")
            given = "" if key in _KEYS_OF_KEYS else f", not {shown(value)}"
            raise ConfigurationError(errno.EINVAL, f"{name} must be {expected}{given}") from None
        if not known:
            # A base64 key ends in "=", so what looks like a name may be a secret.
            named = f" {key.decode('ascii')}" if _NAME.fullmatch(key) else ""
            place = "before the first" if self._peer is None else "after a"
            raise ConfigurationError(errno.EINVAL, f"no setting{named} {place} public_key")

    def finish(self) -> DeviceChange:
        """Return what the lines said."""
        self._finish_peer()
        return DeviceChange(
            private_key=self._private_key,
            listen_port=self._listen_port,
            fwmark=self._fwmark,
            replace_peers=self._replace_peers,
            peers=tuple(self._changes),
        )

    def _take_device(self, key: bytes, value: bytes) -> bool:
        match key:
            case b"private_key":
                self._private_key = grammar.key(value)
            case b"listen_port":
                self._listen_port = grammar.port(value)
            case b"fwmark":
                self._fwmark = grammar.fwmark(value)
            case b"replace_peers":
                grammar.require_true(value)
                self._replace_peers = True
            case _:
                return False
        return True

    def _start_peer(self, public_key: bytes) -> None:
        self._finish_peer()
        self._peer = _PeerSection(public_key, self._resolve_zone)

    def _finish_peer(self) -> None:
        if self._peer is not None:
            self._changes += self._peer.changes()
