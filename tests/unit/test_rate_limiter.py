"""The token bucket: 20 a second, burst 5, per IPv4 address and IPv6 /64, in a bounded table."""

from wgd.addresses import Endpoint
from wgd.core.rate_limiter import RateLimiter

MILLISECOND = 1_000_000
SOMEWHERE = Endpoint("192.0.2.1", 1000)


def allowed(limiter: RateLimiter, source: Endpoint, now_ns: int, tries: int) -> int:
    return sum(limiter.allow(source, now_ns) for _ in range(tries))


def test_a_burst_of_five_and_then_one_every_fifty_milliseconds() -> None:
    limiter = RateLimiter()
    start = 7_000 * MILLISECOND
    assert allowed(limiter, SOMEWHERE, start, 10) == 5
    assert not limiter.allow(SOMEWHERE, start + 49 * MILLISECOND)
    assert limiter.allow(SOMEWHERE, start + 50 * MILLISECOND)
    assert not limiter.allow(SOMEWHERE, start + 50 * MILLISECOND)


def test_a_steady_sender_gets_twenty_a_second() -> None:
    limiter = RateLimiter()
    granted = sum(limiter.allow(SOMEWHERE, tick * 10 * MILLISECOND) for tick in range(1, 1001))
    assert 200 <= granted <= 205  # ten seconds, plus the first burst


def test_ports_of_one_address_share_a_bucket_and_addresses_do_not() -> None:
    limiter = RateLimiter()
    assert allowed(limiter, SOMEWHERE, 1, 5) == 5
    assert not limiter.allow(SOMEWHERE._replace(port=2000), 1)
    assert limiter.allow(Endpoint("192.0.2.2", 1000), 1)


def test_an_ipv6_64_shares_a_bucket() -> None:
    limiter = RateLimiter()
    assert allowed(limiter, Endpoint("2001:db8:1:2::1", 1), 1, 5) == 5
    assert not limiter.allow(Endpoint("2001:db8:1:2:ffff::9", 1), 1)
    assert limiter.allow(Endpoint("2001:db8:1:3::1", 1), 1)


def test_the_table_is_bounded_and_forgets_idle_sources() -> None:
    limiter = RateLimiter()
    for number in range(65_536):
        assert limiter.allow(
            Endpoint(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1), 1
        )
    assert len(limiter) == 65_536
    assert not limiter.allow(SOMEWHERE, 1)
    assert len(limiter) == 65_536
    assert limiter.allow(Endpoint("10.0.0.5", 1), 1), "a source already known is still served"
    assert limiter.allow(SOMEWHERE, 1 + 250 * MILLISECOND)
    assert len(limiter) == 1
