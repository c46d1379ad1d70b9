"""The handshake speaks with a second implementation, written here line by line from the paper.

It uses `hashlib`, `hmac` and `cryptography` directly and nothing of wgd, in both roles.
"""

import hashlib
import hmac
import os
import struct
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgd.clock import Instant
from wgd.noise.cookie import CookieChecker, CookieGenerator, HandshakeKeys
from wgd.noise.handshake import Handshake, StaticIdentity, identify_initiator
from wgd.noise.messages import Initiation, Response

NOW = Instant(boot_ns=50_000_000_000, wall_ns=1_700_000_000_500_000_000)


def h(data: bytes) -> bytes:
    return hashlib.blake2s(data, digest_size=32).digest()


def hm(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, digestmod=hashlib.blake2s).digest()


def kdf(n: int, key: bytes, data: bytes) -> list[bytes]:
    t0, out, last = hm(key, data), [], b""
    for i in range(1, n + 1):
        last = hm(t0, last + bytes([i]))
        out.append(last)
    return out


def aead(k: bytes, text: bytes, auth: bytes) -> bytes:
    return ChaCha20Poly1305(k).encrypt(bytes(12), text, auth)


def aead_open(k: bytes, text: bytes, auth: bytes) -> bytes:
    return ChaCha20Poly1305(k).decrypt(bytes(12), text, auth)


def dh(private: X25519PrivateKey, public: bytes) -> bytes:
    return private.exchange(X25519PublicKey.from_public_bytes(public))


def pub(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


def mac1(responder_pub: bytes, body: bytes) -> bytes:
    return hashlib.blake2s(body, key=h(b"mac1----" + responder_pub), digest_size=16).digest()


@dataclass
class Symmetric:
    c: bytes
    hh: bytes


def start(responder_pub: bytes) -> Symmetric:
    c = h(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
    hh = h(h(c + b"WireGuard v1 zx2c4 Jason@zx2c4.com") + responder_pub)
    return Symmetric(c, hh)


def paper_initiation(
    si: X25519PrivateKey, sr_pub: bytes, ei: X25519PrivateKey, index: int, timestamp: bytes
) -> tuple[bytes, Symmetric]:
    """Section 5.4.2."""
    s = start(sr_pub)
    (s.c,) = kdf(1, s.c, pub(ei))
    s.hh = h(s.hh + pub(ei))
    s.c, k = kdf(2, s.c, dh(ei, sr_pub))
    static = aead(k, pub(si), s.hh)
    s.hh = h(s.hh + static)
    s.c, k = kdf(2, s.c, dh(si, sr_pub))
    stamp = aead(k, timestamp, s.hh)
    s.hh = h(s.hh + stamp)
    body = b"\x01\0\0\0" + struct.pack("<I", index) + pub(ei) + static + stamp
    return body + mac1(sr_pub, body) + bytes(16), s


def paper_read_initiation(sr: X25519PrivateKey, m: bytes) -> tuple[bytes, bytes, Symmetric]:
    assert len(m) == 148
    assert m[:4] == b"\x01\0\0\0"
    assert m[116:132] == mac1(pub(sr), m[:116])
    ei_pub, static, stamp = m[8:40], m[40:88], m[88:116]
    s = start(pub(sr))
    (s.c,) = kdf(1, s.c, ei_pub)
    s.hh = h(s.hh + ei_pub)
    s.c, k = kdf(2, s.c, dh(sr, ei_pub))
    si_pub = aead_open(k, static, s.hh)
    s.hh = h(s.hh + static)
    s.c, k = kdf(2, s.c, dh(sr, si_pub))
    timestamp = aead_open(k, stamp, s.hh)
    s.hh = h(s.hh + stamp)
    return si_pub, timestamp, s


def paper_response(
    s: Symmetric, ei_pub: bytes, si_pub: bytes, er: X25519PrivateKey, q: bytes, i: int, their_i: int
) -> bytes:
    """Section 5.4.3."""
    (s.c,) = kdf(1, s.c, pub(er))
    s.hh = h(s.hh + pub(er))
    (s.c,) = kdf(1, s.c, dh(er, ei_pub))
    (s.c,) = kdf(1, s.c, dh(er, si_pub))
    s.c, tau, k = kdf(3, s.c, q)
    s.hh = h(s.hh + tau)
    empty = aead(k, b"", s.hh)
    s.hh = h(s.hh + empty)
    body = b"\x02\0\0\0" + struct.pack("<II", i, their_i) + pub(er) + empty
    return body + mac1(si_pub, body) + bytes(16)


def paper_read_response(
    s: Symmetric, m: bytes, ei: X25519PrivateKey, si: X25519PrivateKey, q: bytes
) -> None:
    assert len(m) == 92
    assert m[:4] == b"\x02\0\0\0"
    assert m[60:76] == mac1(pub(si), m[:60])
    er_pub = m[12:44]
    (s.c,) = kdf(1, s.c, er_pub)
    s.hh = h(s.hh + er_pub)
    (s.c,) = kdf(1, s.c, dh(ei, er_pub))
    (s.c,) = kdf(1, s.c, dh(si, er_pub))
    s.c, tau, k = kdf(3, s.c, q)
    s.hh = h(s.hh + tau)
    assert aead_open(k, m[44:60], s.hh) == b""


@pytest.mark.parametrize("q", [bytes(32), bytes(range(32))])
def test_the_paper_begins(q: bytes) -> None:
    si, sr, ei = (X25519PrivateKey.generate() for _ in range(3))
    stamp = bytes.fromhex("400000006553f10a1dcd6500")
    datagram, s = paper_initiation(si, pub(sr), ei, 0xCAFEBABE, stamp)

    identity = StaticIdentity(sr.private_bytes_raw())
    assert CookieChecker(HandshakeKeys.of(identity.public_key)).check_mac1(datagram)
    identified = identify_initiator(identity, Initiation.parse(datagram))
    assert identified.initiator == pub(si)
    handshake = Handshake(identity, identified.initiator, q)
    handshake.consume_initiation(identified, NOW.boot_ns)
    body = handshake.create_response(0x12345678, os.urandom)
    response = CookieGenerator(pub(si)).add_macs(body, NOW.boot_ns)

    assert struct.unpack("<II", response[4:12]) == (0x12345678, 0xCAFEBABE)
    paper_read_response(s, response, ei, si, q)
    keypair = handshake.derive_keypair(NOW.boot_ns)
    assert [keypair.receive_key, keypair.send_key] == kdf(2, s.c, b"")  # ours is the responder
    assert (keypair.local_index, keypair.remote_index) == (0x12345678, 0xCAFEBABE)


@pytest.mark.parametrize("q", [bytes(32), bytes(range(32))])
def test_the_paper_answers(q: bytes) -> None:
    si, sr, er = (X25519PrivateKey.generate() for _ in range(3))
    handshake = Handshake(StaticIdentity(si.private_bytes_raw()), pub(sr), q)
    body = handshake.create_initiation(NOW, 0xCAFEBABE, os.urandom)
    datagram = CookieGenerator(pub(sr)).add_macs(body, NOW.boot_ns)

    si_pub, timestamp, s = paper_read_initiation(sr, datagram)
    assert si_pub == pub(si)
    # 1,700,000,000 s + 10 + 2^62, and 0.5 s rounded down to 29 * 2^24 ns
    assert timestamp == struct.pack(">QI", 0x400000006553F10A, 29 * 2**24)
    response = paper_response(s, datagram[8:40], si_pub, er, q, 0x12345678, 0xCAFEBABE)

    handshake.consume_response(Response.parse(response))
    keypair = handshake.derive_keypair(NOW.boot_ns)
    assert [keypair.send_key, keypair.receive_key] == kdf(2, s.c, b"")
    assert (keypair.local_index, keypair.remote_index) == (0xCAFEBABE, 0x12345678)


def test_the_published_initial_values() -> None:
    """What every implementation has as constants: Hash(CONSTRUCTION), Hash(that || IDENTIFIER)."""
    c = h(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
    assert c.hex() == "60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36"
    assert h(c + b"WireGuard v1 zx2c4 Jason@zx2c4.com").hex() == (
        "2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3"
    )
