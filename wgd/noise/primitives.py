"""The cryptographic functions of the WireGuard paper, section 5.4.

Only this file knows which libraries they come from. It draws no randomness of its own: callers
pass a `Random`. A refused input raises HandshakeError, whose text never holds key material.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgd.constants import KEY_SIZE
from wgd.diagnosis import FailureReason
from wgd.errors import HandshakeError

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
        self._key = X25519PrivateKey.from_private_bytes(private_key)
        self.public_key = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, random: Random) -> "PrivateKey":
        """Return a new key from 32 bytes of `random`."""
        return cls(clamp(random(KEY_SIZE)))

    def dh(self, public_key: bytes) -> bytes:
        """Return the 32 byte secret shared with the owner of `public_key` (32 bytes).

        Raises HandshakeError for a low-order public key: its result would be known to anybody.
        """
        remote = X25519PublicKey.from_public_bytes(public_key)
        try:
            return self._key.exchange(remote)
        except ValueError:
            raise HandshakeError("low-order public key", FailureReason.WEAK_KEY) from None

    def to_bytes(self) -> bytes:
        """Return the private key itself, 32 bytes: a secret."""
        return self._key.private_bytes_raw()

    def __repr__(self) -> str:
        return "PrivateKey(...)"


# -- BLAKE2s (RFC 7693) and the key derivation ---------------------------------------------------


def blake2s(data: bytes) -> bytes:
    """Return the 32 byte hash: Hash() of the paper."""
    return hashlib.blake2s(data).digest()


def mac(key: bytes, data: bytes | memoryview) -> bytes:
    """Return the 16 byte keyed BLAKE2s of `data`: Mac() of the paper. `key` is 16 or 32 bytes."""
    return hashlib.blake2s(data, key=key, digest_size=MAC_SIZE).digest()


def hmac_blake2s(key: bytes, data: bytes) -> bytes:
    """Return the 32 byte HMAC-BLAKE2s: Hmac() of the paper."""
    return hmac.digest(key, data, hashlib.blake2s)


def kdf1(chaining_key: bytes, secret: bytes) -> bytes:
    """Return the first 32 bytes of HKDF: Kdf1() of the paper."""
    return hmac_blake2s(hmac_blake2s(chaining_key, secret), b"\x01")


def kdf2(chaining_key: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """Return two keys of 32 bytes: Kdf2() of the paper."""
    extracted = hmac_blake2s(chaining_key, secret)
    first = hmac_blake2s(extracted, b"\x01")
    return first, hmac_blake2s(extracted, first + b"\x02")


def kdf3(chaining_key: bytes, secret: bytes) -> tuple[bytes, bytes, bytes]:
    """Return three keys of 32 bytes: Kdf3() of the paper."""
    extracted = hmac_blake2s(chaining_key, secret)
    first = hmac_blake2s(extracted, b"\x01")
    second = hmac_blake2s(extracted, first + b"\x02")
    return first, second, hmac_blake2s(extracted, second + b"\x03")


def equal(one: bytes, other: bytes) -> bool:
    """Compare in a time that does not depend on where the two differ."""
    return hmac.compare_digest(one, other)


# -- authenticated encryption --------------------------------------------------------------------


def nonce(counter: int) -> bytes:
    """Return the 12 byte nonce of a 64-bit counter: 32 zero bits, then little endian."""
    return bytes(4) + counter.to_bytes(8, "little")


def seal(key: bytes, counter: int, plaintext: bytes, associated: bytes) -> bytes:
    """Return `plaintext` encrypted with its 16 byte tag: Aead() of the paper (RFC 8439)."""
    return ChaCha20Poly1305(key).encrypt(nonce(counter), plaintext, associated)


def unseal(key: bytes, counter: int, ciphertext: bytes, associated: bytes) -> bytes:
    """Return what `seal` encrypted. Raises HandshakeError if it is not authentic."""
    try:
        return ChaCha20Poly1305(key).decrypt(nonce(counter), ciphertext, associated)
    except InvalidTag:
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
