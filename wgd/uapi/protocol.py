"""The configuration protocol of one client, sans-IO: bytes in, typed requests out.

A message is a first line, a body of `key=value` lines and a blank line. Many messages may follow
each other on one connection; what a chunk of bytes happens to end with makes no difference.

    state     line              emits              next      at the end of the stream
    --------  ----------------  -----------------  --------  -----------------------------
    IDLE      get=1, status=1                      QUESTION  nothing
    IDLE      set=1, control=1                     CHANGE    nothing
    IDLE      anything else     Close              CLOSED    nothing
    QUESTION  blank             Get-,              IDLE      nothing
                                StatusRequest
    QUESTION  anything else                        FAILED    nothing
    CHANGE    blank             Set-,              IDLE      the last line counts, Set-,
                                ControlRequest               ControlRequest
    CHANGE    a good line                          CHANGE
    CHANGE    a bad line                           FAILED
    FAILED    blank             BadRequest         IDLE      BadRequest
    FAILED    anything else                        FAILED
    any       too much          BadRequest, Close  CLOSED    nothing

A failed message is read to its blank line before the failure is reported: clients write everything
before they read, and the next message must not start in the middle of this one. The first error is
the one reported. Nothing here applies a change; one that is emitted is whole and valid. The end of
the stream is that of a client that has finished sending: one that is gone has no say.

Source: the cross-platform interface page of wireguard.com, as wireguard-go understands it; `status`
and `control` are wgd's own (docs/uapi-extensions.md).
"""

import errno
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from wgd.configuration import ControlChange, DeviceChange
from wgd.errors import ConfigurationError
from wgd.uapi.control import ControlBody
from wgd.uapi.grammar import ResolveZone
from wgd.uapi.set_body import SetBody

MAX_LINE_SIZE: Final = 64 * 1024
"""Bytes of a line without its end; a longer one fails the message with EIO."""

MAX_MESSAGE_SIZE: Final = 64 * 1024 * 1024
"""Bytes of a message; some three times what 65,536 peers need. More ends the connection."""


# -- what a client asks ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GetRequest:
    """Show the device."""


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """Tell what the device is doing."""


@dataclass(frozen=True, slots=True)
class SetRequest:
    """Apply `change`, whole or not at all."""

    change: DeviceChange = field(repr=False)


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """Apply `change`, whole or not at all."""

    change: ControlChange


@dataclass(frozen=True, slots=True)
class BadRequest:
    """Answer with `errno`, signed as it goes on the wire: negative for a change, else positive.

    `reason` is for the log: it names the line, and never holds key material.
    """

    errno: int
    reason: str


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection without any (further) answer."""


Question = GetRequest | StatusRequest
Request = Question | SetRequest | ControlRequest | BadRequest | Close


# -- the connection --------------------------------------------------------------------------------


class _State(Enum):
    IDLE = auto()
    QUESTION = auto()
    CHANGE = auto()
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
        self._question: Question = GetRequest()
        self._body: SetBody | ControlBody = ControlBody()  # an empty one, until a change begins
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
        """Take the end of the stream: a change ends as at a blank line. Nothing may follow."""
        requests: list[Request] = []
        if self._state is _State.CHANGE and self._partial:
            self._take_line(bytes(self._partial), requests)
        if self._state in (_State.CHANGE, _State.FAILED):
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
        if self._state is _State.CHANGE:
            self._take_change_line(line, requests)
        elif self._state is _State.IDLE:
            self._take_first_line(line, requests)
        elif self._state is _State.QUESTION and not line:
            requests.append(self._question)
            self._start_message()
        elif self._state is _State.QUESTION:
            self._fail(errno.EINVAL, "get=1 or status=1 must be followed by a blank line")
        if self._state is _State.FAILED and line in (b"", b"\r") and self._failure is not None:
            requests.append(self._failure)
            self._start_message()

    def _take_first_line(self, line: bytes, requests: list[Request]) -> None:
        match line:
            case b"get=1":
                self._state, self._question = _State.QUESTION, GetRequest()
            case b"status=1":
                self._state, self._question = _State.QUESTION, StatusRequest()
            case b"set=1":
                self._state, self._body = _State.CHANGE, SetBody(self._resolve_zone)
            case b"control=1":
                self._state, self._body = _State.CHANGE, ControlBody()
            case _:
                self._close(requests)

    def _take_change_line(self, line: bytes, requests: list[Request]) -> None:
        if len(line) > MAX_LINE_SIZE:
            self._fail(-errno.EIO, f"longer than {MAX_LINE_SIZE} bytes")
            return
        line = line.removesuffix(b"\r")
        if not line:
            requests.append(_request_for(self._body))
            self._start_message()
            return
        try:
            self._body.take_line(line)
        except ConfigurationError as error:
            self._fail(-error.errno, str(error))

    def _fail(self, signed_errno: int, reason: str) -> None:
        self._state = _State.FAILED
        self._failure = BadRequest(signed_errno, f"line {self._line_number}: {reason}")
        self._body = ControlBody()

    def _overflow(self, requests: list[Request]) -> None:
        if self._failure is None:
            sign = 1 if self._state is _State.QUESTION else -1
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
        self._body = ControlBody()
        self._failure = None
        self._message_size = 0
        self._line_number = 0


def _request_for(body: SetBody | ControlBody) -> SetRequest | ControlRequest:
    if isinstance(body, SetBody):
        return SetRequest(body.finish())
    return ControlRequest(body.finish())
