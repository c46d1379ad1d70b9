"""The four messages on the wire (paper, section 5.4): sizes, fields and nothing else.

Integers are little endian. The first four bytes are the type and three reserved zeros, read as one
number, so that a reserved byte that is not zero makes the message one of no known type.

An initiation and a response end in MAC1 and MAC2, 16 bytes each. Those are of no concern here:
`cookie` checks them on the datagram before `parse` and appends them to what `to_bytes` returns.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from wgd.errors import HandshakeError

Datagram = bytes | bytearray | memoryview

MACS_SIZE: Final = 32
INITIATION_SIZE: Final = 148
RESPONSE_SIZE: Final = 92
COOKIE_REPLY_SIZE: Final = 64
TRANSPORT_HEADER: Final = struct.Struct("<IIQ")
"""Type, receiver index and counter of a transport message; the sealed packet follows."""
TRANSPORT_MIN_SIZE: Final = TRANSPORT_HEADER.size + 16

_INITIATION: Final = struct.Struct("<II32s48s28s")
_RESPONSE: Final = struct.Struct("<III32s16s")
_COOKIE_REPLY: Final = struct.Struct("<II24s32s")


class MessageType(IntEnum):
    """The first four bytes of a message."""

    INITIATION = 1
    RESPONSE = 2
    COOKIE_REPLY = 3
    TRANSPORT = 4


_SIZES: Final = {
    MessageType.INITIATION: INITIATION_SIZE,
    MessageType.RESPONSE: RESPONSE_SIZE,
    MessageType.COOKIE_REPLY: COOKIE_REPLY_SIZE,
}


def message_type(datagram: Datagram) -> MessageType | None:
    """Return the type of a datagram; None unless its type and its length are right."""
    size = len(datagram)
    number = int.from_bytes(datagram[:4], "little")
    if number == MessageType.TRANSPORT:
        return MessageType.TRANSPORT if size >= TRANSPORT_MIN_SIZE else None
    for known, known_size in _SIZES.items():
        if number == known and size == known_size:
            return known
    return None


def _require(datagram: Datagram, expected: MessageType) -> None:
    if message_type(datagram) is not expected:
        raise HandshakeError(f"not a {expected.name.lower().replace('_', ' ')}")


@dataclass(frozen=True, slots=True)
class Initiation:
    """The first message of a handshake (paper, section 5.4.2)."""

    sender_index: int
    ephemeral: bytes = field(repr=False)
    encrypted_static: bytes = field(repr=False)
    encrypted_timestamp: bytes = field(repr=False)

    @classmethod
    def parse(cls, datagram: Datagram) -> "Initiation":
        """Read 148 bytes. Raises HandshakeError on a wrong type or length."""
        _require(datagram, MessageType.INITIATION)
        return cls(*_INITIATION.unpack_from(datagram)[1:])

    def to_bytes(self) -> bytes:
        """Return the message without its MACs: 116 bytes."""
        return _INITIATION.pack(
            MessageType.INITIATION,
            self.sender_index,
            self.ephemeral,
            self.encrypted_static,
            self.encrypted_timestamp,
        )


@dataclass(frozen=True, slots=True)
class Response:
    """The second message of a handshake (paper, section 5.4.3)."""

    sender_index: int
    receiver_index: int
    ephemeral: bytes = field(repr=False)
    encrypted_nothing: bytes = field(repr=False)

    @classmethod
    def parse(cls, datagram: Datagram) -> "Response":
        """Read 92 bytes. Raises HandshakeError on a wrong type or length."""
        _require(datagram, MessageType.RESPONSE)
        return cls(*_RESPONSE.unpack_from(datagram)[1:])

    def to_bytes(self) -> bytes:
        """Return the message without its MACs: 60 bytes."""
        return _RESPONSE.pack(
            MessageType.RESPONSE,
            self.sender_index,
            self.receiver_index,
            self.ephemeral,
            self.encrypted_nothing,
        )


@dataclass(frozen=True, slots=True)
class CookieReply:
    """What a responder under load sends instead of a response (paper, section 5.4.7)."""

    receiver_index: int
    nonce: bytes = field(repr=False)
    encrypted_cookie: bytes = field(repr=False)

    @classmethod
    def parse(cls, datagram: Datagram) -> "CookieReply":
        """Read 64 bytes. Raises HandshakeError on a wrong type or length."""
        _require(datagram, MessageType.COOKIE_REPLY)
        return cls(*_COOKIE_REPLY.unpack_from(datagram)[1:])

    def to_bytes(self) -> bytes:
        """Return the whole message: 64 bytes."""
        return _COOKIE_REPLY.pack(
            MessageType.COOKIE_REPLY, self.receiver_index, self.nonce, self.encrypted_cookie
        )
