"""MAC1, MAC2 and cookies: what keeps a flood of handshakes cheap (paper, sections 5.3 and 5.4.4).

Both ends of an initiation or response:

1 the sender appends MAC1, keyed by the receiver's public key: `CookieGenerator.add_macs`;
2 the receiver drops what has no right MAC1, and under load answers what has no right MAC2 with a
  cookie reply: `CookieChecker`;
3 the sender decrypts the cookie, and its next message has a MAC2: `CookieGenerator.consume_reply`.

Both keep nothing per message and no timer: what is too old is found out when it is used.
"""

from typing import Final, NamedTuple

from wgd.addresses import Endpoint
from wgd.constants import COOKIE_LATENCY_MARGIN_NS, COOKIE_SECRET_LIFETIME_NS
from wgd.diagnosis import FailureReason
from wgd.errors import HandshakeError
from wgd.noise.messages import MACS_SIZE, CookieReply, Datagram
from wgd.noise.primitives import (
    EXTENDED_NONCE_SIZE,
    MAC_SIZE,
    Random,
    blake2s,
    equal,
    extended_seal,
    extended_unseal,
    mac,
)

_NO_MAC2: Final = bytes(MAC_SIZE)
_SECRET_SIZE: Final = 32
_COOKIE_TRUSTED_NS: Final = COOKIE_SECRET_LIFETIME_NS - COOKIE_LATENCY_MARGIN_NS


class HandshakeKeys(NamedTuple):
    """What MAC1 and cookie replies are made with, 32 bytes each: it follows from a public key."""

    mac1: bytes
    reply: bytes

    @classmethod
    def of(cls, public_key: bytes) -> "HandshakeKeys":
        """Return the keys of all messages sent to the owner of `public_key` (32 bytes)."""
        return cls(blake2s(b"mac1----" + public_key), blake2s(b"cookie--" + public_key))


class CookieChecker:
    """The receiver's side, one per device; `keys` are those of our own static public key.

    Datagrams are whole initiations or responses, their length checked before.
    """

    __slots__ = ("_keys", "_secret", "_secret_born_ns")

    def __init__(self, keys: HandshakeKeys) -> None:
        self._keys = keys
        self._secret: bytes | None = None
        self._secret_born_ns = 0

    def check_mac1(self, datagram: Datagram) -> bool:
        """Return whether the sender knows our public key."""
        message = bytes(datagram)
        mac1 = message[-MACS_SIZE:-MAC_SIZE]
        return equal(mac1, mac(self._keys.mac1, message[:-MACS_SIZE]))

    def check_mac2(self, datagram: Datagram, source: Endpoint, now_ns: int) -> bool:
        """Return whether the sender can read what is sent to `source`: IP address and port."""
        secret = self._current_secret(now_ns)
        if secret is None:
            return False
        message = bytes(datagram)
        cookie = mac(secret, source.packed())
        return equal(message[-MAC_SIZE:], mac(cookie, message[:-MAC_SIZE]))

    def create_reply(
        self, datagram: Datagram, receiver_index: int, source: Endpoint, now_ns: int, random: Random
    ) -> bytes:
        """Return a cookie reply (64 bytes) to a datagram with a right MAC1 that came from `source`.

        `receiver_index` is the datagram's sender index.
        """
        secret = self._current_secret(now_ns)
        if secret is None:
            secret = self._secret = random(_SECRET_SIZE)
            self._secret_born_ns = now_ns
        nonce = random(EXTENDED_NONCE_SIZE)
        cookie = mac(secret, source.packed())
        mac1 = bytes(datagram[-MACS_SIZE:-MAC_SIZE])
        sealed = extended_seal(self._keys.reply, nonce, cookie, mac1)
        return CookieReply(receiver_index, nonce, sealed).to_bytes()

    def _current_secret(self, now_ns: int) -> bytes | None:
        if now_ns - self._secret_born_ns >= COOKIE_SECRET_LIFETIME_NS:
            self._secret = None
        return self._secret


class CookieGenerator:
    """The sender's side, one per peer; `public_key` is the peer's static one (32 bytes)."""

    __slots__ = ("_cookie", "_cookie_born_ns", "_keys", "_last_mac1")

    def __init__(self, public_key: bytes) -> None:
        self._keys = HandshakeKeys.of(public_key)
        self._cookie: bytes | None = None
        self._cookie_born_ns = 0
        self._last_mac1: bytes | None = None

    def add_macs(self, message: bytes, now_ns: int) -> bytes:
        """Return a handshake message with its MACs appended; MAC2 is zeros without a cookie."""
        self._last_mac1 = mac(self._keys.mac1, message)
        message += self._last_mac1
        if now_ns - self._cookie_born_ns >= _COOKIE_TRUSTED_NS:
            self._cookie = None
        return message + (_NO_MAC2 if self._cookie is None else mac(self._cookie, message))

    def consume_reply(self, reply: CookieReply, now_ns: int) -> None:
        """Take the cookie for our last message; its time runs from now.

        Raises HandshakeError: "unexpected cookie reply" unless a message was sent since the last
        one taken, "decryption failed" if it is not about our last message or is forged.
        """
        if self._last_mac1 is None:
            raise HandshakeError("unexpected cookie reply", FailureReason.COOKIE_NOT_AUTHENTIC)
        try:
            cookie = extended_unseal(
                self._keys.reply, reply.nonce, reply.encrypted_cookie, self._last_mac1
            )
        except HandshakeError as error:
            raise HandshakeError(str(error), FailureReason.COOKIE_NOT_AUTHENTIC) from None
        self._cookie = cookie
        self._cookie_born_ns = now_ns
        self._last_mac1 = None
