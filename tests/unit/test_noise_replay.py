"""The replay window takes every counter once, remembers 8128, and stops at the limit."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from wgd.noise.replay import ReplayWindow

LIMIT = 2**64 - 2**13 - 1


class Model:
    """All counters ever seen, in a set."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.greatest = -1

    def accept(self, counter: int) -> bool:
        if counter >= LIMIT or counter in self.seen or self.greatest - counter > 8128:
            return False
        self.seen.add(counter)
        self.greatest = max(self.greatest, counter)
        return True


# Steps around everything that could matter: bytes, the ring's length, the window's, wrap-arounds.
STEPS = st.one_of(
    st.integers(-20, 20),
    st.integers(-8200, 8200),
    st.sampled_from([-8129, -8128, -8127, 8127, 8128, 8129, 8184, 8191, 8192, 8193, 16384, 2**40]),
)


@given(st.sampled_from([0, 7, 8000, 2**32 - 3, LIMIT - 20_000]), st.lists(STEPS, max_size=200))
def test_against_a_model(start: int, steps: list[int]) -> None:
    window, model = ReplayWindow(), Model()
    counter = start
    for step in [0, *steps]:
        counter = min(max(0, counter + step), 2**64 - 1)
        assert window.accept(counter) == model.accept(counter), counter


@given(st.lists(st.integers(0, 20_000), max_size=300))
def test_against_a_model_with_any_order(counters: list[int]) -> None:
    window, model = ReplayWindow(), Model()
    for counter in counters:
        assert window.accept(counter) == model.accept(counter), counter


def test_in_order_each_once() -> None:
    window = ReplayWindow()
    assert all(window.accept(counter) for counter in range(20_000))
    assert not any(window.accept(counter) for counter in range(20_000))


def test_backwards_through_the_whole_window() -> None:
    window = ReplayWindow()
    assert window.accept(50_000)
    assert all(window.accept(50_000 - behind) for behind in range(1, 8129))
    assert not any(window.accept(50_000 - behind) for behind in range(8129, 20_000))
    assert not any(window.accept(50_000 - behind) for behind in range(8129))


def test_the_edge_is_8128_behind_wherever_it_falls() -> None:
    for greatest in range(10_000, 10_070):
        window = ReplayWindow()
        assert window.accept(greatest)
        assert not window.accept(greatest - 8129)
        assert window.accept(greatest - 8128)
        assert not window.accept(greatest - 8128)


def test_what_was_seen_stays_seen_after_moving_on() -> None:
    for ahead in range(1, 8129, 61):
        window = ReplayWindow()
        assert window.accept(9_000)
        assert window.accept(9_000 + ahead)
        assert not window.accept(9_000)
        assert window.accept(8_999 + ahead) == (ahead > 1)


def test_big_jumps_forget_everything_older() -> None:
    window = ReplayWindow()
    jumps = [0, 8191, 8192 * 2, 8192 * 3 + 1, 2**20, 2**32, 2**50, 2**60, LIMIT - 1]
    for last, counter in pairwise(jumps):
        assert window.accept(last) == (last == 0)
        assert window.accept(counter)
        assert not window.accept(counter)
        assert window.accept(counter - 8128) == (counter - 8128 > last)


def test_everything_a_jump_passes_over_is_new() -> None:
    for ahead in (2, 9, 15, 16, 17, 100, 8127, 8128, 8191, 8192, 8193, 9000):
        window = ReplayWindow()
        assert all(window.accept(counter) for counter in range(9_003))
        top = 9_002 + ahead
        assert window.accept(top)
        for counter in range(top - 8128, top):
            assert window.accept(counter) == (counter > 9_002), (ahead, counter)


def test_the_limit() -> None:
    window = ReplayWindow()
    assert LIMIT == 18446744073709543423
    for refused in (LIMIT, LIMIT + 1, 2**64 - 1):
        assert not window.accept(refused)
    # They did not move the window either.
    assert window.accept(0)
    assert window.accept(LIMIT - 1)
    assert not window.accept(LIMIT)
