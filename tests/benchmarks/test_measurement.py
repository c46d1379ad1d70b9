"""The order of rounds, second attempts, and the account of CPU time; no daemon runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import measurement
import pytest
from cases import Case, schedule
from family import Family
from implementations import Implementation
from measurement import Round, measure
from processes import BenchmarkError
from testbed import NoTunnelError, Tunnel
from workloads import WORKLOADS, Figures, Workload


def implementation(name: str) -> Implementation:
    return Implementation(name, Path("/bin/true"), "1")


def case(measured: Callable[[], Figures], mtu: int = 1420) -> Case:
    workload = Workload("fake", "nothing at all", (), lambda _tested, _seconds: measured())
    return Case(workload, mtu, Family.V4)


class Readings:
    """Stands in for Usage: each reading is that many seconds later, by the names of its fields."""

    def __init__(self, **steps: float) -> None:
        self.steps = steps
        self.count = 0

    def __call__(self, _tested: Tunnel) -> "Readings":
        reading = Readings(**self.steps)
        reading.count = self.count
        self.count += 1
        return reading

    def __getattr__(self, name: str) -> float:
        return 100 + self.count * self.steps.get(name, 1.0)


@pytest.fixture
def tunnels(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Replace tunnels by ones that cost nothing; returns which were made."""
    made: list[tuple[str, int]] = []

    @contextmanager
    def tunnel(implementation: Implementation, mtu: int, _family: Family) -> Iterator[object]:
        made.append((implementation.name, mtu))
        if implementation.name == "mute":
            raise NoTunnelError("no ping")
        yield object()

    monkeypatch.setattr(measurement, "tunnel", tunnel)
    monkeypatch.setattr(measurement, "Usage", Readings(machine_seconds=3.0))
    return made


def test_everybody_is_first_in_turn() -> None:
    order = [
        (pair, workload_case.workload.name, tested.name)
        for pair, workload_case, tested in schedule(
            2,
            [Case(WORKLOADS[name], 1420, Family.V4) for name in ("tcp1", "udp64")],
            [implementation(name) for name in ("a", "b", "c")],
        )
    ]
    assert order == [
        *[(1, "tcp1", name) for name in "abc"],
        *[(1, "udp64", name) for name in "abc"],
        *[(2, "tcp1", name) for name in "bca"],
        *[(2, "udp64", name) for name in "bca"],
    ]


def test_the_account_of_a_round(
    tunnels: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = Readings(
        time_seconds=4.0,
        left_seconds=1.5,
        right_seconds=2.5,
        tools_seconds=1.0,
        machine_seconds=6.0,
    )
    monkeypatch.setattr(measurement, "Usage", readings)
    half_gib: Figures = {"received_bytes": 2.0**29}
    (measured,) = measure(1, [case(lambda: half_gib)], [implementation("a")], 1)
    assert measured.figures == {
        "received_bytes": 2.0**29,
        "left_cpu_seconds": 1.5,
        "right_cpu_seconds": 2.5,
        "tools_cpu_seconds": 1.0,
        "others_cores": 0.25,
        "cpu_seconds_per_gib": 8.0,
    }
    assert measured.is_noisy
    assert not measured.has_failed


def test_pings_have_no_cpu_per_gib(tunnels: list[tuple[str, int]]) -> None:
    (measured,) = measure(1, [case(lambda: {"ping_median_ms": 1.0})], [implementation("a")], 1)
    assert measured.figures.keys() >= {"ping_median_ms", "left_cpu_seconds"}
    assert "cpu_seconds_per_gib" not in measured.figures
    assert not measured.is_noisy  # 3 s of which the daemons and tools had 3


def test_a_second_attempt_counts(tunnels: list[tuple[str, int]]) -> None:
    outcomes: Iterator[Figures | Exception] = iter([BenchmarkError("a hiccup"), {"figure": 1.0}])

    def once() -> Figures:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    (measured,) = measure(1, [case(once)], [implementation("a")], 1)
    assert measured.figures["figure"] == 1.0
    assert measured.failures == ("a hiccup",)
    assert not measured.has_failed
    assert tunnels == [("a", 1420)] * 2


def test_a_round_that_fails_twice_does_not_end_the_others(tunnels: list[tuple[str, int]]) -> None:
    def broken() -> Figures:
        raise OSError("a daemon is gone")

    rounds = list(measure(2, [case(broken)], [implementation("a"), implementation("b")], 1))
    assert [(entry.pair, entry.implementation) for entry in rounds] == [
        (1, "a"),
        (1, "b"),
        (2, "b"),
        (2, "a"),
    ]
    assert all(entry.has_failed for entry in rounds)
    assert all(entry.failures == ("a daemon is gone",) * 2 for entry in rounds)
    assert len(tunnels) == 8


def test_without_a_tunnel_there_is_no_third_attempt(tunnels: list[tuple[str, int]]) -> None:
    compared = [case(lambda: {"figure": 1.0}, mtu) for mtu in (1420, 8920)]
    rounds: list[Round] = list(measure(2, compared, [implementation("mute")], 1))
    assert [entry.failures for entry in rounds] == [
        ("no ping", "no ping"),
        ("no ping", "no ping"),
        ("not tried again: no ping",),
        ("not tried again: no ping",),
    ]
    assert all(entry.has_failed for entry in rounds)
    assert tunnels == [("mute", 1420)] * 2 + [("mute", 8920)] * 2
