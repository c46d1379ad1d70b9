"""Pinned source addresses: answers leave from where the peer reached us, while that works."""

import errno

import pytest

from tests.dataplane.lab import A_ADDRESS, OUR_ADDRESS, PORT, A, FarEnd, Lab, ipv4
from wgd.addresses import Endpoint, Source
from wgd.net.memory import Transit

OUT = ipv4("10.9.9.9", "10.2.0.1")
SECOND_ADDRESS = "192.0.2.101"
PLAIN = Endpoint(A_ADDRESS, PORT)
PINNED = Endpoint(A_ADDRESS, PORT, 0, Source(SECOND_ADDRESS, 1))


@pytest.fixture
def far(lab: Lab) -> FarEnd:
    """A peer that reached us at our second address."""
    lab.host.addresses = (OUR_ADDRESS, SECOND_ADDRESS)
    session = lab.established()
    lab.at_a.send(session.seal(b""), Endpoint(SECOND_ADDRESS, PORT))
    lab.engine.receive_from_socket(lab.socket)
    assert lab.engine.endpoint(A) == PINNED
    return session


@pytest.fixture
def left_from(lab: Lab) -> list[str]:
    """The addresses that datagrams leave from."""
    addresses: list[str] = []

    def watch(transit: Transit) -> tuple[int, ...]:
        addresses.append(transit.source.host)
        return (0,)

    lab.network.fate = watch
    return addresses


def test_answers_leave_from_the_address_that_was_asked(
    lab: Lab, left_from: list[str], far: FarEnd
) -> None:
    left_from.clear()
    lab.outbound(OUT)
    lab.engine.send_to_peer(A, b"handshake")
    assert left_from == [SECOND_ADDRESS, SECOND_ADDRESS]


def test_a_source_that_is_gone_is_forgotten(lab: Lab, left_from: list[str], far: FarEnd) -> None:
    lab.host.addresses = (OUR_ADDRESS,)
    left_from.clear()
    lab.outbound(OUT)
    assert left_from == [OUR_ADDRESS]
    assert lab.engine.endpoint(A) == PLAIN
    assert len(lab.sent()) == 1


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH])
def test_a_source_is_kept_if_sending_without_it_fails_too(
    lab: Lab, far: FarEnd, number: int
) -> None:
    lab.socket.send_errors.extend([number, number])
    lab.outbound(OUT)
    assert lab.engine.endpoint(A) == PINNED
    assert lab.sent() == []
    assert lab.engine.drops.send_failed == 1
    lab.outbound(OUT)
    assert len(lab.sent()) == 1


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS, errno.EMSGSIZE])
def test_a_full_queue_does_not_cost_the_source(lab: Lab, far: FarEnd, number: int) -> None:
    lab.socket.send_errors.append(number)
    lab.outbound(OUT)
    assert lab.engine.endpoint(A) == PINNED
    assert lab.sent() == []


def test_control_can_clear_the_source(lab: Lab, far: FarEnd) -> None:
    lab.engine.clear_source(A)
    assert lab.engine.endpoint(A) == PLAIN
    lab.engine.clear_source(A)
    assert lab.engine.endpoint(A) == PLAIN


def test_new_sockets_forget_every_source(lab: Lab, far: FarEnd) -> None:
    lab.engine.attach_sockets([lab.socket])
    assert lab.engine.endpoint(A) == PLAIN
