"""What is read from the output of iperf3 and ping."""

import json

import pytest
from iperf3 import Transfer
from pings import RoundTrips, percentile
from processes import BenchmarkError


def end(**sums: dict[str, float]) -> str:
    return json.dumps({"start": {}, "intervals": [], "end": sums})


def test_a_transfer_is_what_the_receiver_counted() -> None:
    output = end(sum_sent={"bytes": 900, "seconds": 3.0}, sum_received={"bytes": 800, "seconds": 4})
    assert Transfer.from_json(output) == Transfer(800, 4.0, 900, 3.0)


def test_both_ways_are_added_up() -> None:
    one = {"bytes": 100, "seconds": 2.0}
    other = {"bytes": 30, "seconds": 2.0}
    output = end(
        sum_sent=one,
        sum_received=one,
        sum_sent_bidir_reverse=other,
        sum_received_bidir_reverse=other,
    )
    assert Transfer.from_json(output) == Transfer(130, 2.0, 130, 2.0)


def test_a_warning_before_the_figures_is_passed_over() -> None:
    sums = {"bytes": 8, "seconds": 1.0}
    output = "warning: UDP block size 1392 exceeds TCP MSS 1368\n"
    output += end(sum_sent=sums, sum_received=sums)
    assert Transfer.from_json(output).received_bytes == 8


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "cannot be read"),
        ("iperf3: out of luck", "cannot be read"),
        ('{"end": ', "cannot be read"),
        ('{"end": {}}', "cannot be read"),
        ('{"end": {"sum_sent": 1, "sum_received": 2}}', "cannot be read"),
        ('{"end": {}, "error": "control socket has closed"}', "control socket has closed"),
        (
            end(sum_sent={"bytes": 9, "seconds": 1}, sum_received={"bytes": 0, "seconds": 1}),
            "got nothing",
        ),
        (
            end(sum_sent={"bytes": 9, "seconds": 0}, sum_received={"bytes": 9, "seconds": 1}),
            "got nothing",
        ),
    ],
)
def test_a_transfer_that_went_wrong_says_why(output: str, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        Transfer.from_json(output)


def test_round_trips_are_read_from_the_answers() -> None:
    output = (
        "PING 10.99.0.2 (10.99.0.2) 56(84) bytes of data.\n"
        "64 bytes from 10.99.0.2: icmp_seq=1 ttl=64 time=0.250 ms\n"
        "64 bytes from 10.99.0.2: icmp_seq=2 ttl=64 time=12 ms\n"
        "64 bytes from 10.99.0.2: icmp_seq=4 ttl=64 time=1.50 ms\n"
        "\n--- 10.99.0.2 ping statistics ---\n"
        "4 packets transmitted, 3 received, 25% packet loss, time 31ms\n"
        "rtt min/avg/max/mdev = 0.250/4.583/12.000/5.268 ms\n"
    )
    assert RoundTrips.from_output(output) == RoundTrips(1.5, 12.0, sent=4, answered=3)


@pytest.mark.parametrize("output", ["", "9 packets transmitted, 0 received, 100% packet loss\n"])
def test_no_answer_is_an_error(output: str) -> None:
    with pytest.raises(BenchmarkError, match="no answer"):
        RoundTrips.from_output(output)


def test_percentiles_are_values_of_the_list() -> None:
    hundred = [float(value) for value in range(100, 0, -1)]
    assert percentile(hundred, 99) == 99
    assert percentile(hundred, 100) == 100
    assert percentile(hundred[:50], 99) == 100
    assert percentile([7.0], 99) == 7
    assert percentile([7.0], 0) == 7
