"""MACs and cookies are as the paper says, bound to an address, and forgotten in time."""

import hashlib
import itertools
import struct
import subprocess
import sys

import pytest

from wgd.addresses import Endpoint, Source
from wgd.errors import HandshakeError
from wgd.noise.cookie import CookieChecker, CookieGenerator, HandshakeKeys
from wgd.noise.messages import CookieReply

SECOND_NS = 1_000_000_000
START_NS = 77 * SECOND_NS
PUBLIC_KEY = bytes(range(1, 33))
MESSAGE = struct.pack("<II", 1, 0xAABBCCDD) + bytes(range(108))
V4 = Endpoint("192.0.2.1", 51820)
V6 = Endpoint("2001:db8::1", 51820)


class CountingRandom:
    """A different answer each time, and a note of what was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self._numbers = itertools.count(1)

    def __call__(self, size: int) -> bytes:
        self.asked.append(size)
        return next(self._numbers).to_bytes(size, "big")


def reply_for(
    checker: CookieChecker, datagram: bytes, source: Endpoint, now_ns: int, random: CountingRandom
) -> CookieReply:
    reply = checker.create_reply(datagram, 0xAABBCCDD, source, now_ns, random)
    assert len(reply) == 64
    return CookieReply.parse(reply)


def with_cookie(
    source: Endpoint, now_ns: int = START_NS
) -> tuple[CookieChecker, CookieGenerator, CountingRandom]:
    checker, generator, random = (
        CookieChecker(HandshakeKeys.of(PUBLIC_KEY)),
        CookieGenerator(PUBLIC_KEY),
        CountingRandom(),
    )
    datagram = generator.add_macs(MESSAGE, now_ns)
    generator.consume_reply(reply_for(checker, datagram, source, now_ns, random), now_ns)
    return checker, generator, random


# -- MAC1 ------------------------------------------------------------------------------------------


def test_mac1_by_its_definition() -> None:
    key = hashlib.blake2s(b"mac1----" + PUBLIC_KEY).digest()
    assert HandshakeKeys.of(PUBLIC_KEY).mac1 == key
    datagram = CookieGenerator(PUBLIC_KEY).add_macs(MESSAGE, START_NS)
    assert datagram[:116] == MESSAGE
    assert datagram[116:132] == hashlib.blake2s(MESSAGE, key=key, digest_size=16).digest()
    assert datagram[132:] == bytes(16)


@pytest.mark.parametrize("size", [60, 116])
def test_mac1_is_checked_over_everything_before_it(size: int) -> None:
    checker = CookieChecker(HandshakeKeys.of(PUBLIC_KEY))
    datagram = CookieGenerator(PUBLIC_KEY).add_macs(MESSAGE[:size], START_NS)
    assert checker.check_mac1(datagram)
    assert checker.check_mac1(memoryview(datagram))
    for place in range(size + 16):
        damaged = bytearray(datagram)
        damaged[place] ^= 1
        assert not checker.check_mac1(damaged), place
    damaged = bytearray(datagram)
    damaged[-1] ^= 1
    assert checker.check_mac1(damaged)


def test_mac1_for_another_receiver() -> None:
    datagram = CookieGenerator(bytes(32)).add_macs(MESSAGE, START_NS)
    assert not CookieChecker(HandshakeKeys.of(PUBLIC_KEY)).check_mac1(datagram)


# -- cookies ---------------------------------------------------------------------------------------


def test_no_mac2_is_right_before_the_first_reply() -> None:
    checker = CookieChecker(HandshakeKeys.of(PUBLIC_KEY))
    datagram = CookieGenerator(PUBLIC_KEY).add_macs(MESSAGE, START_NS)
    assert not checker.check_mac2(datagram, V4, START_NS)
    assert not checker.check_mac2(datagram, V4, 0)


def test_mac2_by_its_definition() -> None:
    checker, generator, random = with_cookie(V4)
    assert random.asked == [32, 24]
    secret = (1).to_bytes(32, "big")
    cookie = hashlib.blake2s(
        bytes([192, 0, 2, 1]) + (51820).to_bytes(2, "big"), key=secret, digest_size=16
    ).digest()
    datagram = generator.add_macs(MESSAGE, START_NS)
    assert datagram[132:] == hashlib.blake2s(datagram[:132], key=cookie, digest_size=16).digest()
    assert checker.check_mac1(datagram)
    assert checker.check_mac2(datagram, V4, START_NS)


def test_the_reply_on_the_wire() -> None:
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt

    checker = CookieChecker(HandshakeKeys.of(PUBLIC_KEY))
    datagram = CookieGenerator(PUBLIC_KEY).add_macs(MESSAGE, START_NS)
    reply = checker.create_reply(datagram, 0xAABBCCDD, V6, START_NS, CountingRandom())
    assert reply[:8] == struct.pack("<II", 3, 0xAABBCCDD)
    assert reply[8:32] == (2).to_bytes(24, "big")
    key = hashlib.blake2s(b"cookie--" + PUBLIC_KEY).digest()
    cookie = crypto_aead_xchacha20poly1305_ietf_decrypt(
        reply[32:], datagram[116:132], reply[8:32], key
    )
    address = bytes.fromhex("20010db8000000000000000000000001") + (51820).to_bytes(2, "big")
    secret = (1).to_bytes(32, "big")
    assert cookie == hashlib.blake2s(address, key=secret, digest_size=16).digest()


@pytest.mark.parametrize("source", [V4, V6])
def test_a_cookie_is_bound_to_address_and_port(source: Endpoint) -> None:
    checker, generator, _ = with_cookie(source)
    datagram = generator.add_macs(MESSAGE, START_NS)
    assert checker.check_mac2(datagram, source, START_NS)
    elsewhere = source._replace(source=Source("198.51.100.1", 3), scope_id=7)
    assert checker.check_mac2(datagram, elsewhere, START_NS)
    assert not checker.check_mac2(datagram, source._replace(port=51821), START_NS)
    other = "2001:db8::2" if source.is_ipv6 else "192.0.2.2"
    assert not checker.check_mac2(datagram, source._replace(host=other), START_NS)


def test_mac2_is_checked_over_everything_before_it() -> None:
    checker, generator, _ = with_cookie(V4)
    datagram = generator.add_macs(MESSAGE, START_NS)
    for place in range(148):
        damaged = bytearray(datagram)
        damaged[place] ^= 1
        assert not checker.check_mac2(damaged, V4, START_NS), place


def test_the_receiver_forgets_its_secret_after_120_seconds() -> None:
    checker, generator, random = with_cookie(V4)
    datagram = generator.add_macs(MESSAGE, START_NS)
    assert checker.check_mac2(datagram, V4, START_NS + 120 * SECOND_NS - 1)
    assert not checker.check_mac2(datagram, V4, START_NS + 120 * SECOND_NS)
    # The next reply brings a new secret; the old MAC2 stays wrong.
    now_ns = START_NS + 121 * SECOND_NS
    reply_for(checker, datagram, V4, now_ns, random)
    assert random.asked == [32, 24, 32, 24]
    assert not checker.check_mac2(datagram, V4, now_ns)


def test_replies_within_120_seconds_share_the_secret() -> None:
    checker, _, random = with_cookie(V4)
    generator = CookieGenerator(PUBLIC_KEY)
    now_ns = START_NS + 119 * SECOND_NS
    datagram = generator.add_macs(MESSAGE, now_ns)
    generator.consume_reply(reply_for(checker, datagram, V4, now_ns, random), now_ns)
    assert random.asked == [32, 24, 24]
    assert checker.check_mac2(generator.add_macs(MESSAGE, now_ns), V4, now_ns)


def test_the_sender_trusts_a_cookie_for_115_seconds() -> None:
    _, generator, _ = with_cookie(V4)
    assert generator.add_macs(MESSAGE, START_NS + 115 * SECOND_NS - 1)[132:] != bytes(16)
    assert generator.add_macs(MESSAGE, START_NS + 115 * SECOND_NS)[132:] == bytes(16)


def test_a_reply_that_was_not_asked_for() -> None:
    checker, random = CookieChecker(HandshakeKeys.of(PUBLIC_KEY)), CountingRandom()
    datagram = CookieGenerator(PUBLIC_KEY).add_macs(MESSAGE, START_NS)
    reply = reply_for(checker, datagram, V4, START_NS, random)
    generator = CookieGenerator(PUBLIC_KEY)
    with pytest.raises(HandshakeError, match=r"^unexpected cookie reply$"):
        generator.consume_reply(reply, START_NS)
    assert generator.add_macs(MESSAGE, START_NS) == datagram
    generator.consume_reply(reply, START_NS)
    with pytest.raises(HandshakeError, match=r"^unexpected cookie reply$"):
        generator.consume_reply(reply, START_NS)


def test_a_reply_to_an_older_message() -> None:
    checker, random, generator = (
        CookieChecker(HandshakeKeys.of(PUBLIC_KEY)),
        CountingRandom(),
        CookieGenerator(PUBLIC_KEY),
    )
    older = generator.add_macs(MESSAGE, START_NS)
    newer = generator.add_macs(MESSAGE[:-1] + b"\xff", START_NS)
    with pytest.raises(HandshakeError, match=r"^decryption failed$"):
        generator.consume_reply(reply_for(checker, older, V4, START_NS, random), START_NS)
    generator.consume_reply(reply_for(checker, newer, V4, START_NS, random), START_NS)


def test_a_forged_reply_changes_nothing() -> None:
    checker, generator, random = with_cookie(V4)
    before = generator.add_macs(MESSAGE, START_NS)
    reply = checker.create_reply(before, 0xAABBCCDD, V6, START_NS, random)
    for place in range(8, 64):
        damaged = bytearray(reply)
        damaged[place] ^= 1
        with pytest.raises(HandshakeError, match=r"^decryption failed$"):
            generator.consume_reply(CookieReply.parse(damaged), START_NS + 50 * SECOND_NS)
    # The first cookie is still there, as old as it was.
    assert generator.add_macs(MESSAGE, START_NS + 114 * SECOND_NS) == before
    assert generator.add_macs(MESSAGE, START_NS + 115 * SECOND_NS)[132:] == bytes(16)
    # And the true reply to the same MAC1 still counts.
    generator.consume_reply(CookieReply.parse(reply), START_NS)
    assert checker.check_mac2(generator.add_macs(MESSAGE, START_NS), V6, START_NS)


def test_a_reply_from_another_receiver() -> None:
    generator = CookieGenerator(PUBLIC_KEY)
    datagram = generator.add_macs(MESSAGE, START_NS)
    reply = reply_for(
        CookieChecker(HandshakeKeys.of(bytes(32))), datagram, V4, START_NS, CountingRandom()
    )
    with pytest.raises(HandshakeError, match=r"^decryption failed$"):
        generator.consume_reply(reply, START_NS)


def test_libsodium_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, wgd.noise.cookie, wgd.noise.handshake; sys.exit('nacl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
