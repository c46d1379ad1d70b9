"""Handshake messages are filtered by length, type, MAC1 and index, and queued within bounds.

What is done about load is in test_gate.
"""

import hashlib
import os
import struct

import pytest

from tests.dataplane.lab import A_ADDRESS, OUR_ADDRESS, PORT, A, B, Lab
from wgd.addresses import Endpoint, Source
from wgd.noise.cookie import HandshakeKeys

KEY = bytes(range(32))
KEYS = HandshakeKeys(mac1=KEY, reply=bytes(32))
INDEX = 0x01020304
"""Of an initiation of ours that is not answered."""
FROM_A = Endpoint(A_ADDRESS, PORT, 0, Source(OUR_ADDRESS, 1))


def message(kind: int, size: int, mark: int = 0, key: bytes = KEY) -> bytes:
    """An initiation (1, 148 bytes) or response (2, 92 bytes): only type and MAC1 are right."""
    body = bytes([kind, 0, 0, 0]) + mark.to_bytes(4, "big") + struct.pack("<I", INDEX)
    body += os.urandom(size - 44)
    return body + hashlib.blake2s(body, key=key, digest_size=16).digest() + os.urandom(16)


def cookie_reply(mark: int = 0, index: int = INDEX) -> bytes:
    return struct.pack("<II", 3, index) + mark.to_bytes(4, "big") + os.urandom(52)


@pytest.fixture(autouse=True)
def initiated(lab: Lab) -> None:
    lab.engine.set_handshake_keys(KEYS)
    lab.engine.send_to_peer(A, struct.pack("<II", 1, INDEX) + bytes(140))


def test_good_messages_come_in_order_with_their_source(lab: Lab) -> None:
    sent = [message(1, 148), cookie_reply(), message(2, 92), message(1, 148)]
    for datagram in sent:
        lab.inbound(datagram)
    messages = lab.engine.take_handshakes(100)
    assert [item.datagram for item in messages] == sent
    assert {item.source for item in messages} == {FROM_A}
    assert lab.engine.take_handshakes(100) == []


def test_mac1_covers_everything_before_it(lab: Lab) -> None:
    for kind, size in ((1, 148), (2, 92)):
        good = message(kind, size)
        for position in (4, 50, size - 33, size - 32, size - 17):
            bad = bytearray(good)
            bad[position] ^= 1
            lab.inbound(bytes(bad))
        lab.inbound(message(kind, size, key=bytes(32)))
    assert lab.engine.take_handshakes(100) == []
    assert not lab.is_readable()
    for kind, size in ((1, 148), (2, 92)):
        with_mac2 = bytearray(message(kind, size))
        with_mac2[-1] ^= 1  # MAC2 is not our business
        lab.inbound(bytes(with_mac2))
    assert len(lab.engine.take_handshakes(100)) == 2


@pytest.mark.parametrize(
    ("kind", "size"), [(1, 147), (1, 149), (1, 92), (2, 91), (2, 93), (2, 148), (5, 148), (0, 92)]
)
def test_wrong_lengths_and_types_are_dropped(lab: Lab, kind: int, size: int) -> None:
    lab.inbound(message(kind, size))
    assert lab.engine.take_handshakes(100) == []


@pytest.mark.parametrize("size", [32, 63, 65])
def test_a_cookie_reply_has_64_bytes(lab: Lab, size: int) -> None:
    lab.inbound((cookie_reply() + bytes(1))[:size])
    assert lab.engine.take_handshakes(100) == []


def test_reserved_bytes_must_be_zero(lab: Lab) -> None:
    body = b"\x01\x00\x01\x00" + os.urandom(112)
    lab.inbound(body + hashlib.blake2s(body, key=KEY, digest_size=16).digest() + bytes(16))
    assert lab.engine.take_handshakes(100) == []


def test_without_a_key_nothing_passes(lab: Lab) -> None:
    lab.engine.set_handshake_keys(None)
    lab.inbound(message(1, 148))
    lab.inbound(message(2, 92))
    assert lab.engine.take_handshakes(100) == []


@pytest.mark.parametrize("kind", [2, 3])
def test_an_answer_to_nothing_is_dropped(lab: Lab, kind: int) -> None:
    def answer(index: int) -> bytes:
        body = struct.pack("<III", 2, 7, index) + os.urandom(48)
        mac1 = hashlib.blake2s(body, key=KEY, digest_size=16).digest()
        return cookie_reply(index=index) if kind == 3 else body + mac1 + bytes(16)

    def taken(index: int) -> int:
        lab.inbound(answer(index))
        return len(lab.engine.take_handshakes(10))

    assert [taken(INDEX ^ 1), taken(INDEX)] == [0, 1]
    lab.engine.send_to_peer(A, struct.pack("<II", 1, 9) + bytes(140))
    assert [taken(INDEX), taken(9)] == [0, 1], "only the last one may be answered"
    lab.engine.send_to_peer(B, struct.pack("<II", 1, 10) + bytes(140))
    assert [taken(9), taken(10)] == [1, 1]
    lab.engine.drop_keypairs(A)
    lab.engine.remove_peer(B)
    assert [taken(9), taken(10)] == [1, 0]
    lab.engine.remove_peer(A)
    assert taken(9) == 0
    assert lab.engine.drops.unknown_index == 4


def test_an_initiation_that_was_answered_waits_only_for_cookies(lab: Lab) -> None:
    keypair, _far = lab.make(initiator=True)
    lab.engine.send_to_peer(A, struct.pack("<II", 1, keypair.local_index) + bytes(140))
    lab.engine.install_keypair(A, keypair)
    body = struct.pack("<III", 2, 7, keypair.local_index) + bytes(48)
    lab.inbound(body + hashlib.blake2s(body, key=KEY, digest_size=16).digest() + bytes(16))
    assert lab.engine.take_handshakes(10) == []
    lab.inbound(cookie_reply(index=keypair.local_index))  # as to a response of ours
    assert len(lab.engine.take_handshakes(10)) == 1


def test_a_copy_is_not_heard_again(lab: Lab) -> None:
    datagram = message(1, 148)
    for sender in (A, A, B):
        lab.inbound(datagram, sender)
    assert len(lab.engine.take_handshakes(10)) == 1
    lab.inbound(datagram)
    assert lab.engine.take_handshakes(10) == []
    assert lab.engine.drops.repeated_handshake == 3


def test_a_limit_leaves_the_rest_and_the_descriptor_readable(lab: Lab) -> None:
    assert not lab.is_readable()
    for mark in range(5):
        lab.inbound(message(1, 148, mark))
    assert lab.is_readable()
    assert len(lab.engine.take_handshakes(2)) == 2
    assert lab.engine.drain_events() == []
    assert lab.is_readable()
    assert len(lab.engine.take_handshakes(3)) == 3
    assert not lab.is_readable()


def test_events_keep_the_descriptor_readable(lab: Lab) -> None:
    lab.tun.close()
    lab.engine.receive_from_tun()
    lab.inbound(message(1, 148))
    assert lab.is_readable()
    lab.engine.take_handshakes(10)
    assert lab.is_readable()
    assert len(lab.engine.drain_events()) == 1
    assert not lab.is_readable()


def test_a_message_hides_its_bytes_from_logs(lab: Lab) -> None:
    lab.inbound(message(1, 148))
    (item,) = lab.engine.take_handshakes(1)
    assert "datagram" not in repr(item)
