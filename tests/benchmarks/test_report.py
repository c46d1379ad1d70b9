"""Medians, ratios within pairs, tables, JSON and plots."""

import importlib.util
import json
from pathlib import Path

import pytest
from cases import Case
from family import Family
from implementations import Implementation
from machine import Machine
from measurement import Round
from plots import write_plots
from report import Report
from summary import Spread, summarise
from workloads import WORKLOADS

TCP = Case(WORKLOADS["tcp1"], 1420, Family.V4)
PING = Case(WORKLOADS["ping-load"], 8920, Family.V6)
MACHINE = Machine("A CPU", True, 2, 3.5, "Linux 6", "iperf 3", "2026-01-02")


def tcp(pair: int, implementation: str, mbits: float, cpu: float, others: float = 0.0) -> Round:
    figures = {
        "bits_per_second": mbits * 1e6,
        "cpu_seconds_per_gib": cpu,
        "others_cores": others,
    }
    return Round(pair, TCP, implementation, figures)


def failed(pair: int, implementation: str, case: Case = TCP) -> Round:
    return Round(pair, case, implementation, {}, ("it broke", "again"))


ROUNDS = [
    tcp(1, "wgd-native", 200, 5),
    tcp(1, "wireguard-go", 100, 10),
    tcp(2, "wireguard-go", 400, 8),
    tcp(2, "wgd-native", 400, 4, others=0.21),
    tcp(3, "wgd-native", 300, 3, others=0.19),
    tcp(3, "wireguard-go", 100, 10),
    failed(1, "gotatun", PING),
    Round(1, PING, "wireguard-go", {"ping_median_ms": 2.0, "ping_p99_ms": 9.0}, ("a hiccup",)),
]


def report(rounds: list[Round]) -> Report:
    names = dict.fromkeys(["wgd-native", "wireguard-go", *(r.implementation for r in rounds)])
    tested = [Implementation(name, Path("/bin") / name, f"{name} 1.0") for name in names]
    return Report(MACHINE, tested, (TCP, PING), 3, rounds)


def test_a_spread() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)
    assert Spread.of([]) is None
    assert Spread(1234567.0, 1e6, 2e6).format(1, 1e-6) == "1.2 (1.0 to 2.0)"


def test_ratios_are_within_pairs() -> None:
    summary = summarise(ROUNDS, TCP, "wgd-native", "wireguard-go")
    # The ratio of the medians would be 3.
    assert summary.ratios["bits_per_second"] == Spread(2.0, 1.0, 3.0)
    assert summary.ratios["cpu_seconds_per_gib"] == Spread(0.5, 0.3, 0.5)
    assert summary.figures["bits_per_second"] == Spread(300e6, 200e6, 400e6)
    assert (summary.rounds, summary.failed_rounds, summary.noisy_rounds) == (3, 0, 1)


@pytest.mark.parametrize("who", ["wgd-native", "wireguard-go"])
def test_a_failed_round_has_no_ratio_whoever_failed(who: str) -> None:
    rounds = [entry for entry in ROUNDS if (entry.pair, entry.implementation) != (2, who)]
    summary = summarise([*rounds, failed(2, who)], TCP, "wgd-native", "wireguard-go")
    assert summary.ratios["bits_per_second"] == Spread(2.5, 2.0, 3.0)
    assert summary.failed_rounds == (who == "wgd-native")


def test_an_interrupted_pair_has_no_ratio() -> None:
    summary = summarise([tcp(1, "wgd-native", 200, 5)], TCP, "wgd-native", "wireguard-go")
    assert summary.ratios == {}
    assert summary.figures["bits_per_second"].median == 200e6


def test_a_baseline_of_no_time_divides_nothing() -> None:
    rounds = [tcp(1, "wgd-native", 200, 5), tcp(1, "wireguard-go", 100, 0)]
    summary = summarise(rounds, TCP, "wgd-native", "wireguard-go")
    assert summary.ratios.keys() == {"bits_per_second"}


def test_the_tables() -> None:
    lines = report(ROUNDS).as_markdown().splitlines()
    about = "| tcp1 | 1420 | v4 |"
    assert lines[:11] == [
        "Ratios to wireguard-go, within pairs:",
        "",
        "| workload | MTU | IP | figure | wgd-native | gotatun | noisy |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |",
        f"{about} Mbit/s ↑ | 2.00 (1.00 to 3.00) | - | 1 of 6 |",
        f"{about} CPU-s per GiB ↓ | 0.50 (0.30 to 0.50) | - | 1 of 6 |",
        "| ping-load | 8920 | v6 | ms, median ↓ | - | 1 of 1 failed | 0 of 1 |",
        "| ping-load | 8920 | v6 | ms, p99 ↓ | - | 1 of 1 failed | 0 of 1 |",
        "",
        "Figures:",
        "",
    ]
    assert f"{about} Mbit/s ↑ | 300 (200 to 400) | 100 (100 to 400) | - | 1 of 6 |" in lines
    assert "Rounds: 8; failed: 1; second attempts: 1." in lines
    assert "wgd-native 1.0; wireguard-go 1.0; gotatun 1.0." in lines
    assert lines[-1] == "A CPU, 2 virtual cores, 3.5 GiB, Linux 6; iperf 3; 2026-01-02."


def test_some_failed_rounds_are_shown_beside_the_others() -> None:
    rounds = [*ROUNDS, failed(4, "wgd-native"), tcp(4, "wireguard-go", 100, 10)]
    assert "| 2.00 (1.00 to 3.00); 1 of 4 failed |" in report(rounds).as_markdown()


def test_json_holds_every_round() -> None:
    written = json.loads(json.dumps(report(ROUNDS).as_json()))
    assert written["baseline"] == "wireguard-go"
    assert written["machine"]["cores"] == 2
    assert len(written["rounds"]) == 8
    assert written["rounds"][3] == {
        "pair": 2,
        "workload": "tcp1",
        "mtu": 1420,
        "family": "v4",
        "implementation": "wgd-native",
        "figures": {
            "bits_per_second": 400e6,
            "cpu_seconds_per_gib": 4,
            "others_cores": 0.21,
        },
        "failures": [],
        "has_failed": False,
        "is_noisy": True,
    }
    assert written["rounds"][6]["failures"] == ["it broke", "again"]
    ratios = written["summaries"][0]["ratios"]
    assert ratios["bits_per_second"] == {"median": 2.0, "minimum": 1.0, "maximum": 3.0}


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_a_plot_for_each_mtu_that_has_ratios(tmp_path: Path) -> None:
    written = write_plots(report(ROUNDS), tmp_path)
    assert [file.name for file in written] == ["compare-1420-v4.png"]
    assert written[0].read_bytes().startswith(b"\x89PNG\r\n")
