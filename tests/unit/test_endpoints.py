"""The places where one peer may be, as values: what comes next, when a name is looked up."""

import errno

import pytest

from wgd.addresses import Endpoint, Source
from wgd.core.endpoints import MAX_FOUND, Endpoints, parse_host
from wgd.errors import ConfigurationError

SECOND = 1_000_000_000
PORT = 51820
FOUR_A, FOUR_B, FOUR_C = (Endpoint(f"192.0.2.{n}", PORT) for n in (1, 2, 3))
SIX_A, SIX_B = (Endpoint(f"2001:db8::{n}", PORT) for n in (1, 2))
ROAMED = Endpoint("198.51.100.7", 4500)


def named(*found: Endpoint, configured: Endpoint | None = None) -> Endpoints:
    places = Endpoints()
    places.configure(configured, "vpn.example:51820")
    assert places.take_lookup(0) == ("vpn.example", PORT)
    places.found(found)
    return places


def tour(places: Endpoints, start: Endpoint, steps: int) -> list[Endpoint]:
    visited = [start]
    for _ in range(steps):
        visited.append(places.next_after(visited[-1]))
    return visited[1:]


def test_a_peer_with_one_place_stays_there() -> None:
    places = Endpoints()
    places.configure(FOUR_A, None)
    assert places.next_after(FOUR_A) == FOUR_A
    assert str(places) == "192.0.2.1:51820"
    assert places.take_lookup(0) is None


def test_a_peer_that_was_never_configured_is_looked_for_where_it_was() -> None:
    places = Endpoints()
    assert str(places) == ""
    assert places.next_after(ROAMED) == ROAMED
    assert places.give_up() is None


def test_the_configured_place_comes_after_the_one_it_roamed_to_and_then_that_again() -> None:
    places = Endpoints()
    places.configure(FOUR_A, None)
    assert tour(places, ROAMED, 4) == [FOUR_A, ROAMED, FOUR_A, ROAMED]


def test_a_pinned_source_makes_no_difference() -> None:
    places = Endpoints()
    places.configure(FOUR_A, None)
    pinned = FOUR_A._replace(source=Source("192.0.2.99", 1))
    assert places.next_after(pinned) == FOUR_A


def test_all_addresses_of_a_name_in_turns_of_ipv4_and_ipv6() -> None:
    places = named(SIX_A, SIX_B, FOUR_A, FOUR_B, FOUR_C, FOUR_A)
    expected = [SIX_A, FOUR_A, SIX_B, FOUR_B, FOUR_C]
    assert tour(places, ROAMED, 6) == [*expected, ROAMED]
    assert tour(places, SIX_A, 5) == [*expected[1:], ROAMED]


def test_what_it_roamed_to_is_forgotten_when_it_is_heard_elsewhere() -> None:
    places = named(FOUR_A, FOUR_B, configured=FOUR_A)
    assert places.next_after(ROAMED) == FOUR_A
    places.heard()
    assert tour(places, FOUR_A, 2) == [FOUR_B, FOUR_A]


def test_after_giving_up_it_begins_where_it_was_configured() -> None:
    places = named(FOUR_A, FOUR_B, configured=FOUR_A)
    assert tour(places, ROAMED, 2) == [FOUR_A, FOUR_B]
    assert places.give_up() == FOUR_A
    assert tour(places, FOUR_A, 2) == [FOUR_B, FOUR_A]


def test_a_name_that_still_stands_for_what_was_configured_changes_nothing() -> None:
    places = named(configured=FOUR_A)
    for answer in ([FOUR_A], [FOUR_A, SIX_A], [SIX_A, FOUR_A]):
        assert places.found(answer) is None
        assert places.configured == FOUR_A


def test_a_name_that_stands_for_something_else_is_a_move() -> None:
    places = named(FOUR_A, configured=FOUR_A)
    assert places.found([FOUR_B, FOUR_C]) == FOUR_B
    assert places.configured == FOUR_B
    assert str(places) == "vpn.example:51820"
    assert tour(places, FOUR_B, 3) == [FOUR_C, FOUR_A, FOUR_B]


def test_what_was_set_is_tried_last_however_often_the_name_moves() -> None:
    places = named(FOUR_A, configured=FOUR_A)
    assert places.found([FOUR_B]) == FOUR_B
    assert places.found([FOUR_C]) == FOUR_C
    places.found([])
    assert tour(places, FOUR_C, 2) == [FOUR_A, FOUR_C]
    places.configure(FOUR_B, None)
    assert tour(places, FOUR_B, 1) == [FOUR_B], "it was set anew"


def test_a_name_that_is_not_found_leaves_what_there_was() -> None:
    places = named(FOUR_A, configured=FOUR_A)
    assert places.found([]) is None
    assert places.configured == FOUR_A


def test_a_name_server_cannot_fill_the_memory() -> None:
    many = [Endpoint(f"192.0.2.{n}", PORT) for n in range(250)]
    places = named(*many)
    assert set(tour(places, many[0], 300)) == set(many[:MAX_FOUND])


def test_many_addresses_of_one_family_leave_room_for_the_other() -> None:
    many = [Endpoint(f"2001:db8::{n:x}", PORT) for n in range(1, MAX_FOUND + 1)]
    places = named(*many, FOUR_A)
    assert places.next_after(many[0]) == FOUR_A


def test_a_name_is_looked_up_once_and_again_after_thirty_seconds() -> None:
    places = Endpoints()
    places.configure(FOUR_A, "vpn.example:51820")
    assert places.take_lookup(5 * SECOND) == ("vpn.example", PORT)
    assert places.waits_for("vpn.example", PORT)
    assert not places.waits_for("vpn.example", 1)
    assert places.take_lookup(100 * SECOND) is None, "it is under way"
    places.found([FOUR_A])
    assert not places.waits_for("vpn.example", PORT)
    assert places.take_lookup(35 * SECOND - 1) is None
    assert places.take_lookup(35 * SECOND) == ("vpn.example", PORT)


def test_a_change_of_network_shortens_the_wait_to_five_seconds() -> None:
    places = named(FOUR_A)
    places.allow_lookup(2 * SECOND)
    assert places.take_lookup(5 * SECOND - 1) is None
    assert places.take_lookup(5 * SECOND) is not None
    places.found([FOUR_A])
    places.allow_lookup(20 * SECOND)
    assert places.take_lookup(20 * SECOND) is not None


def test_many_changes_of_network_do_not_shorten_it_further() -> None:
    places = named(FOUR_A)
    for second in (1, 2, 3, 4):
        places.allow_lookup(second * SECOND)
        assert places.take_lookup(second * SECOND) is None
    assert places.take_lookup(5 * SECOND) is not None


def test_an_endpoint_without_a_name_forgets_the_name() -> None:
    places = named(FOUR_A, FOUR_B, configured=FOUR_A)
    places.configure(FOUR_C, None)
    assert (places.host, places.configured) == (None, FOUR_C)
    assert places.take_lookup(10**18) is None
    assert places.next_after(FOUR_C) == FOUR_C


def test_another_name_is_looked_up_at_once_and_the_same_one_is_not() -> None:
    places = named(FOUR_A, configured=FOUR_A)
    places.configure(None, "vpn.example:51820")
    assert places.take_lookup(SECOND) is None
    places.configure(None, "other.example:7")
    assert places.configured == FOUR_A
    assert places.take_lookup(SECOND) == ("other.example", 7)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("vpn.example.org:51820", "vpn.example.org", 51820),
        ("a:1", "a", 1),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535),
        ("[fe80::1%eth0]:7", "fe80::1%eth0", 7),
    ],
)
def test_hosts(text: str, host: str, port: int) -> None:
    assert parse_host(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "vpn",
            ":1",
            "[]:1",
            "vpn:",
            "vpn:0",
            "vpn:65536",
            "vpn:+1",
            "vpn:1 ",
            "vpn:\u0661",
            "a b:1",
        ),
        *("vpn\n:1", "vpn\0:1", "x" * 256 + ":1", "vpn:99999999999999"),
    ],
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_host(text)
    assert refused.value.errno == errno.EINVAL
    assert "\n" not in str(refused.value)
