"""Who sends to nobody, or to a peer that nobody can find, is told at once (RFC 792, RFC 4443)."""

import struct
from random import Random

import pytest

from tests.dataplane.flows import Flow, SuperPacket, compose
from tests.dataplane.lab import A_ADDRESS, PORT, A, Lab, NativeLab, ipv4, ipv6, prefix
from tests.dataplane.test_differential_offload import VirtioLab
from tests.dataplane.traffic import packed
from tests.dataplane.virtio import cut, internet_sum, pseudo_header
from tests.testbed.engines import NATIVE, require_engine
from wgd.addresses import Endpoint
from wgd.dataplane.interface import Fault, NeedsHandshake, PeerId
from wgd.diagnosis import FailureReason

OURS, OURS_6 = "10.9.9.9", "fd00::9"
NOBODYS, NOBODYS_6 = "172.16.0.1", "2001:db8:9::1"

TO_NOBODY = ipv4(OURS, NOBODYS, 100)
TO_NOBODY_6 = ipv6(OURS_6, NOBODYS_6, 100)

LOST = PeerId(9)
"""A peer without an endpoint."""
TO_LOST = ipv4(OURS, "10.3.0.1", 100)


def lose_a_peer(lab: Lab) -> None:
    lab.engine.add_peer(LOST)
    lab.engine.add_allowed_ip(LOST, prefix("10.3.0.0/16"))


def check_answer(answer: bytes, packet: bytes) -> None:
    """Fail unless it is the right error about `packet`."""
    if packet[0] >> 4 == 4:
        assert answer[:2] == b"\x45\xc0"
        assert int.from_bytes(answer[2:4], "big") == len(answer) <= 576
        assert answer[8:10] == bytes([64, 1])
        assert (answer[12:16], answer[16:20]) == (packet[16:20], packet[12:16])
        assert internet_sum(answer[:20]) == 0xFFFF
        error, summed, room = answer[20:], answer[20:], 548
        assert error[:2] == bytes([3, 1])
    else:
        assert answer[:4] == b"\x60\0\0\0"
        assert int.from_bytes(answer[4:6], "big") == len(answer) - 40 <= 1240
        assert answer[6:8] == bytes([58, 64])
        assert (answer[8:24], answer[24:40]) == (packet[24:40], packet[8:24])
        error, summed, room = answer[40:], pseudo_header(answer) + answer[40:], 1232
        assert error[:2] == bytes([1, 3])
    assert internet_sum(summed) == 0xFFFF
    assert error[4:8] == bytes(4)
    assert error[8:] == packet[:room]


# -- nobody has the destination --------------------------------------------------------------------


@pytest.mark.parametrize("size", [20, 28, 548, 549, 1420, 65_535])
def test_a_packet_for_nobody_is_answered(lab: Lab, size: int) -> None:
    packet = ipv4(OURS, NOBODYS, size)
    lab.outbound(packet)
    (answer,) = lab.delivered()
    check_answer(answer, packet)
    assert lab.engine.drops.no_route == 1


@pytest.mark.parametrize("size", [40, 48, 1232, 1233, 1420, 65_535])
def test_a_packet_for_nobody_over_ipv6(lab: Lab, size: int) -> None:
    packet = ipv6(OURS_6, NOBODYS_6, size)
    lab.outbound(packet)
    (answer,) = lab.delivered()
    check_answer(answer, packet)


def altered(packet: bytes, offset: int, values: bytes) -> bytes:
    return packet[:offset] + values + packet[offset + len(values) :]


def icmp(kind: int, options: int = 0) -> bytes:
    header = altered(TO_NOBODY, 9, b"\x01")
    header = altered(header, 0, bytes([0x45 + options]))
    return altered(header, 20 + 4 * options, bytes([kind]))


def icmp_6(kind: int) -> bytes:
    return altered(altered(TO_NOBODY_6, 6, b"\x3a"), 40, bytes([kind]))


def with_headers(kind: int) -> bytes:
    """An ICMPv6 message after one of each extension header."""
    headers = bytes([60, 1]) + bytes(14)  # hop-by-hop of 16 bytes, then destination options
    headers += bytes([43, 0]) + bytes(6)  # then a routing header
    headers += bytes([51, 0]) + bytes(6)  # an authentication header of 16 bytes
    headers += bytes([44, 2]) + bytes(14)  # and a first fragment
    headers += bytes([58, 0, 0, 1]) + bytes(4)
    packet = altered(TO_NOBODY_6[:40], 6, b"\x00") + headers + bytes([kind]) + bytes(20)
    return altered(packet, 4, struct.pack("!H", len(packet) - 40))


SILENT = {
    "a host unreachable": icmp(3),
    "a source quench": icmp(4),
    "a redirect": icmp(5),
    "a time exceeded": icmp(11),
    "a parameter problem": icmp(12),
    "an unknown ICMP message": icmp(99),
    "an error after IP options": icmp(3, options=2),
    "ICMP without a type": altered(icmp(8), 2, b"\0\x14")[:20],
    "a later fragment": altered(TO_NOBODY, 6, b"\x00\x01"),
    "a header that is too short": altered(TO_NOBODY, 0, b"\x44"),
    "a header beyond its end": altered(TO_NOBODY, 0, b"\x4f")[:40],
    "to a multicast group": ipv4(OURS, "224.0.0.251", 100),
    "to a broadcast": ipv4(OURS, "255.255.255.255", 100),
    "to nowhere": ipv4(OURS, "0.0.0.0", 100),
    "from nowhere": ipv4("0.0.0.0", NOBODYS, 100),
    "from the loopback": ipv4("127.0.0.1", NOBODYS, 100),
    "from a multicast group": ipv4("239.1.1.1", NOBODYS, 100),
    "from a broadcast": ipv4("255.255.255.255", NOBODYS, 100),
    "from class E": ipv4("240.0.0.1", NOBODYS, 100),
    "an ICMPv6 unreachable": icmp_6(1),
    "an ICMPv6 packet too big": icmp_6(2),
    "an ICMPv6 error of the future": icmp_6(127),
    "an ICMPv6 redirect": icmp_6(137),
    "an ICMPv6 error after extension headers": with_headers(1),
    "ICMPv6 without a type": altered(TO_NOBODY_6, 6, b"\x3a")[:40],
    "a truncated extension header": altered(TO_NOBODY_6, 6, b"\x00")[:41],
    "a later fragment over IPv6": altered(
        altered(TO_NOBODY_6, 6, b"\x2c"), 40, b"\x11\0\0\x08\0\0\0\1"
    ),
    "to an IPv6 multicast group": ipv6(OURS_6, "ff02::2", 100),
    "to nowhere over IPv6": ipv6(OURS_6, "::", 100),
    "from nowhere over IPv6": ipv6("::", NOBODYS_6, 100),
    "from the loopback over IPv6": ipv6("::1", NOBODYS_6, 100),
    "from an IPv6 multicast group": ipv6("ff02::1", NOBODYS_6, 100),
}


@pytest.mark.parametrize("what", SILENT)
def test_what_must_not_be_answered(lab: Lab, what: str) -> None:
    lab.outbound(SILENT[what])
    assert lab.delivered() == []
    assert lab.engine.drops.no_route == 1
    # Nor does it take anything of the others' share.
    lab.outbound(*[SILENT[what]] * 60, TO_NOBODY)
    assert len(lab.delivered()) == 1


@pytest.mark.parametrize(
    "packet",
    [icmp(8), icmp(0), icmp(13), icmp(8, options=3), icmp_6(128), icmp_6(135), with_headers(128)],
    ids=["echo", "reply", "timestamp", "options", "echo 6", "solicitation", "headers"],
)
def test_queries_and_first_fragments_are_answered(lab: Lab, packet: bytes) -> None:
    lab.outbound(packet)
    (answer,) = lab.delivered()
    check_answer(answer, packet)


def test_a_first_fragment_is_answered(lab: Lab) -> None:
    packet = altered(TO_NOBODY, 6, b"\x20\x00")
    lab.outbound(packet)
    (answer,) = lab.delivered()
    check_answer(answer, packet)


def test_a_malformed_packet_is_not_answered(lab: Lab) -> None:
    lab.outbound(b"", b"\x45", TO_NOBODY[:19], b"\x15" + TO_NOBODY[1:])
    assert lab.delivered() == []
    assert lab.engine.drops.malformed_packet == 4


def test_answers_are_at_most_50_at_once_and_1000_a_second(lab: Lab) -> None:
    lab.outbound(*[TO_NOBODY] * 100)
    assert len(lab.delivered()) == 50
    lab.advance(0.001)
    lab.outbound(*[TO_NOBODY, TO_NOBODY_6] * 5)
    assert len(lab.delivered()) == 1
    lab.advance(0.02)
    lab.outbound(*[TO_NOBODY] * 50)
    assert len(lab.delivered()) == 20
    lab.advance(3600)
    lab.outbound(*[TO_NOBODY] * 100)
    assert len(lab.delivered()) == 50


def test_an_answer_that_nobody_takes_is_no_error(lab: Lab) -> None:
    lab.tun.is_up = False
    lab.outbound(TO_NOBODY)
    assert lab.engine.drops.tun_failed == 0


@pytest.mark.parametrize("is_ipv6", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("is_tcp", [False, True], ids=["UDP", "TCP"])
@pytest.mark.parametrize("segment_size", [0, 1200], ids=["checksum", "segments"])
def test_a_super_packet_is_answered_once_with_its_first_packet(
    is_ipv6: bool, is_tcp: bool, segment_size: int
) -> None:
    require_engine(NATIVE)
    lab = VirtioLab()
    try:
        plan = SuperPacket(Flow(is_ipv6, is_tcp), payload=1300, segment_size=segment_size)
        ours, theirs = (OURS_6, NOBODYS_6) if is_ipv6 else (OURS, NOBODYS)
        header, packet = plan.build((packed(ours), packed(theirs)), 1)
        lab.virtio_tun.inject_raw(header.to_bytes() + packet)
        lab.engine.receive_from_tun()
        (answer,) = lab.delivered()
        check_answer(answer, cut(header, packet)[0])
    finally:
        lab.close()


# -- the peer has no endpoint ----------------------------------------------------------------------


def test_until_the_control_plane_refuses_packets_wait(lab: Lab) -> None:
    lose_a_peer(lab)
    lab.outbound(TO_LOST)
    assert lab.engine.drain_events() == [NeedsHandshake(LOST)]
    assert lab.engine.staged_packets(LOST) == 1
    assert lab.delivered() == []


def test_what_was_staged_is_answered_when_it_is_refused(lab: Lab) -> None:
    lose_a_peer(lab)
    lab.outbound(TO_LOST, TO_LOST)
    lab.engine.refuse_staged(LOST)
    answers = lab.delivered()
    assert len(answers) == 2
    for answer in answers:
        check_answer(answer, TO_LOST)
    assert lab.engine.staged_packets(LOST) == 0
    assert lab.engine.drops.no_endpoint == 2


def test_a_keepalive_that_was_staged_is_nobodys(lab: Lab) -> None:
    lose_a_peer(lab)
    lab.engine.send_keepalive(LOST)
    lab.engine.refuse_staged(LOST)
    assert lab.delivered() == []
    assert lab.engine.staged_packets(LOST) == 0


def test_what_follows_is_answered_at_once_without_an_event_each(lab: Lab) -> None:
    lose_a_peer(lab)
    lab.outbound(TO_LOST)
    lab.engine.refuse_staged(LOST)
    lab.engine.drain_events()
    lab.delivered()
    lab.outbound(TO_LOST, TO_LOST, TO_LOST)
    assert len(lab.delivered()) == 3
    assert lab.engine.drain_events() == []
    assert lab.engine.drops.no_endpoint == 4
    (fault,) = lab.engine.faults(LOST)
    assert fault == Fault(FailureReason.NO_ENDPOINT, 3, lab.clock.boot_ns(), 0)


@pytest.mark.parametrize("how", ["endpoint", "send_staged", "drop_staged", "roam"])
def test_there_is_hope_again(lab: Lab, how: str) -> None:
    lose_a_peer(lab)
    lab.engine.refuse_staged(LOST)
    if how == "endpoint":
        lab.engine.set_endpoint(LOST, Endpoint(A_ADDRESS, PORT))
    elif how == "roam":
        lab.engine.note_received(LOST, 148, Endpoint(A_ADDRESS, PORT))
    elif how == "send_staged":
        lab.engine.send_staged(LOST)
    else:
        lab.engine.drop_staged(LOST)
    lab.outbound(TO_LOST)
    assert lab.delivered() == []
    assert lab.engine.staged_packets(LOST) == 1
    assert lab.engine.drain_events() == [NeedsHandshake(LOST)]


def test_others_are_not_refused(lab: Lab) -> None:
    lose_a_peer(lab)
    far = lab.established(A)
    lab.engine.refuse_staged(LOST)
    packet = compose(Flow(False, False), (packed(OURS), packed("10.2.0.1")), b"to A")
    lab.outbound(packet)
    assert far.open(lab.sent()[0])[1].startswith(packet)


# -- both engines ----------------------------------------------------------------------------------


def draw_packet(random: Random) -> bytes:
    """Draw a packet for nobody, which may be ICMP, have other headers, be cut off or mistaken."""
    if random.randrange(2):
        packet = bytearray(ipv4(OURS, NOBODYS, random.choice((20, 24, 60, 600))))
        packet[0] = 0x40 | random.choice((5, 5, 5, 6, 15, 4, 0))
        packet[9] = random.choice((1, 1, 6, 17))
        packet[6:8] = random.choice((b"\0\0", b"\x40\0", b"\x20\0", b"\0\1"))
    else:
        packet = bytearray(ipv6(OURS_6, NOBODYS_6, random.choice((40, 48, 60, 200, 1400))))
        packet[6] = random.choice((0, 6, 17, 43, 44, 51, 58, 58, 60))
        for offset in range(40, len(packet) - 4, 8):
            packet[offset] = random.choice((0, 1, 3, 43, 44, 51, 58, 60, 128, 137))
            packet[offset + 1] = random.choice((0, 0, 0, 1, 200))
            packet[offset + 2 : offset + 4] = random.choice((b"\0\0", b"\0\1", b"\0\x08"))
    return bytes(packet)


def test_both_engines_answer_the_same() -> None:
    require_engine(NATIVE)
    random = Random(1)
    portable, native = Lab(), NativeLab()
    answered = 0
    try:
        for _ in range(200):
            packets = [draw_packet(random) for _ in range(15)]
            for each in (portable, native):
                each.advance(1)
                each.outbound(*packets)
            answers = portable.delivered()
            assert native.delivered() == answers
            assert native.engine.drop_counts() == portable.engine.drop_counts()
            answered += len(answers)
    finally:
        portable.close()
        native.close()
    assert 500 < answered < 2500
