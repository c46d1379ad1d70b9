"""Timestamps are TAI64N, hide the exact time, and never go back."""

from hypothesis import given
from hypothesis import strategies as st

from wgd.noise import tai64n

NOW_NS = 1_700_000_000_123_456_789


def test_label_of_a_known_moment() -> None:
    # D. J. Bernstein's example: 1992-06-02 08:07:09 TAI is 4000000000000000 + 2a2b2c2d (hex);
    # Unix time is ten seconds behind it, as everybody counts.
    assert tai64n.label((0x2A2B2C2D - 10) * 1_000_000_000 + 7).hex() == "400000002a2b2c2d00000007"
    assert tai64n.label(0).hex() == "400000000000000a00000000"


@given(st.integers(0, 2**63))
def test_whitening_takes_less_than_20_ms_and_only_of_the_nanoseconds(wall_ns: int) -> None:
    whitened = tai64n.whiten(wall_ns)
    assert 0 <= wall_ns - whitened < 20_000_000
    assert whitened // 1_000_000_000 == wall_ns // 1_000_000_000
    assert whitened % 1_000_000_000 % 16_777_216 == 0


@given(st.lists(st.integers(-3_000_000_000, 3_000_000_000), min_size=2))
def test_timestamps_increase_whatever_the_wall_clock_does(steps: list[int]) -> None:
    last: int | None = None
    wall_ns = NOW_NS
    for step in steps:
        wall_ns += step
        timestamp = tai64n.after(wall_ns, last)
        assert timestamp >= tai64n.whiten(wall_ns)
        assert timestamp % 1_000_000_000 % 16_777_216 == 0
        if last is not None:
            assert timestamp > last
            assert tai64n.label(timestamp) > tai64n.label(last)
        last = timestamp


def test_a_clock_set_back_costs_one_unit_per_timestamp() -> None:
    first = tai64n.after(NOW_NS, None)
    assert tai64n.after(NOW_NS - 10**15, first) == first + 16_777_216
    # The last unit of a second is a short one.
    assert tai64n.after(0, 59 * 16_777_216) == 1_000_000_000


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_labels_sort_as_times_do(one: int, other: int) -> None:
    assert (one < other) == (tai64n.label(one) < tai64n.label(other))
