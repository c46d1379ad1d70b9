"""Token buckets: 20 a second, burst 5, for each source in a bounded table, and one for all."""

from wgd.dataplane.rate_limiter import Rate, RateLimiter, TokenBucket

MILLISECOND = 1_000_000
SOMEWHERE = b"somewhere"
TWENTY = Rate(per_second=20, burst=5)


def allowed(limiter: RateLimiter[bytes], source: bytes, now_ns: int, tries: int) -> int:
    return sum(limiter.allow(source, now_ns) for _ in range(tries))


def test_a_burst_of_five_and_then_one_every_fifty_milliseconds() -> None:
    limiter: RateLimiter[bytes] = RateLimiter(TWENTY, 65_536)
    start = 7_000 * MILLISECOND
    assert allowed(limiter, SOMEWHERE, start, 10) == 5
    assert not limiter.allow(SOMEWHERE, start + 49 * MILLISECOND)
    assert limiter.allow(SOMEWHERE, start + 50 * MILLISECOND)
    assert not limiter.allow(SOMEWHERE, start + 50 * MILLISECOND)


def test_a_steady_sender_gets_twenty_a_second() -> None:
    limiter: RateLimiter[bytes] = RateLimiter(TWENTY, 65_536)
    granted = sum(limiter.allow(SOMEWHERE, tick * 10 * MILLISECOND) for tick in range(1, 1001))
    assert 200 <= granted <= 205  # ten seconds, plus the first burst


def test_sources_do_not_share_a_bucket() -> None:
    limiter: RateLimiter[bytes] = RateLimiter(TWENTY, 65_536)
    assert allowed(limiter, SOMEWHERE, 1, 6) == 5
    assert limiter.allow(b"elsewhere", 1)


def test_one_bucket_for_all() -> None:
    bucket = TokenBucket(TWENTY)
    for _ in range(5):
        assert bucket.has_token(1)
        bucket.take()
    assert not bucket.has_token(1 + 49 * MILLISECOND)
    assert bucket.has_token(1 + 50 * MILLISECOND)
    bucket.take()
    assert not bucket.has_token(1 + 99 * MILLISECOND)


def test_the_table_is_bounded_and_forgets_idle_sources() -> None:
    limiter: RateLimiter[bytes] = RateLimiter(TWENTY, 65_536)
    for number in range(65_536):
        assert limiter.allow(number.to_bytes(4, "big"), 1)
    assert len(limiter) == 65_536
    assert not limiter.allow(SOMEWHERE, 1)
    assert len(limiter) == 65_536
    assert limiter.allow(bytes([0, 0, 0, 5]), 1), "a source already known is still served"
    assert limiter.allow(SOMEWHERE, 1 + 250 * MILLISECOND)
    assert len(limiter) == 1
