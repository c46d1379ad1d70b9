"""benchmarks/soak: what its verdict sees, and that a run of seconds works at all."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from soak_sampling import PingFollower, Reading, RoundTripTimes, Sample
from soak_verdict import Events, Line, check

from tests.testbed import require
from tests.testbed.engines import NATIVE, require_engine

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak"
NOTHING_WRONG = Events(
    pings_sent=36_000,
    pings_lost_unexcused=3,
    action_failures=0,
    broken_streams=1,
    excused_streams=2,
    expected_handshakes=27,
    tracebacks=0,
)


def hour() -> list[Sample]:
    """An hour of two daemons that are well, each 30 s: everything varies, nothing grows."""
    chance = random.Random(6)
    samples = []
    for number in range(120):
        reading = Reading(
            rss_kib=54_000 + chance.randrange(-300, 300),
            pss_kib=38_000,
            anonymous_kib=33_000 + chance.randrange(-300, 300),
            descriptors=29 + (number % 17 == 0),
            threads=5,
            cpu_seconds=number * 1.8,
        )
        pings = RoundTripTimes(100, chance.uniform(0.3, 0.5), chance.uniform(1, 9))
        outside = RoundTripTimes(100, 0.05, 0.1)
        samples.append(Sample(number * 30.0, reading, reading, pings, outside, number // 4))
    return samples


def failed(samples: list[Sample], events: Events = NOTHING_WRONG) -> list[str]:
    return [entry.name for entry in check(samples, 600, events) if not entry.holds]


def test_an_hour_without_growth_passes() -> None:
    assert failed(hour()) == []


def test_a_leak_of_two_mebibytes_an_hour_is_seen_through_the_noise() -> None:
    samples = [
        replace(
            sample, right=replace(sample.right, rss_kib=sample.right.rss_kib + number * 2048 // 120)
        )
        for number, sample in enumerate(hour())
    ]
    assert failed(samples) == ["right: growth of RSS"]


def test_another_implementation_is_shown_and_not_judged() -> None:
    samples = [
        replace(sample, right=replace(sample.right, rss_kib=number * 500))
        for number, sample in enumerate(hour())
    ]
    checks = check(samples, 600, NOTHING_WRONG, ["left"])
    assert all(entry.holds for entry in checks)
    assert {entry.allowed for entry in checks if "right" in entry.name} == {"not judged: not wgd"}


def test_what_grows_in_the_warm_up_only_is_no_leak() -> None:
    samples = [
        replace(sample, left=replace(sample.left, rss_kib=54_000 - max(0, 19 - number) * 1500))
        for number, sample in enumerate(hour())
    ]
    assert failed(samples) == []


def test_one_descriptor_that_is_never_closed_is_seen() -> None:
    samples = [
        replace(sample, left=replace(sample.left, descriptors=29 + (number > 80)))
        for number, sample in enumerate(hour())
    ]
    assert failed(samples) == ["left: descriptors"]


def test_slower_round_trips_are_seen_unless_the_machine_became_slower() -> None:
    slower = [
        replace(sample, tunnel=RoundTripTimes(100, 0.3 + number / 100, 5.0))
        for number, sample in enumerate(hour())
    ]
    assert failed(slower) == ["ping: median"]
    machine = [
        replace(sample, outside=RoundTripTimes(100, 0.05 + number / 300, 5.0))
        for number, sample in enumerate(slower)
    ]
    assert failed(machine) == []


def test_more_and_more_work_for_the_same_load_is_seen() -> None:
    samples = [
        replace(sample, left=replace(sample.left, cpu_seconds=number**2 / 50))
        for number, sample in enumerate(hour())
    ]
    assert failed(samples) == ["left: CPU"]


@pytest.mark.parametrize(
    ("events", "name"),
    [
        (replace(NOTHING_WRONG, pings_lost_unexcused=4), "pings lost, not beside a flap or a move"),
        (replace(NOTHING_WRONG, expected_handshakes=30), "handshakes between the ends"),
        (replace(NOTHING_WRONG, broken_streams=3), "streams that broke"),
        (replace(NOTHING_WRONG, action_failures=1), "requests and commands that failed"),
        (replace(NOTHING_WRONG, tracebacks=1), "tracebacks in the logs"),
    ],
)
def test_each_count_is_judged(events: Events, name: str) -> None:
    assert failed(hour(), events) == [name]


def test_a_theil_sen_line_does_not_mind_outliers() -> None:
    ys = [3.0 * x for x in range(50)]
    ys[7], ys[30] = 9000.0, -9000.0
    line = Line.through(list(range(50)), ys)
    assert line.slope == 3.0
    assert line.lowest <= 3.0 <= line.highest


class Running:
    """A ping that never ends."""

    def check_running(self) -> None:
        pass


def test_pings_are_read_as_they_come_and_late_answers_are_no_loss(tmp_path: Path) -> None:
    output = tmp_path / "pings.txt"
    output.write_text("PING 10.99.0.2 (10.99.0.2) 56(84) bytes of data.\n")
    follower = PingFollower(output, Running())  # type: ignore[arg-type]

    def took(text: str) -> RoundTripTimes:
        with output.open("a") as file:
            file.write(text)
        return follower.take()

    answer = "[{}] 64 bytes from 10.99.0.2: icmp_seq={} ttl=64 time={} ms\n"
    no_answer = "[{}] no answer yet for icmp_seq={}\n"
    assert took(answer.format(100.0, 65535, 1.5) + answer.format(100.1, 0, 2.5)[:30]) == (
        RoundTripTimes(1, 1.5, 1.5)
    )
    rest = answer.format(100.1, 0, 2.5)[30:]
    assert took(rest + no_answer.format(100.3, 1) + no_answer.format(100.4, 2)) == (
        RoundTripTimes(1, 2.5, 2.5)
    )
    assert took(answer.format(100.5, 1, 250)) == RoundTripTimes(1, 250, 250)
    assert took("ping: sendmsg: Network is unreachable\n") == RoundTripTimes(0, None, None)
    assert follower.lost_at() == [100.4]
    follower.close()


@pytest.mark.netns
def test_some_seconds_of_it(tmp_path: Path) -> None:
    require("iperf3")
    require_engine(NATIVE)
    report = tmp_path / "soak.json"
    completed = subprocess.run(
        [sys.executable, SOAK, "--minutes", "0.06", "--json", report],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    result = json.loads(report.read_text())
    assert len(result["samples"]) > 10
    assert result["samples"][-1]["left"]["rss_kib"] > 10_000
    # A crowd of 20 came, and all of it made its handshake.
    assert int(result["totals"]["handshakes with peers that came and went"]) >= 20
    assert "FAILED" not in completed.stdout
