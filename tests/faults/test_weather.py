"""What the weather does to datagrams, as a function of its seed."""

from tests.faults.weather import MILLISECOND_NS, Faults, Weather

DATAGRAMS = [bytes([number % 256]) * 100 for number in range(10_000)]


def test_without_faults_everything_arrives_at_once() -> None:
    weather = Weather(1)
    assert all(weather.copies(datagram) == [(0, datagram)] for datagram in DATAGRAMS)


def test_the_same_seed_does_the_same() -> None:
    faults = Faults(loss=0.1, duplication=0.1, reordering=0.1, corruption=0.1, jitter_ns=1000)
    one, same, other = (Weather(seed, faults) for seed in (1, 1, 2))
    done = [one.copies(datagram) for datagram in DATAGRAMS]
    assert done == [same.copies(datagram) for datagram in DATAGRAMS]
    assert done != [other.copies(datagram) for datagram in DATAGRAMS]


def test_each_fault_hits_its_share_and_is_counted() -> None:
    faults = Faults(loss=0.1, duplication=0.2, reordering=0.3, corruption=0.4)
    weather = Weather(1, faults)
    copies = [weather.copies(datagram) for datagram in DATAGRAMS]
    fates = weather.fates
    assert fates.seen == 10_000
    assert fates.lost == copies.count([]) and 900 < fates.lost < 1100
    twice = sum(len(each) == 2 for each in copies)
    assert fates.duplicated == twice and 1600 < twice < 2000
    arrived = [copy for each in copies for copy in each]
    late = sum(delay_ns > 0 for delay_ns, _ in arrived)
    assert fates.held_back == late and 0.27 < late / len(arrived) < 0.33
    sent = [datagram for datagram, each in zip(DATAGRAMS, copies, strict=True) for _ in each]
    changed = sum(copy != datagram for (_, copy), datagram in zip(arrived, sent, strict=True))
    assert changed <= fates.corrupted and 0.35 < changed / len(arrived) < 0.45


def test_a_black_hole_swallows_what_is_longer() -> None:
    weather = Weather(1, Faults(black_hole_above_bytes=1300))
    assert weather.copies(bytes(1300)) and not weather.copies(bytes(1301))
    assert weather.fates.swallowed == 1


def test_delay_and_jitter_stay_within_their_bounds() -> None:
    faults = Faults(delay_ns=20 * MILLISECOND_NS, jitter_ns=5 * MILLISECOND_NS)
    weather = Weather(1, faults)
    delays_ns = [delay_ns for datagram in DATAGRAMS for delay_ns, _ in weather.copies(datagram)]
    assert min(delays_ns) < 20.1 * MILLISECOND_NS and max(delays_ns) > 24.9 * MILLISECOND_NS
    assert min(delays_ns) >= 20 * MILLISECOND_NS and max(delays_ns) <= 25 * MILLISECOND_NS
