"""The client's half of the configuration protocol, sans-IO: requests out, bytes of answers in.

A request is rendered and checked whole before any of it is sent. An answer is lines of `key=value`,
an `errno` line and a blank line; it is parsed as it arrives, so a large one costs no second copy
and keeps an event loop waiting for one chunk at most. Each connection carries one transaction.

Values are taken as strictly as the server takes them, because an answer is outside input too. What
is tolerated is what implementations really do:

* keys that are not known here, and keys that are missing;
* either sign of errno: wireguard-go's is negative, that of boringtun and gotatun positive;
* the end of the stream in place of the blank line, even of the last line's end;
* boringtun's `own_public_key` in place of `private_key`;
* a zone that is an interface of the daemon's network namespace and not of ours: it is left out.

One deviation cannot be told from the answer: boringtun's `last_handshake_time_*` is the time SINCE
the handshake, everybody else's the Unix time OF it.

Source: the cross-platform interface page of wireguard.com; the order of keys is wgctrl's.
"""

import errno
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from wgd.addresses import Endpoint, Prefix
from wgd.configuration import NO_KEY, AllowedIpChange, DeviceChange, DeviceState, PeerChange
from wgd.configuration import PeerState as Peer
from wgd.constants import KEY_SIZE, SECOND_NS
from wgd.errors import ConfigurationError
from wgd.shown import shown
from wgd.status import DeviceStatus, from_json
from wgd.uapi import grammar
from wgd.uapi.grammar import ResolveZone

GET_REQUEST: Final = b"get=1\n\n"
STATUS_REQUEST: Final = b"status=1\n\n"

MAX_LINE_SIZE: Final = 64 * 1024
"""Bytes of an answer's line without its end."""

MAX_ANSWER_SIZE: Final = 256 * 1024 * 1024
"""Bytes of an answer; 65,536 peers with a few allowed IPs each take about 32 MiB."""

LINES_PER_PART: Final = 1024
"""How many peers and allowed IPs are rendered before the caller may do something else (a few
milliseconds)."""

_MAX_COUNTER: Final = 2**64 - 1
_MAX_UNIX_SECONDS: Final = 2**63 - 1
_ERRNO: Final = re.compile(rb"-?[0-9]{1,10}")


class AnswerError(Exception):
    """An answer that is not understood; the text says where and why, and never shows a value."""


# -- requests --------------------------------------------------------------------------------------


def set_request(change: DeviceChange) -> Iterator[bytes]:
    """Yield the request for `change` in parts, to be joined before the first is sent.

    Raises ConfigurationError (EINVAL) for a value that no daemon would take.
    """
    device = "set=1\n"
    if change.private_key is not None:
        device += f"private_key={_key('private_key', change.private_key)}\n"
    if change.listen_port is not None:
        device += f"listen_port={_number('listen_port', change.listen_port, grammar.MAX_PORT)}\n"
    if change.fwmark is not None:
        device += f"fwmark={_number('fwmark', change.fwmark, grammar.MAX_FWMARK)}\n"
    if change.replace_peers:
        device += "replace_peers=true\n"
    yield device.encode("ascii")
    lines: list[str] = []
    for peer in change.peers:
        lines.append(_peer(peer))
        if not peer.remove:  # it wins over everything else
            for allowed_ip in peer.allowed_ips:
                lines.append(_allowed_ip(allowed_ip))
                if len(lines) >= LINES_PER_PART:
                    yield "".join(lines).encode("ascii")
                    lines.clear()
        if len(lines) >= LINES_PER_PART:
            yield "".join(lines).encode("ascii")
            lines.clear()
    yield "".join(lines).encode("ascii") + b"\n"


def _peer(change: PeerChange) -> str:
    text = f"public_key={_key('public_key', change.public_key)}\n"
    if change.remove:  # some daemons go by what comes last
        return text + "remove=true\n"
    if change.update_only:
        text += "update_only=true\n"
    if change.preshared_key is not None:
        text += f"preshared_key={_key('preshared_key', change.preshared_key)}\n"
    if change.endpoint is not None:
        text += f"endpoint={_endpoint(change.endpoint)}\n"
    if change.persistent_keepalive_seconds is not None:
        name = "persistent_keepalive_interval"
        seconds = change.persistent_keepalive_seconds
        text += f"{name}={_number(name, seconds, grammar.MAX_KEEPALIVE_SECONDS)}\n"
    if change.replace_allowed_ips:
        text += "replace_allowed_ips=true\n"
    return text


def _key(name: str, value: bytes) -> str:
    if len(value) != KEY_SIZE:
        raise _refused(name, f"{KEY_SIZE} bytes, not {len(value)}")
    return value.hex()


def _number(name: str, value: int, maximum: int) -> int:
    if not 0 <= value <= maximum:
        raise _refused(name, f"a number in 0..{maximum}, not {value}")
    return value


def _endpoint(endpoint: Endpoint) -> str:
    # The host is a string that may hold anything, a line end too: it must pass as an answer would.
    text = str(endpoint)
    try:
        grammar.endpoint(text.encode("ascii", "replace"), _no_zone)
    except ValueError as expected:
        raise _refused("endpoint", f"{expected}, not {shown(text)}") from None
    return text


def _no_zone(_name: str) -> int:
    raise ValueError("an Endpoint has its zone as a number")


def _allowed_ip(change: AllowedIpChange) -> str:
    sign = "-" if change.remove else ""
    address, length = change.prefix
    try:
        return f"allowed_ip={sign}{Prefix.of(address, length)}\n"
    except ValueError:
        form = "4 or 16 bytes of address and a prefix length that fits them"
        raise _refused("allowed_ip", f"{form}, not {len(address)} and {length}") from None


def _refused(name: str, expected: str) -> ConfigurationError:
    return ConfigurationError(errno.EINVAL, f"{name} must be {expected}")


# -- answers ---------------------------------------------------------------------------------------


class Answer:
    """What has arrived of one answer.

    Feed it until `is_complete`; what follows the blank line is not looked at. Every method that
    takes input raises AnswerError for what is not understood, and for more than `MAX_ANSWER_SIZE`.
    """

    max_line_size = MAX_LINE_SIZE

    def __init__(self) -> None:
        self.is_complete = False
        self._errno: int | None = None
        self._partial = bytearray()
        self._size = 0
        self._line_number = 0

    @property
    def has_begun(self) -> bool:
        """Whether anything has arrived."""
        return self._size > 0

    @property
    def errno(self) -> int:
        """The errno the daemon answered with, as a positive number; 0 for success, and before."""
        return abs(self._errno or 0)

    def receive_data(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self._size += len(data)
        if self._size > MAX_ANSWER_SIZE:
            raise AnswerError(f"the answer is longer than {MAX_ANSWER_SIZE} bytes")
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._partial:
            lines[0] = bytes(self._partial) + lines[0]
            self._partial.clear()
        for line in lines:
            if self.is_complete:
                return
            self._take_line(line)
        self._partial += rest
        if len(self._partial) > self.max_line_size and not self.is_complete:
            raise AnswerError(f"a line of the answer is longer than {self.max_line_size} bytes")

    def receive_eof(self) -> None:
        """Take the end of the stream: it completes the answer if there was an errno."""
        if self._partial and not self.is_complete:
            self._take_line(bytes(self._partial))
        if self._size == 0:
            raise AnswerError("the connection was closed without an answer")
        if not self.is_complete:
            self._take_line(b"")

    def _take_line(self, line: bytes) -> None:
        self._line_number += 1
        if not line:
            if self._errno is None:
                raise AnswerError("the answer ends without an errno")
            self._finish()
            self.is_complete = True
            return
        key, equals, value = line.partition(b"=")
        if key == b"errno":
            if not _ERRNO.fullmatch(value):
                raise self._malformed("errno must be a number")
            self._errno = int(value)
        else:
            self._take(key, equals, value)

    def _take(self, key: bytes, equals: bytes, value: bytes) -> None:
        """Take a line other than errno; `equals` is empty if there was no `=` in it."""

    def _finish(self) -> None:
        """Take the end of the answer."""

    def _malformed(self, reason: str) -> AnswerError:
        return AnswerError(f"line {self._line_number} of the answer: {reason}")


class SetAnswer(Answer):
    """The answer to a set or control: an errno. Other lines are skipped, as `wg` does."""


class StatusAnswer(Answer):
    """The answer to a status: one line of JSON, and an errno."""

    max_line_size = MAX_ANSWER_SIZE

    def __init__(self) -> None:
        super().__init__()
        self._document = b""

    def status(self) -> DeviceStatus:
        """Return what the complete answer says; only meaningful when its errno is 0."""
        try:
            return from_json(json.loads(self._document))
        except (ValueError, RecursionError) as error:
            raise AnswerError(f"its status is not understood: {error}") from None

    def _take(self, key: bytes, equals: bytes, value: bytes) -> None:  # noqa: ARG002 - as in Answer
        if key == b"status":
            self._document = value


@dataclass(frozen=True, slots=True)
class Shown:
    """What a get shows: the state, and boringtun's `own_public_key` (otherwise zeros)."""

    state: DeviceState
    own_public_key: bytes = field(default=NO_KEY, repr=False)


class GetAnswer(Answer):
    """The answer to a get. `resolve_zone` turns the name of an interface into its index."""

    def __init__(self, resolve_zone: ResolveZone) -> None:
        super().__init__()
        self._resolve_zone = resolve_zone
        self._private_key = NO_KEY
        self._own_public_key = NO_KEY
        self._listen_port = 0
        self._fwmark = 0
        self._peer: _PeerSection | None = None
        self._peers: list[Peer] = []

    def shown(self) -> Shown:
        """Return what the complete answer says; only meaningful when its errno is 0."""
        state = DeviceState(self._private_key, self._listen_port, self._fwmark, tuple(self._peers))
        return Shown(state, self._own_public_key)

    def _take(self, key: bytes, equals: bytes, value: bytes) -> None:
        if not equals:
            raise self._malformed("there is no '=' in it")
        try:
            if key == b"public_key":
                self._finish()
                self._peer = _PeerSection(grammar.key(value), self._zone_index)
            elif self._peer is not None:
                self._peer.take(key, value)
            else:
                self._take_device(key, value)
        except ValueError as expected:
            # Only keys of ours get here, so the name is no secret; the value may be.
            raise self._malformed(f"{key.decode('ascii')} must be {expected}") from None

    def _take_device(self, key: bytes, value: bytes) -> None:
        match key:
            case b"private_key":
                self._private_key = grammar.key(value)
            case b"own_public_key":
                self._own_public_key = grammar.key(value)
            case b"listen_port":
                self._listen_port = grammar.port(value)
            case b"fwmark":
                self._fwmark = grammar.fwmark(value)

    def _finish(self) -> None:
        if self._peer is not None:
            self._peers.append(self._peer.peer())
            self._peer = None

    def _zone_index(self, name: str) -> int:
        try:
            return self._resolve_zone(name)
        except OSError:
            return 0


class _PeerSection:
    """The lines from one `public_key` to the next."""

    __slots__ = (
        "_allowed_ips",
        "_endpoint",
        "_handshake_nanoseconds",
        "_handshake_seconds",
        "_persistent_keepalive_seconds",
        "_preshared_key",
        "_public_key",
        "_received_bytes",
        "_resolve_zone",
        "_sent_bytes",
    )

    def __init__(self, public_key: bytes, resolve_zone: ResolveZone) -> None:
        self._public_key = public_key
        self._resolve_zone = resolve_zone
        self._preshared_key = NO_KEY
        self._endpoint: Endpoint | None = None
        self._handshake_seconds = 0
        self._handshake_nanoseconds = 0
        self._sent_bytes = 0
        self._received_bytes = 0
        self._persistent_keepalive_seconds = 0
        self._allowed_ips: list[Prefix] = []

    def take(self, key: bytes, value: bytes) -> None:
        """Take one line; unknown keys are skipped. Raises ValueError for the value."""
        match key:
            case b"allowed_ip":
                self._allowed_ips.append(grammar.prefix(value))
            case b"preshared_key":
                self._preshared_key = grammar.key(value)
            case b"protocol_version":
                grammar.require_version(value)
            case b"endpoint":
                self._endpoint = grammar.endpoint(value, self._resolve_zone)
            case b"last_handshake_time_sec":
                self._handshake_seconds = grammar.decimal(value, _MAX_UNIX_SECONDS)
            case b"last_handshake_time_nsec":
                self._handshake_nanoseconds = grammar.decimal(value, SECOND_NS - 1)
            case b"tx_bytes":
                self._sent_bytes = grammar.decimal(value, _MAX_COUNTER)
            case b"rx_bytes":
                self._received_bytes = grammar.decimal(value, _MAX_COUNTER)
            case b"persistent_keepalive_interval":
                self._persistent_keepalive_seconds = grammar.keepalive_seconds(value)

    def peer(self) -> Peer:
        """Return what the lines said."""
        return Peer(
            self._public_key,
            preshared_key=self._preshared_key,
            endpoint=self._endpoint,
            last_handshake_ns=self._handshake_seconds * SECOND_NS + self._handshake_nanoseconds,
            sent_bytes=self._sent_bytes,
            received_bytes=self._received_bytes,
            persistent_keepalive_seconds=self._persistent_keepalive_seconds,
            allowed_ips=tuple(self._allowed_ips),
        )
