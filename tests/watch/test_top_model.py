"""What `top` makes of one status after another: rates, order, notes and lines of text."""

import dataclasses

import pytest

from tests.watch.statuses import NOW_NS, SECOND_NS, device, key, peer
from wgd.ctl.top.cells import (
    BARS,
    Layout,
    age,
    cut_middle,
    details,
    device_line,
    size,
    sparkline,
)
from wgd.ctl.top.model import HISTORY, RECENT_NS, Model, Row, Sort
from wgd.diagnosis import IN_WORDS, Failure, FailureReason
from wgd.status import DeviceStatus, PeerStatus

ESCAPES = "\x1b[31m\x1b]0;title\x07\r\n\t\x9b2J"


def later(status: DeviceStatus, seconds: float, *peers: PeerStatus) -> DeviceStatus:
    now_ns = status.now_ns + int(seconds * SECOND_NS)
    return dataclasses.replace(status, now_ns=now_ns, peers=peers)


def rows_of(*statuses: DeviceStatus, sort: Sort = Sort.PEER, text: str = "") -> list[Row]:
    model = Model()
    for status in statuses:
        model.update([status])
    return model.rows(sort, text=text)


def test_rates_are_bytes_by_the_time_the_daemon_says() -> None:
    first = device(peer(1, received_bytes=1000, sent_bytes=50))
    second = later(first, 2.5, peer(1, received_bytes=6000, sent_bytes=50))
    (row,) = rows_of(first, second)
    assert row.received_rate == 2000
    assert row.sent_rate == 0
    assert row.history == (2000,)


def test_counters_that_start_anew_are_no_negative_rate() -> None:
    first = device(peer(1, received_bytes=1000))
    (row,) = rows_of(first, later(first, 1, peer(1, received_bytes=10)))
    assert row.received_rate == 0


def test_the_same_look_again_changes_nothing() -> None:
    first = device(peer(1, received_bytes=0))
    second = later(first, 1, peer(1, received_bytes=500))
    assert rows_of(first, second, second)[0].received_rate == 500


def test_a_peer_that_was_away_is_new() -> None:
    first = device(peer(1, received_bytes=0))
    (row,) = rows_of(first, later(first, 1), later(first, 2, peer(1, received_bytes=10**9)))
    assert row.received_rate == 0
    assert row.history == ()


def test_the_history_is_bounded() -> None:
    model = Model()
    status = device(peer(1, received_bytes=0))
    for n in range(3 * HISTORY):
        model.update([later(status, n, peer(1, received_bytes=n * n))])
    (row,) = model.rows(Sort.PEER)
    assert len(row.history) == HISTORY
    assert row.history[-1] > row.history[0]


def test_a_peer_of_two_interfaces_is_two_rows() -> None:
    model = Model()
    one, two = device(peer(1)), dataclasses.replace(device(peer(1)), interface="wg8")
    model.update([one, two])
    assert {row.interface for row in model.rows(Sort.PEER)} == {"wg7", "wg8"}
    assert [row.interface for row in model.rows(Sort.PEER, interface="wg8")] == ["wg8"]


def test_orders() -> None:
    failure = Failure(FailureReason.NOT_ANSWERED, 1, NOW_NS)
    first = device(
        peer(1, received_bytes=0, sent_bytes=0, endpoint=""),
        peer(2, received_bytes=0, sent_bytes=0, last_handshake_ns=NOW_NS),
        peer(3, received_bytes=0, sent_bytes=0, failures=(failure,), last_handshake_ns=0),
    )
    second = later(
        first,
        1,
        dataclasses.replace(first.peers[0], received_bytes=10, sent_bytes=30),
        dataclasses.replace(first.peers[1], received_bytes=30, sent_bytes=20),
        dataclasses.replace(first.peers[2], received_bytes=20, sent_bytes=10),
    )

    def order(sort: Sort) -> list[int]:
        numbers = {key(n): n for n in (1, 2, 3)}
        return [numbers[row.peer.public_key] for row in rows_of(first, second, sort=sort)]

    assert order(Sort.RECEIVED) == [2, 3, 1]
    assert order(Sort.SENT) == [1, 2, 3]
    assert order(Sort.HANDSHAKE) == [2, 1, 3]
    assert order(Sort.ENDPOINT) == [2, 3, 1]
    assert order(Sort.NOTE)[0] == 3
    assert order(Sort.PEER) == sorted((1, 2, 3), key=key)


@pytest.mark.parametrize(
    ("text", "found"),
    [(key(2)[:10].lower(), {2}), ("192.0.2.", {2, 3}), ("10.9.", {1}), ("answered", {3})],
)
def test_filter_looks_at_key_endpoint_addresses_and_note(text: str, found: set[int]) -> None:
    failure = Failure(FailureReason.NOT_ANSWERED, 1, NOW_NS)
    status = device(
        peer(1, allowed_ips=("10.9.0.0/16",), endpoint="[2001:db8::1]:1"),
        peer(2),
        peer(3, failures=(failure,)),
    )
    assert {row.peer.public_key for row in rows_of(status, text=text)} == {key(n) for n in found}


def test_what_stops_packets_now_is_the_note_before_what_failed() -> None:
    failure = Failure(FailureReason.PACKET_REPLAYED, 1, NOW_NS)
    old = Failure(FailureReason.PACKET_REPLAYED, 1, NOW_NS - RECENT_NS - 1)

    def note(**values: object) -> str:
        return rows_of(device(peer(1, **values)))[0].note()

    assert note() == ""
    assert note(failures=(failure,)) == "packet replayed"
    assert note(failures=(old,)) == ""
    assert note(failures=(failure,), unanswered_initiations=3) == "unanswered 3"
    assert note(staged_packets=7) == "waiting 7"
    assert note(last_handshake_ns=0) == "no handshake"


# -- text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [54, 60, 79, 80, 100, 132, 200])
@pytest.mark.parametrize("interfaces", [["wg7"], ["wg7", "a-long-name-wg8"]])
def test_a_line_is_as_wide_as_its_heading_and_fits(width: int, interfaces: list[str]) -> None:
    layout = Layout.of(width, interfaces)
    status = device(
        peer(1, endpoint="[2001:db8:1234:5678:9abc:def0:1234:5678%12]:51820", staged_packets=10**9)
    )
    busy = later(status, 1, dataclasses.replace(status.peers[0], received_bytes=10**15))
    heading = layout.heading(Sort.RECEIVED, is_reversed=False)
    (row,) = rows_of(status, busy)
    assert len(layout.line(row)) == len(heading)
    assert len(heading) <= width
    if width >= 79 and len(interfaces) == 1:
        for column in Sort:
            assert column.value in heading


def test_nothing_a_daemon_says_reaches_the_terminal_as_more_than_text() -> None:
    failure = Failure(FailureReason.SEND_FAILED, 2, NOW_NS, ESCAPES)
    status = device(
        peer(
            1,
            endpoint=ESCAPES,
            configured_endpoint=f"x{ESCAPES}",
            allowed_ips=(ESCAPES,),
            failures=(failure,),
        ),
        interface=f"wg{ESCAPES}",
        dataplane=ESCAPES,
    )
    (row,) = rows_of(status)
    layout = Layout.of(120, ["a", "b"])
    for line in [layout.line(row), *details(row), device_line(status, 0, 0)]:
        assert line.isprintable()


def test_details_say_the_last_failure_in_words() -> None:
    newest = Failure(FailureReason.NOT_ANSWERED, 12, NOW_NS - 30 * SECOND_NS, "192.0.2.9:5")
    older = Failure(FailureReason.SEND_FAILED, 1, NOW_NS - 90 * SECOND_NS)
    (row,) = rows_of(device(peer(1, failures=(newest, older))))
    text = "\n".join(details(row))
    assert key(1) in text
    assert IN_WORDS[FailureReason.NOT_ANSWERED] in text
    assert "192.0.2.9:5" in text
    assert "12 times, last 30s ago" in text


def test_sizes_fit_their_column() -> None:
    for power in range(50):
        for count in (2**power - 1, 2**power, 2**power * 1.999):
            assert len(size(count)) <= 8, size(count)
    assert size(1536) == "1.50 KiB"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (61, "1m"), (7200, "2h"), (200_000, "2d")]
)
def test_ages(seconds: int, text: str) -> None:
    assert age(NOW_NS, NOW_NS - seconds * SECOND_NS) == text


def test_an_age_when_clocks_differ() -> None:
    assert age(NOW_NS, NOW_NS + SECOND_NS) == "0s"
    assert age(NOW_NS, 0) == "never"


def test_a_sparkline_is_in_proportion_and_shows_the_last_values() -> None:
    line = sparkline((5000, 0, 1, 50, 100), 4)
    assert len(line) == 4
    assert line[0] == " "
    assert line[1] == BARS[0]
    assert line[3] == BARS[-1]
    assert BARS.index(line[2]) in (3, 4)
    assert sparkline((0, 0), 10) == ""
    assert sparkline((1,), 0) == ""


def test_a_long_endpoint_keeps_both_ends() -> None:
    text = cut_middle("[2001:db8:1234:5678::9]:51820", 15)
    assert len(text) == 15
    assert text.startswith("[2001:")
    assert text.endswith(":51820")
