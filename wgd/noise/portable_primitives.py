"""The primitives without the extension, on `cryptography` and Python's own libraries.

The twin of what `wgd_native` has; `wgd.noise.primitives` says what each does. What is refused
raises ValueError.
"""

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305


class PrivateKey:
    """An X25519 private key of 32 bytes."""

    __slots__ = ("_key", "public_key")

    def __init__(self, private_key: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(private_key)
        self.public_key = self._key.public_key().public_bytes_raw()

    def dh(self, public_key: bytes) -> bytes:
        """Return the shared secret; ValueError for a low-order public key."""
        return self._key.exchange(X25519PublicKey.from_public_bytes(public_key))

    def to_bytes(self) -> bytes:
        """Return the private key itself."""
        return self._key.private_bytes_raw()


def blake2s(data: bytes) -> bytes:
    """Return the 32 byte hash."""
    return hashlib.blake2s(data).digest()


def mac(key: bytes, data: bytes) -> bytes:
    """Return the 16 byte keyed hash."""
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def hmac_blake2s(key: bytes, data: bytes) -> bytes:
    """Return the 32 byte HMAC."""
    return hmac.digest(key, data, hashlib.blake2s)


def kdf1(chaining_key: bytes, secret: bytes) -> bytes:
    """Return the first key."""
    return hmac_blake2s(hmac_blake2s(chaining_key, secret), b"\x01")


def kdf2(chaining_key: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """Return two keys."""
    extracted = hmac_blake2s(chaining_key, secret)
    first = hmac_blake2s(extracted, b"\x01")
    return first, hmac_blake2s(extracted, first + b"\x02")


def kdf3(chaining_key: bytes, secret: bytes) -> tuple[bytes, bytes, bytes]:
    """Return three keys."""
    extracted = hmac_blake2s(chaining_key, secret)
    first = hmac_blake2s(extracted, b"\x01")
    second = hmac_blake2s(extracted, first + b"\x02")
    return first, second, hmac_blake2s(extracted, second + b"\x03")


def _nonce(counter: int) -> bytes:
    return bytes(4) + counter.to_bytes(8, "little")


def seal(key: bytes, counter: int, plaintext: bytes, associated: bytes) -> bytes:
    """Return the ciphertext with its tag."""
    return ChaCha20Poly1305(key).encrypt(_nonce(counter), plaintext, associated)


def unseal(key: bytes, counter: int, ciphertext: bytes, associated: bytes) -> bytes:
    """Return the plaintext; ValueError if it is not authentic."""
    try:
        return ChaCha20Poly1305(key).decrypt(_nonce(counter), ciphertext, associated)
    except InvalidTag:
        raise ValueError("decryption failed") from None
