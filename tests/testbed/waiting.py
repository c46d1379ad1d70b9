"""Waiting for what other processes do: bounded polls, the only sleeps of these tests."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.02


def wait_until(predicate: Callable[[], T], timeout_seconds: float = 5.0, *, what: str) -> T:
    """Return the first true value of `predicate`; raise AssertionError after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        if value := predicate():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_seconds} s: {what}")
        time.sleep(_POLL_SECONDS)


def stays_true(predicate: Callable[[], object], seconds: float, *, what: str) -> None:
    """Raise AssertionError if `predicate` turns false within the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not predicate():
            raise AssertionError(f"did not last {seconds} s: {what}")
        time.sleep(_POLL_SECONDS)
