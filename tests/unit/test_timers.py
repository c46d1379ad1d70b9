"""Each of the five timers, its deadline exact to the nanosecond."""

import pytest

from wgd.core import timers
from wgd.dataplane.interface import Stamps

SECOND = 1_000_000_000
QUIET = Stamps(0, 0, 0, 0)


def test_nothing_is_pending_before_anything_happened() -> None:
    assert timers.retransmit_handshake(None, 5) is None
    assert timers.send_keepalive(QUIET) is None
    assert timers.new_handshake(QUIET, 5) is None
    assert timers.zero_key_material(None) is None
    assert timers.persistent_keepalive(QUIET, 0, 7) is None


def test_retransmit_after_five_seconds_and_jitter() -> None:
    assert timers.retransmit_handshake(100 * SECOND, 0) == 105 * SECOND
    assert timers.retransmit_handshake(100 * SECOND, 333_000_000) == 105_333_000_000


def test_passive_keepalive_ten_seconds_after_the_first_unanswered_data() -> None:
    # The last packet sent and received are of no concern.
    stamps = Stamps(40 * SECOND, 49 * SECOND, 0, 42 * SECOND)
    assert timers.send_keepalive(stamps) == 52 * SECOND
    assert timers.send_keepalive(stamps._replace(first_data_received_unanswered_ns=0)) is None


def test_new_handshake_fifteen_seconds_and_jitter_after_the_first_unanswered_data() -> None:
    stamps = Stamps(49 * SECOND, 40 * SECOND, 42 * SECOND, 0)
    assert timers.new_handshake(stamps, 0) == 57 * SECOND
    assert timers.new_handshake(stamps, 1) == 57 * SECOND + 1


def test_keys_are_zeroed_after_nine_minutes() -> None:
    assert timers.zero_key_material(3) == 540 * SECOND + 3


@pytest.mark.parametrize(
    ("sent", "received", "enabled", "expected"),
    [(10, 20, 5, 45), (30, 20, 5, 55), (10, 20, 40, 65), (0, 0, 40, 65)],
)
def test_persistent_keepalive_counts_from_the_latest_traffic(
    sent: int, received: int, enabled: int, expected: int
) -> None:
    stamps = Stamps(sent * SECOND, received * SECOND, 0, 0)
    assert timers.persistent_keepalive(stamps, 25, enabled * SECOND) == expected * SECOND
