"""Handshake messages are filtered by length, type and MAC1, and queued within bounds."""

import hashlib
import os

import pytest

from tests.dataplane.lab import A_ADDRESS, OUR_ADDRESS, PORT, Lab
from wgd.addresses import Endpoint, Source

KEY = bytes(range(32))
FROM_A = Endpoint(A_ADDRESS, PORT, 0, Source(OUR_ADDRESS, 1))


def message(kind: int, size: int, mark: int = 0, key: bytes = KEY) -> bytes:
    """An initiation (1, 148 bytes) or response (2, 92 bytes): only type and MAC1 are right."""
    body = bytes([kind, 0, 0, 0]) + mark.to_bytes(4, "big") + os.urandom(size - 40)
    return body + hashlib.blake2s(body, key=key, digest_size=16).digest() + os.urandom(16)


def cookie_reply(mark: int = 0) -> bytes:
    return b"\x03\x00\x00\x00" + mark.to_bytes(4, "big") + os.urandom(56)


@pytest.fixture(autouse=True)
def mac1_key(lab: Lab) -> None:
    lab.engine.set_mac1_key(KEY)


def test_good_messages_come_in_order_with_their_source(lab: Lab) -> None:
    sent = [message(1, 148), cookie_reply(), message(2, 92), message(1, 148)]
    for datagram in sent:
        lab.inbound(datagram)
    messages, queued = lab.engine.take_handshakes(100)
    assert [item.datagram for item in messages] == sent
    assert {item.source for item in messages} == {FROM_A}
    assert queued == 3  # cookie replies do not count as load
    assert lab.engine.take_handshakes(100) == ([], 0)


def test_mac1_covers_everything_before_it(lab: Lab) -> None:
    for kind, size in ((1, 148), (2, 92)):
        good = message(kind, size)
        for position in (4, 50, size - 33, size - 32, size - 17):
            bad = bytearray(good)
            bad[position] ^= 1
            lab.inbound(bytes(bad))
        lab.inbound(message(kind, size, key=bytes(32)))
    assert lab.engine.take_handshakes(100) == ([], 0)
    assert not lab.is_readable()
    for kind, size in ((1, 148), (2, 92)):
        with_mac2 = bytearray(message(kind, size))
        with_mac2[-1] ^= 1  # MAC2 is not our business
        lab.inbound(bytes(with_mac2))
    assert lab.engine.take_handshakes(100)[1] == 2


@pytest.mark.parametrize(
    ("kind", "size"), [(1, 147), (1, 149), (1, 92), (2, 91), (2, 93), (2, 148), (5, 148), (0, 92)]
)
def test_wrong_lengths_and_types_are_dropped(lab: Lab, kind: int, size: int) -> None:
    lab.inbound(message(kind, size))
    assert lab.engine.take_handshakes(100) == ([], 0)


@pytest.mark.parametrize("size", [32, 63, 65])
def test_a_cookie_reply_has_64_bytes(lab: Lab, size: int) -> None:
    lab.inbound((cookie_reply() + bytes(1))[:size])
    assert lab.engine.take_handshakes(100) == ([], 0)


def test_reserved_bytes_must_be_zero(lab: Lab) -> None:
    body = b"\x01\x00\x01\x00" + os.urandom(112)
    lab.inbound(body + hashlib.blake2s(body, key=KEY, digest_size=16).digest() + bytes(16))
    assert lab.engine.take_handshakes(100) == ([], 0)


def test_without_a_key_nothing_passes(lab: Lab) -> None:
    lab.engine.set_mac1_key(None)
    lab.inbound(message(1, 148))
    lab.inbound(message(2, 92))
    assert lab.engine.take_handshakes(100) == ([], 0)


def test_a_full_queue_drops_its_oldest(lab: Lab) -> None:
    for mark in range(1030):
        lab.inbound(message(1, 148, mark))
    messages, queued = lab.engine.take_handshakes(5000)
    assert queued == 1024
    marks = [int.from_bytes(item.datagram[4:8], "big") for item in messages]
    assert marks == list(range(6, 1030))


def test_a_flood_of_cookie_replies_pushes_out_only_cookie_replies(lab: Lab) -> None:
    lab.inbound(message(1, 148))
    for mark in range(100):
        lab.inbound(cookie_reply(mark))
    messages, queued = lab.engine.take_handshakes(5000)
    assert queued == 1
    assert messages[0].datagram[0] == 1
    marks = [int.from_bytes(item.datagram[4:8], "big") for item in messages[1:]]
    assert marks == list(range(36, 100))


def test_a_limit_leaves_the_rest_and_the_descriptor_readable(lab: Lab) -> None:
    assert not lab.is_readable()
    for mark in range(5):
        lab.inbound(message(1, 148, mark))
    assert lab.is_readable()
    messages, queued = lab.engine.take_handshakes(2)
    assert (len(messages), queued) == (2, 5)
    assert lab.engine.drain_events() == []
    assert lab.is_readable()
    messages, queued = lab.engine.take_handshakes(3)
    assert (len(messages), queued) == (3, 3)
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
    (item,), _ = lab.engine.take_handshakes(1)
    assert "datagram" not in repr(item)
