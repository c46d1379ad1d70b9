"""Failures: counted by reason, bounded, the latest first, each with words for people."""

import base64

import pytest

from wgd.diagnosis import IN_WORDS, MAX_DETAIL_SIZE, Failure, FailureLog, FailureReason


def test_every_reason_has_words_that_are_one_plain_line() -> None:
    assert set(IN_WORDS) == set(FailureReason)
    assert len(set(IN_WORDS.values())) == len(IN_WORDS)
    for words in IN_WORDS.values():
        assert words.isprintable()
        assert not words.endswith(".")


def test_names_are_fit_for_metrics() -> None:
    assert all(reason.value.replace("_", "").isalnum() for reason in FailureReason)
    assert all(reason.value == reason.name.lower() for reason in FailureReason)


def test_failures_of_a_reason_add_up_and_the_last_detail_stays() -> None:
    log = FailureLog()
    log.note(FailureReason.NOT_ANSWERED, 10, "192.0.2.1:1")
    log.note(FailureReason.NOT_ANSWERED, 30, "192.0.2.2:1", count=4)
    assert log.failures() == (Failure(FailureReason.NOT_ANSWERED, 5, 30, "192.0.2.2:1"),)
    assert log.count(FailureReason.NOT_ANSWERED) == 5
    assert log.count(FailureReason.NO_ROUTE) == 0


def test_the_latest_comes_first_among_those_of_others_too() -> None:
    log = FailureLog()
    log.note(FailureReason.NO_ENDPOINT, 10)
    log.note(FailureReason.WEAK_KEY, 30)
    other = Failure(FailureReason.PACKET_REPLAYED, 1, 20)
    reasons = [failure.reason for failure in log.failures(other)]
    assert reasons == [
        FailureReason.WEAK_KEY,
        FailureReason.PACKET_REPLAYED,
        FailureReason.NO_ENDPOINT,
    ]


def test_a_reason_that_both_planes_know_is_told_once() -> None:
    log = FailureLog()
    log.note(FailureReason.NO_ENDPOINT, 10, "a detail")
    log.note(FailureReason.NO_ENDPOINT, 10, "a detail")
    other = Failure(FailureReason.NO_ENDPOINT, 3, 20)
    assert log.failures(other) == (Failure(FailureReason.NO_ENDPOINT, 5, 20, "a detail"),)
    assert log.failures() == (Failure(FailureReason.NO_ENDPOINT, 2, 10, "a detail"),)


def test_what_a_stranger_sends_does_not_make_it_grow() -> None:
    log = FailureLog()
    for number in range(1000):
        detail = base64.b64encode(number.to_bytes(1000, "big")).decode()
        log.note(FailureReason.UNKNOWN_PEER, number, detail)
    (failure,) = log.failures()
    assert failure.count == 1000
    assert len(failure.detail) == MAX_DETAIL_SIZE


def test_a_failure_cannot_be_changed() -> None:
    failure = Failure(FailureReason.NO_ROUTE, 1, 2)
    with pytest.raises(AttributeError):
        failure.count = 2  # type: ignore[misc]
