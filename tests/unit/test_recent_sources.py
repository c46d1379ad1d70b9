"""Who has sent lately is known, of no more than some, and not for ever."""

from wgd.dataplane.recent_sources import RecentSources

SECOND = 1_000_000_000
MINUTE = 60 * SECOND


def test_who_sends_is_known_for_one_to_two_minutes() -> None:
    recent = RecentSources(0)
    assert recent.was_quiet(b"one", 0)
    assert recent.was_quiet(b"other", 59 * SECOND)
    assert not recent.was_quiet(b"one", MINUTE - 1)
    assert not recent.was_quiet(b"other", 2 * MINUTE - 1)
    assert recent.was_quiet(b"one", 2 * MINUTE)
    assert recent.was_quiet(b"one", 5 * MINUTE)


def test_of_many_the_latest_are_known() -> None:
    recent = RecentSources(0, most=100)
    sources = [bytes([number]) for number in range(250)]
    assert all(recent.was_quiet(source, 0) for source in sources)
    assert len(recent._current) + len(recent._former) <= 200
    assert not any(recent.was_quiet(source, 0) for source in sources[-100:])
    assert recent.was_quiet(sources[0], 0)
