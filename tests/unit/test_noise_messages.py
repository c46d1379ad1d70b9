"""Messages are read and written exactly as the paper lays them out, and nothing else is read."""

import contextlib
import struct
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgd.errors import HandshakeError
from wgd.noise import messages
from wgd.noise.messages import CookieReply, Initiation, MessageType, Response, message_type

INITIATION = struct.pack("<BxxxI", 1, 0x01020304) + bytes(range(140))
RESPONSE = struct.pack("<BxxxII", 2, 0x01020304, 0xF1F2F3F4) + bytes(range(80))
COOKIE_REPLY = struct.pack("<BxxxI", 3, 0xF1F2F3F4) + bytes(range(56))
TRANSPORT = struct.pack("<BxxxIQ", 4, 0xF1F2F3F4, 5) + bytes(16)


def test_sizes_of_the_paper() -> None:
    assert [len(m) for m in (INITIATION, RESPONSE, COOKIE_REPLY, TRANSPORT)] == [148, 92, 64, 32]


def test_an_initiation() -> None:
    message = Initiation.parse(INITIATION)
    assert message.sender_index == 0x01020304
    assert message.ephemeral == bytes(range(32))
    assert message.encrypted_static == bytes(range(32, 80))
    assert message.encrypted_timestamp == bytes(range(80, 108))
    assert message.to_bytes() == INITIATION[:116]


def test_a_response() -> None:
    message = Response.parse(bytearray(RESPONSE))
    assert message.sender_index == 0x01020304
    assert message.receiver_index == 0xF1F2F3F4
    assert message.ephemeral == bytes(range(32))
    assert message.encrypted_nothing == bytes(range(32, 48))
    assert message.to_bytes() == RESPONSE[:60]


def test_a_cookie_reply() -> None:
    message = CookieReply.parse(memoryview(COOKIE_REPLY))
    assert message.receiver_index == 0xF1F2F3F4
    assert message.nonce == bytes(range(24))
    assert message.encrypted_cookie == bytes(range(24, 56))
    assert message.to_bytes() == COOKIE_REPLY


def test_a_transport_header() -> None:
    assert messages.TRANSPORT_HEADER.unpack_from(TRANSPORT) == (4, 0xF1F2F3F4, 5)
    assert messages.TRANSPORT_HEADER.size == 16


def test_message_types() -> None:
    assert message_type(INITIATION) is MessageType.INITIATION
    assert message_type(RESPONSE) is MessageType.RESPONSE
    assert message_type(COOKIE_REPLY) is MessageType.COOKIE_REPLY
    assert message_type(TRANSPORT) is MessageType.TRANSPORT
    assert message_type(TRANSPORT + bytes(1500)) is MessageType.TRANSPORT
    assert message_type(memoryview(RESPONSE)) is MessageType.RESPONSE


@pytest.mark.parametrize("datagram", [INITIATION, RESPONSE, COOKIE_REPLY, TRANSPORT])
def test_wrong_lengths_types_and_reserved_bytes(datagram: bytes) -> None:
    wrong = [datagram[:-1], datagram[:3], b""]
    if datagram is not TRANSPORT:
        wrong.append(datagram + b"\0")
    wrong += [bytes([number]) + datagram[1:] for number in (0, 5, 255)]
    for reserved in (1, 2, 3):
        damaged = bytearray(datagram)
        damaged[reserved] = 1
        wrong.append(bytes(damaged))
    for each in wrong:
        assert message_type(each) is None
        for parse in (Initiation.parse, Response.parse, CookieReply.parse):
            with pytest.raises(HandshakeError, match=r"^not a"):
                parse(each)


def test_a_message_is_not_read_as_another() -> None:
    with pytest.raises(HandshakeError, match=r"^not a response$"):
        Response.parse(INITIATION)
    with pytest.raises(HandshakeError, match=r"^not a cookie reply$"):
        CookieReply.parse(RESPONSE)


@given(
    st.sampled_from([b"", b"\x01\0\0\0", b"\x02\0\0\0", b"\x03\0\0\0", b"\x04\0\0\0"]),
    st.sampled_from([0, 3, 28, 60, 88, 144]),
    st.randoms(),
)
def test_any_bytes_parse_as_at_most_one_message(start: bytes, size: int, random: Random) -> None:
    datagram = start + random.randbytes(size)
    parsed = 0
    for parse in (Initiation.parse, Response.parse, CookieReply.parse):
        with contextlib.suppress(HandshakeError):
            parse(datagram)
            parsed += 1
    is_handshake = message_type(datagram) not in (None, MessageType.TRANSPORT)
    assert parsed == is_handshake


def test_reprs_show_indices_only() -> None:
    assert repr(Initiation.parse(INITIATION)) == "Initiation(sender_index=16909060)"
    assert repr(Response.parse(RESPONSE)) == (
        "Response(sender_index=16909060, receiver_index=4059231220)"
    )
    assert repr(CookieReply.parse(COOKIE_REPLY)) == "CookieReply(receiver_index=4059231220)"


def test_no_answer_is_longer_than_what_it_answers() -> None:
    """So that nobody can be flooded by way of us."""
    initiation, response = len(INITIATION), len(RESPONSE)
    cookie_reply = len(COOKIE_REPLY)
    assert initiation > response > cookie_reply == 64
