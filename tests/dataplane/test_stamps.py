"""The four stamps, and "became active": once, until disarmed."""

from collections.abc import Callable

import pytest

from tests.dataplane.lab import A_ADDRESS, PORT, A, B, FarEnd, Lab, ipv4
from wgd.addresses import Endpoint
from wgd.dataplane.interface import BecameActive, Event

OUT = ipv4("10.9.9.9", "10.2.0.1")
IN = ipv4("10.2.0.1", "10.9.9.9")


@pytest.fixture
def far(lab: Lab) -> FarEnd:
    return lab.established()


def active(lab: Lab) -> list[Event]:
    return [event for event in lab.engine.drain_events() if isinstance(event, BecameActive)]


def test_nothing_happened_yet(lab: Lab) -> None:
    assert lab.engine.stamps(A) == (0, 0, 0, 0)


def test_data_sent(lab: Lab, far: FarEnd) -> None:
    first = lab.clock.boot_ns()
    lab.outbound(OUT)
    assert lab.engine.stamps(A) == (first, 0, first, 0)
    lab.advance(3)
    second = lab.clock.boot_ns()
    lab.outbound(OUT)
    assert lab.engine.stamps(A) == (second, 0, first, 0)
    assert lab.engine.stamps(B) == (0, 0, 0, 0)


def test_data_received(lab: Lab, far: FarEnd) -> None:
    first = lab.clock.boot_ns()
    lab.inbound(far.seal(IN))
    assert lab.engine.stamps(A) == (0, first, 0, first)
    lab.advance(3)
    second = lab.clock.boot_ns()
    lab.inbound(far.seal(IN))
    assert lab.engine.stamps(A) == (0, second, 0, first)


def test_sending_anything_answers_what_was_received(lab: Lab, far: FarEnd) -> None:
    start = lab.clock.boot_ns()
    ways: tuple[Callable[[], object], ...] = (
        lambda: lab.outbound(OUT),
        lambda: lab.engine.send_keepalive(A),
        lambda: lab.engine.send_to_peer(A, b"handshake"),
    )
    for send in ways:
        lab.inbound(far.seal(IN))
        assert lab.engine.stamps(A).first_data_received_unanswered_ns == start
        send()
        assert lab.engine.stamps(A).first_data_received_unanswered_ns == 0
        assert lab.engine.stamps(A).last_sent_ns == start


def test_receiving_anything_answers_what_was_sent(lab: Lab, far: FarEnd) -> None:
    start = lab.clock.boot_ns()
    ways: tuple[Callable[[], object], ...] = (
        lambda: lab.inbound(far.seal(IN)),
        lambda: lab.inbound(far.seal(b"")),
        lambda: lab.engine.note_received(A, 92, Endpoint(A_ADDRESS, PORT)),
    )
    for receive in ways:
        lab.outbound(OUT)
        assert lab.engine.stamps(A).first_data_sent_unanswered_ns == start
        receive()
        assert lab.engine.stamps(A).first_data_sent_unanswered_ns == 0
        assert lab.engine.stamps(A).last_received_ns == start


def test_keepalives_and_handshakes_are_no_data(lab: Lab, far: FarEnd) -> None:
    now = lab.clock.boot_ns()
    lab.engine.send_keepalive(A)
    lab.engine.send_to_peer(A, b"handshake")
    lab.inbound(far.seal(b""))
    lab.engine.note_received(A, 92, Endpoint(A_ADDRESS, PORT))
    assert lab.engine.stamps(A) == (now, now, 0, 0)
    assert active(lab) == []


def test_a_staged_packet_was_not_sent(lab: Lab) -> None:
    lab.outbound(OUT)
    assert lab.engine.stamps(A) == (0, 0, 0, 0)
    lab.advance(1)
    lab.complete()
    now = lab.clock.boot_ns()
    assert lab.engine.stamps(A) == (now, 0, now, 0)


def test_a_keepalive_that_cannot_be_sent_still_answers(lab: Lab, far: FarEnd) -> None:
    lab.inbound(far.seal(IN))
    lab.engine.drop_keypairs(A)
    lab.engine.send_keepalive(A)
    assert lab.engine.stamps(A).first_data_received_unanswered_ns == 0
    assert lab.engine.stamps(A).last_sent_ns == 0


def test_a_handshake_message_is_stamped_even_if_it_was_not_sent(lab: Lab) -> None:
    lab.engine.attach_sockets([])
    assert lab.engine.send_to_peer(A, b"handshake") is False
    assert lab.engine.stamps(A).last_sent_ns == lab.clock.boot_ns()


def test_what_confirms_a_keypair_does_not_answer_what_it_releases(lab: Lab) -> None:
    lab.outbound(OUT)
    far = lab.install(initiator=False)
    lab.inbound(far.seal(IN))
    now = lab.clock.boot_ns()
    assert lab.engine.stamps(A) == (now, now, now, 0)


def test_the_control_plane_can_clear_data_sent(lab: Lab, far: FarEnd) -> None:
    lab.outbound(OUT)
    lab.engine.clear_data_sent_unanswered(A)
    assert lab.engine.stamps(A).first_data_sent_unanswered_ns == 0
    lab.advance(1)
    lab.outbound(OUT)
    assert lab.engine.stamps(A).first_data_sent_unanswered_ns == lab.clock.boot_ns()


# -- became active ---------------------------------------------------------------------------------


def test_active_is_reported_once(lab: Lab, far: FarEnd) -> None:
    lab.outbound(OUT, OUT)
    assert active(lab) == [BecameActive(A)]
    for _ in range(3):
        lab.inbound(far.seal(IN))
        lab.outbound(OUT)
        lab.advance(1)
    assert active(lab) == []


def test_receiving_makes_active_too(lab: Lab, far: FarEnd) -> None:
    lab.inbound(far.seal(IN))
    assert active(lab) == [BecameActive(A)]


def test_peers_become_active_apart(lab: Lab, far: FarEnd) -> None:
    lab.established(B)
    lab.outbound(OUT, ipv4("10.9.9.9", "10.1.0.1"))
    assert active(lab) == [BecameActive(A), BecameActive(B)]


def test_disarm_with_nothing_set_waits_for_the_next(lab: Lab, far: FarEnd) -> None:
    lab.outbound(OUT)
    lab.inbound(far.seal(b""))  # answered
    active(lab)
    lab.engine.disarm(A)
    assert active(lab) == []
    lab.engine.send_keepalive(A)
    assert active(lab) == []
    lab.outbound(OUT)
    assert active(lab) == [BecameActive(A)]


@pytest.mark.parametrize("direction", ["sent", "received"])
def test_disarm_with_a_stamp_set_reports_at_once(lab: Lab, far: FarEnd, direction: str) -> None:
    if direction == "sent":
        lab.outbound(OUT)
    else:
        lab.inbound(far.seal(IN))
    assert active(lab) == [BecameActive(A)]
    lab.engine.disarm(A)
    assert active(lab) == [BecameActive(A)]
    lab.outbound(OUT)
    lab.inbound(far.seal(IN))
    assert active(lab) == []


def test_disarm_before_anything_is_harmless(lab: Lab) -> None:
    lab.engine.disarm(A)
    lab.engine.disarm(A)
    assert lab.engine.drain_events() == []
