"""The configuration protocol of one client, sans-IO: bytes in, typed requests out.

A message is a first line, a body of `key=value` lines and a blank line. Many messages may follow
each other on one connection; what a chunk of bytes happens to end with makes no difference.

    state   line          emits                 next     at the end of the stream
    ------  ------------  --------------------  -------  ------------------------
    IDLE    get=1                               GET      nothing
    IDLE    set=1                               SET      nothing
    IDLE    anything else Close                 CLOSED   nothing
    GET     blank         GetRequest            IDLE     nothing
    GET     anything else                       FAILED   nothing
    SET     blank         SetRequest            IDLE     the last line counts, SetRequest
    SET     a good line                         SET
    SET     a bad line                          FAILED
    FAILED  blank         BadRequest            IDLE     BadRequest
    FAILED  anything else                       FAILED
    any     too much      BadRequest, Close     CLOSED   nothing

A failed message is read to its blank line before the failure is reported: clients write everything
before they read, and the next message must not start in the middle of this one. The first error is
the one reported. Nothing here applies a change; a `SetRequest` is whole and valid.

Source: the cross-platform interface page of wireguard.com, as wireguard-go understands it.
"""

import errno
import re
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from wgd.addresses import Endpoint
from wgd.configuration import AllowedIpChange, DeviceChange, PeerChange
from wgd.errors import ConfigurationError
from wgd.uapi import grammar
from wgd.uapi.grammar import ResolveZone

MAX_LINE_SIZE: Final = 64 * 1024
"""Bytes of a line without its end; a longer one fails the message with EIO."""

MAX_MESSAGE_SIZE: Final = 64 * 1024 * 1024
"""Bytes of a message; some three times what 65,536 peers need. More ends the connection."""

# Lines whose value is never shown.
_KEYS_OF_KEYS: Final = (b"private_key", b"preshared_key", b"public_key")
_NAME: Final = re.compile(rb"[a-z_]{1,32}")


# -- what a client asks ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GetRequest:
    """Show the device."""


@dataclass(frozen=True, slots=True)
class SetRequest:
    """Apply `change`, whole or not at all."""

    change: DeviceChange = field(repr=False)


@dataclass(frozen=True, slots=True)
class BadRequest:
    """Answer with `errno`, signed as it goes on the wire: negative for a set, positive for a get.

    `reason` is for the log: it names the line, and never holds key material.
    """

    errno: int
    reason: str


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection without any (further) answer."""


Request = GetRequest | SetRequest | BadRequest | Close


# -- the connection --------------------------------------------------------------------------------


class _State(Enum):
    IDLE = auto()
    GET = auto()
    SET = auto()
    FAILED = auto()
    CLOSED = auto()


class Connection:
    """What one client has said so far.

    Memory is bounded by `MAX_LINE_SIZE` and by the change that `MAX_MESSAGE_SIZE` bytes can
    describe; the caller bounds how much it hands over at once. No input raises.
    """

    def __init__(self, resolve_zone: ResolveZone) -> None:
        self._resolve_zone = resolve_zone
        self._state = _State.IDLE
        self._body = _SetBody(resolve_zone)
        self._failure: BadRequest | None = None
        # A line whose end has not arrived; of one that is too long, only enough to know that.
        self._partial = bytearray()
        self._message_size = 0
        self._line_number = 0

    @property
    def is_idle(self) -> bool:
        """Whether the client is between two messages."""
        return self._state is _State.IDLE and not self._partial

    def receive_data(self, data: bytes) -> list[Request]:
        """Take the next bytes of the stream; return the requests they complete, in order."""
        requests: list[Request] = []
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._partial:
            lines[0] = bytes(self._partial) + lines[0]
            self._partial.clear()
        for line in lines:
            if self._state is _State.CLOSED:
                return requests
            self._take_line(line, requests)
        self._take_partial(rest, requests)
        return requests

    def receive_eof(self) -> list[Request]:
        """Take the end of the stream: it ends a set as a blank line would. Nothing may follow."""
        requests: list[Request] = []
        if self._state is _State.SET and self._partial:
            self._take_line(bytes(self._partial), requests)
        if self._state in (_State.SET, _State.FAILED):
            self._take_line(b"", requests)
        self._state = _State.CLOSED
        return requests

    def _take_partial(self, rest: bytes, requests: list[Request]) -> None:
        if self._state is _State.CLOSED:
            return
        room = MAX_LINE_SIZE + 1 - len(self._partial)
        self._partial += rest[:room]
        self._message_size += max(0, len(rest) - room)
        if self._message_size + len(self._partial) > MAX_MESSAGE_SIZE:
            self._overflow(requests)
        elif self._state is _State.IDLE and len(self._partial) > MAX_LINE_SIZE:
            self._close(requests)

    def _take_line(self, line: bytes, requests: list[Request]) -> None:
        self._line_number += 1
        self._message_size += len(line) + 1
        if self._message_size > MAX_MESSAGE_SIZE:
            self._overflow(requests)
            return
        if self._state is _State.SET:
            self._take_set_line(line, requests)
        elif self._state is _State.IDLE:
            self._take_first_line(line, requests)
        elif self._state is _State.GET and not line:
            requests.append(GetRequest())
            self._start_message()
        elif self._state is _State.GET:
            self._fail(errno.EINVAL, "get=1 must be followed by a blank line")
        if self._state is _State.FAILED and line in (b"", b"\r") and self._failure is not None:
            requests.append(self._failure)
            self._start_message()

    def _take_first_line(self, line: bytes, requests: list[Request]) -> None:
        if line == b"get=1":
            self._state = _State.GET
        elif line == b"set=1":
            self._state = _State.SET
        else:
            self._close(requests)

    def _take_set_line(self, line: bytes, requests: list[Request]) -> None:
        if len(line) > MAX_LINE_SIZE:
            self._fail(-errno.EIO, f"longer than {MAX_LINE_SIZE} bytes")
            return
        line = line.removesuffix(b"\r")
        if not line:
            requests.append(SetRequest(self._body.finish()))
            self._start_message()
            return
        try:
            self._body.take_line(line)
        except ConfigurationError as error:
            self._fail(-error.errno, str(error))

    def _fail(self, signed_errno: int, reason: str) -> None:
        self._state = _State.FAILED
        self._failure = BadRequest(signed_errno, f"line {self._line_number}: {reason}")
        self._body = _SetBody(self._resolve_zone)

    def _overflow(self, requests: list[Request]) -> None:
        if self._failure is None:
            sign = 1 if self._state is _State.GET else -1
            self._fail(sign * errno.EIO, f"the message is longer than {MAX_MESSAGE_SIZE} bytes")
        if self._failure is not None:
            requests.append(self._failure)
        self._close(requests)

    def _close(self, requests: list[Request]) -> None:
        requests.append(Close())
        self._start_message()
        self._partial.clear()
        self._state = _State.CLOSED

    def _start_message(self) -> None:
        self._state = _State.IDLE
        self._body = _SetBody(self._resolve_zone)
        self._failure = None
        self._message_size = 0
        self._line_number = 0


# -- the body of a set -----------------------------------------------------------------------------


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


class _SetBody:
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
            shown = "" if key in _KEYS_OF_KEYS else f", not {ascii(value[:80])[1:]}"
            raise ConfigurationError(errno.EINVAL, f"{name} must be {expected}{shown}") from None
        if not known:
            # A base64 key ends in "=", so what looks like a name may be a secret.
            shown = f" {key.decode('ascii')}" if _NAME.fullmatch(key) else ""
            place = "before the first" if self._peer is None else "after a"
            raise ConfigurationError(errno.EINVAL, f"no setting{shown} {place} public_key")

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
