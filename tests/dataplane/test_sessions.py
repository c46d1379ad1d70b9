"""Keypairs: previous, current and next; when each may send, and when a renewal is asked for."""

import pytest

from tests.dataplane.lab import SECOND, A, B, Lab, ipv4
from wgd.dataplane.interface import BecameActive, KeypairConfirmed, NeedsHandshake, Report

OUT = ("10.9.9.9", "10.2.0.1")
IN = ("10.2.0.1", "10.9.9.9")


def wanted(lab: Lab) -> list[Report]:
    """The waiting events but for BecameActive, of which test_stamps speaks."""
    return [event for event in lab.engine.drain_events() if not isinstance(event, BecameActive)]


# -- slots -----------------------------------------------------------------------------------------


def test_an_initiators_keypair_is_used_at_once(lab: Lab) -> None:
    lab.established()
    newer = lab.install()
    lab.outbound(ipv4(*OUT))
    newer.open(lab.sent()[0])


def test_a_responders_keypair_waits_for_the_first_packet(lab: Lab) -> None:
    older = lab.established()
    newer = lab.install(initiator=False)
    lab.outbound(ipv4(*OUT))
    older.open(lab.sent()[0])
    lab.inbound(newer.seal(b""))
    assert wanted(lab) == [KeypairConfirmed(A, newer.our_index, ())]
    lab.outbound(ipv4(*OUT))
    newer.open(lab.sent()[0])


def test_the_first_data_packet_confirms_and_is_delivered(lab: Lab) -> None:
    packets = [ipv4(*OUT, size=64) for _ in range(3)]
    lab.outbound(*packets)
    far = lab.install(initiator=False)
    assert lab.sent() == []
    packet = ipv4(*IN)
    lab.inbound(far.seal(packet))
    assert lab.delivered() == [packet]
    assert [far.open(datagram)[1] for datagram in lab.sent()] == packets
    assert KeypairConfirmed(A, far.our_index, ()) in lab.engine.drain_events()


def test_what_was_staged_goes_to_where_the_confirming_packet_came_from(lab: Lab) -> None:
    lab.outbound(ipv4(*OUT))
    far = lab.install(initiator=False)
    lab.inbound(far.seal(b""), lab.at_b)
    assert len(lab.sent(lab.at_b)) == 1


def test_a_keypair_is_confirmed_once(lab: Lab) -> None:
    far = lab.install(initiator=False)
    lab.inbound(far.seal(b""))
    lab.inbound(far.seal(b""))
    assert wanted(lab) == [KeypairConfirmed(A, far.our_index, ())]


@pytest.mark.parametrize("forged", [True, False])
def test_only_an_authentic_packet_confirms(lab: Lab, forged: bool) -> None:
    far = lab.install(initiator=False)
    datagram = bytearray(far.seal(b""))
    if forged:
        datagram[-1] ^= 1
    lab.inbound(bytes(datagram))
    assert bool(wanted(lab)) is not forged


def test_previous_keypairs_still_open(lab: Lab) -> None:
    older = lab.established()
    lab.install()
    lab.inbound(older.seal(ipv4(*IN)))
    assert len(lab.delivered()) == 1


def test_confirming_keeps_the_current_one_as_previous(lab: Lab) -> None:
    oldest = lab.established()
    older = lab.established()  # oldest is previous now
    newer = lab.install(initiator=False)  # and is pushed out by this
    lab.inbound(newer.seal(b""))
    for far, opens in ((newer, True), (older, True), (oldest, False)):
        lab.inbound(far.seal(ipv4(*IN)))
        assert bool(lab.delivered()) is opens


def test_indices_that_fall_out_are_returned(lab: Lab) -> None:
    def install(*, initiator: bool) -> tuple[int, tuple[int, ...]]:
        keypair, _ = lab.make(initiator=initiator)
        return keypair.local_index, lab.engine.install_keypair(A, keypair)

    first, freed = install(initiator=True)
    assert freed == ()
    second, freed = install(initiator=True)  # first: previous
    assert freed == ()
    third, freed = install(initiator=True)  # second: previous
    assert freed == (first,)
    fourth, freed = install(initiator=False)  # next, erases previous
    assert freed == (second,)
    fifth, freed = install(initiator=False)  # replaces next
    assert freed == (fourth,)
    sixth, freed = install(initiator=True)  # the unconfirmed next becomes previous
    assert freed == (third,)
    assert sorted(lab.engine.drop_keypairs(A)) == [fifth, sixth]
    assert lab.engine.drop_keypairs(A) == ()


def test_confirming_returns_what_it_pushes_out(lab: Lab) -> None:
    lab.install(initiator=True)
    pushed_by_next, far = lab.install(initiator=True), lab.install(initiator=False)
    lab.inbound(far.seal(b""))
    assert KeypairConfirmed(A, far.our_index, ()) in wanted(lab)
    again = lab.install(initiator=False)
    # `pushed_by_next` was current, then previous, and falls out when the next one is installed.
    lab.inbound(pushed_by_next.seal(ipv4(*IN)))
    assert lab.delivered() == []
    lab.inbound(again.seal(b""))
    assert wanted(lab) == [KeypairConfirmed(A, again.our_index, ())]


def test_dropped_keypairs_open_and_send_nothing(lab: Lab) -> None:
    far = lab.established()
    other = lab.established(B)
    assert lab.engine.drop_keypairs(A) == (far.our_index,)
    lab.inbound(far.seal(ipv4(*IN)))
    assert lab.delivered() == []
    lab.outbound(ipv4(*OUT))
    assert lab.sent() == []
    assert wanted(lab) == [NeedsHandshake(A)]
    lab.inbound(other.seal(ipv4("10.1.0.1", "10.9.9.9")), B)
    assert len(lab.delivered()) == 1


def test_a_removed_peer_returns_its_indices(lab: Lab) -> None:
    far = lab.established()
    following = lab.install(initiator=False)
    assert sorted(lab.engine.remove_peer(A)) == [far.our_index, following.our_index]
    lab.inbound(far.seal(ipv4(*IN)))
    assert lab.delivered() == []
    lab.inbound(following.seal(b""))
    assert lab.engine.drops.unknown_index == 2
    assert lab.engine.drain_events() == []


def test_expired_keypairs_open_but_never_send(lab: Lab) -> None:
    far = lab.established()
    following = lab.install(initiator=False)
    lab.engine.expire_keypairs(A)
    lab.outbound(ipv4(*OUT, size=64))
    assert lab.sent() == []
    assert wanted(lab) == [NeedsHandshake(A)]
    lab.inbound(far.seal(ipv4(*IN)))
    lab.inbound(following.seal(ipv4(*IN)))  # confirmed, and as unusable as before
    assert len(lab.delivered()) == 2
    assert lab.sent() == []
    fresh = lab.complete()
    assert len(fresh.open(lab.sent()[0])[1]) == 64


# -- limits of time --------------------------------------------------------------------------------


@pytest.mark.parametrize("initiator", [True, False])
def test_nothing_is_sent_after_180_seconds(lab: Lab, initiator: bool) -> None:
    lab.established(initiator=initiator)
    lab.clock.advance(180 * SECOND - 1)
    lab.outbound(ipv4(*OUT))
    assert len(lab.sent()) == 1
    lab.engine.send_staged(A)  # resets the report, whatever was reported above
    lab.engine.drain_events()
    lab.clock.advance(1)
    lab.outbound(ipv4(*OUT))
    lab.engine.send_keepalive(A)
    assert lab.sent() == []
    assert wanted(lab) == [NeedsHandshake(A)]


def test_the_initiator_renews_after_120_seconds_of_sending(lab: Lab) -> None:
    lab.established()
    lab.clock.advance(120 * SECOND - 1)
    lab.outbound(ipv4(*OUT))
    assert wanted(lab) == []
    lab.clock.advance(1)
    lab.outbound(ipv4(*OUT), ipv4(*OUT))
    assert wanted(lab) == [NeedsHandshake(A)]
    assert len(lab.sent()) == 3  # and still sends
    lab.outbound(ipv4(*OUT))
    assert wanted(lab) == []
    lab.install()
    lab.outbound(ipv4(*OUT))
    assert wanted(lab) == []
    lab.advance(120)
    lab.outbound(ipv4(*OUT))
    assert wanted(lab) == [NeedsHandshake(A)]


def test_a_keepalive_renews_too(lab: Lab) -> None:
    lab.established()
    lab.advance(120)
    lab.engine.send_keepalive(A)
    assert wanted(lab) == [NeedsHandshake(A)]


def test_the_responder_does_not_renew_by_time(lab: Lab) -> None:
    far = lab.established(initiator=False)
    lab.clock.advance(180 * SECOND - 1)
    lab.outbound(ipv4(*OUT))
    lab.inbound(far.seal(ipv4(*IN)))
    assert len(lab.sent()) == 1
    assert wanted(lab) == []


def test_the_initiator_renews_after_165_seconds_of_receiving(lab: Lab) -> None:
    far = lab.established()
    lab.clock.advance(165 * SECOND - 1)
    lab.inbound(far.seal(ipv4(*IN)))
    assert wanted(lab) == []
    lab.clock.advance(1)
    lab.inbound(far.seal(ipv4(*IN)))
    assert wanted(lab) == [NeedsHandshake(A)]
    lab.engine.send_staged(A)  # may be reported again ...
    lab.inbound(far.seal(ipv4(*IN)))
    assert wanted(lab) == []  # ... but receiving asks once per keypair


def test_it_is_the_current_keypair_that_counts_on_receive(lab: Lab) -> None:
    older = lab.established()
    lab.advance(100)
    newer = lab.established()
    lab.advance(70)
    lab.inbound(older.seal(ipv4(*IN)))
    lab.inbound(newer.seal(ipv4(*IN)))
    assert len(lab.delivered()) == 2
    assert wanted(lab) == []


# -- limits of numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("initiator", [True, False])
def test_both_ends_renew_after_2_to_the_60_messages(lab: Lab, initiator: bool) -> None:
    lab.established(initiator=initiator)
    lab.set_send_counter(A, 2**60 - 1)
    lab.outbound(ipv4(*OUT))  # 2^60 messages are sent
    assert wanted(lab) == []
    lab.outbound(ipv4(*OUT))
    assert wanted(lab) == [NeedsHandshake(A)]
    assert len(lab.sent()) == 2


def test_nothing_is_sent_at_the_limit_of_messages(lab: Lab) -> None:
    far = lab.established()
    lab.set_send_counter(A, 2**64 - 2**13 - 2)
    lab.outbound(ipv4(*OUT), ipv4(*OUT))
    (last,) = lab.sent()
    assert far.open(last)[0] == 2**64 - 2**13 - 2
    assert wanted(lab) == [NeedsHandshake(A)]
    fresh = lab.complete()
    assert len(lab.sent()) == 1
    lab.outbound(ipv4(*OUT))
    assert fresh.open(lab.sent()[0])[0] == 1


def test_staged_packets_that_do_not_fit_below_the_limit_stay(lab: Lab) -> None:
    packets = [ipv4(*OUT, size=64) for _ in range(3)]
    lab.established()
    lab.set_send_counter(A, 2**64 - 2**13 - 2)
    lab.outbound(*packets)
    assert len(lab.sent()) == 1
    fresh = lab.complete()
    assert [fresh.open(datagram)[1] for datagram in lab.sent()] == packets[1:]
