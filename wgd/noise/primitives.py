"""The cryptographic functions of the WireGuard paper, section 5.4.

They come from the extension (`native/src/primitives.rs`) where it is installed and knows this
processor, else from its twin, `portable_primitives`: what they return is the same. Only this file
knows of the two. It draws no randomness of its own: callers pass a `Random`. A refused input raises
HandshakeError, whose text never holds key material.
"""

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from wgd.constants import KEY_SIZE
from wgd.diagnosis import FailureReason
from wgd.errors import HandshakeError
from wgd.extension import find_extension

if TYPE_CHECKING:
    import wgd_native as _twin
elif getattr(_found := find_extension(), "HAS_PRIMITIVES", False):
    _twin = _found
else:
    from wgd.noise import portable_primitives as _twin

Random = Callable[[int], bytes]
"""Returns that many unpredictable bytes, as os.urandom does."""

MAC_SIZE: Final = 16
EXTENDED_NONCE_SIZE: Final = 24


# -- X25519 (RFC 7748) ---------------------------------------------------------------------------


def clamp(scalar: bytes) -> bytes:
    """Return 32 bytes as a canonical X25519 private key (RFC 7748, section 5)."""
    key = bytearray(scalar)
    key[0] &= 248
    key[31] = (key[31] & 127) | 64
    return bytes(key)


class PrivateKey:
    """An X25519 private key, made of 32 bytes that need not be clamped, with its public key.

    Raises ValueError when `private_key` is not 32 bytes long.
    """

    __slots__ = ("_key", "public_key")

    def __init__(self, private_key: bytes) -> None:
        self._key = _twin.PrivateKey(private_key)
        self.public_key = self._key.public_key

    @classmethod
    def generate(cls, random: Random) -> "PrivateKey":
        """Return a new key from 32 bytes of `random`."""
        return cls(clamp(random(KEY_SIZE)))

    def dh(self, public_key: bytes) -> bytes:
        """Return the 32 byte secret shared with the owner of `public_key` (32 bytes).

        Raises HandshakeError for a low-order public key: its result would be known to anybody.
        """
        try:
            return self._key.dh(public_key)
        except ValueError:
            if len(public_key) != KEY_SIZE:
                raise
            raise HandshakeError("low-order public key", FailureReason.WEAK_KEY) from None

    def to_bytes(self) -> bytes:
        """Return the private key itself, 32 bytes: a secret."""
        return self._key.to_bytes()

    def __repr__(self) -> str:
        return "PrivateKey(...)"


# -- BLAKE2s (RFC 7693) and the key derivation ---------------------------------------------------

blake2s: Final = _twin.blake2s
"""Given data, returns the 32 byte hash: Hash() of the paper."""

hmac_blake2s: Final = _twin.hmac_blake2s
"""Given key and data, returns the 32 byte HMAC-BLAKE2s: Hmac() of the paper."""

kdf1: Final = _twin.kdf1
"""Given chaining key and secret, returns the first 32 bytes of HKDF: Kdf1() of the paper."""

kdf2: Final = _twin.kdf2
"""Likewise two keys of 32 bytes: Kdf2() of the paper."""

kdf3: Final = _twin.kdf3
"""Likewise three keys of 32 bytes: Kdf3() of the paper."""


def mac(key: bytes, data: bytes | memoryview) -> bytes:
    """Return the 16 byte keyed BLAKE2s of `data`: Mac() of the paper. `key` is 16 or 32 bytes."""
    return _twin.mac(key, bytes(data))


def equal(one: bytes, other: bytes) -> bool:
    """Compare in a time that does not depend on where the two differ."""
    return hmac.compare_digest(one, other)


# -- authenticated encryption --------------------------------------------------------------------

seal: Final = _twin.seal
"""Given key, 64-bit counter, plaintext and associated data, returns the ciphertext with its
16 byte tag: Aead() of the paper (RFC 8439). The nonce is 32 zero bits, then the counter.
"""


def unseal(key: bytes, counter: int, ciphertext: bytes, associated: bytes) -> bytes:
    """Return what `seal` encrypted. Raises HandshakeError if it is not authentic."""
    try:
        return _twin.unseal(key, counter, ciphertext, associated)
    except ValueError:
        raise HandshakeError("decryption failed") from None


def extended_seal(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Return `plaintext` encrypted with its tag under a 24 byte nonce: Xaead() of the paper."""
    # Imported here: libsodium is slow to load, and only a daemon under load ever needs it.
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

    return crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, associated, nonce, key)


def extended_unseal(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """Return what `extended_seal` encrypted. Raises HandshakeError if it is not authentic."""
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
    from nacl.exceptions import CryptoError

    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, associated, nonce, key)
    except CryptoError:
        raise HandshakeError("decryption failed") from None
