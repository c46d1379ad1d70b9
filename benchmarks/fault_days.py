"""Simulated days of three devices in which everything goes wrong: tests/faults/days.py says what.

Each seed is a day. One that does not end in a working tunnel, or breaks a rule on the way, is cut
down to the steps that matter, which are printed with the seed.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from faults_report import Table, parser, write

from tests.faults import days
from tests.testbed.engines import ENGINES, PORTABLE

_SECOND: Final = 10**9
_DAY: Final = 86_400 * _SECOND


@dataclass
class _Figures:
    """Of all days together."""

    seeds: int = 0
    steps: int = 0
    simulated_ns: int = 0
    datagrams: int = 0
    sent: int = 0
    delivered: int = 0
    recovered_ns: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, day: days.Day) -> None:
        """Count one day, however it ended."""
        self.simulated_ns += day.now_ns
        self.datagrams += day.datagrams
        self.sent += day.watch.sent
        self.delivered += day.watch.delivered
        self.recovered_ns += day.recovered_ns.values()


def main(argv: Sequence[str]) -> int:
    """Live through them; 0 if each was as it should be."""
    options = parser("days", __doc__, seeds=1000, seconds=3600)
    options.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    options.add_argument(
        "--engine",
        choices=ENGINES,
        default=PORTABLE,
        help="that of all devices; the native one has another beside it on odd seeds",
    )
    given = options.parse_args(argv)
    deadline = time.monotonic() + given.seconds
    figures = _Figures()
    for seed in range(given.first, given.first + given.seeds):
        if time.monotonic() > deadline:
            break
        plan = days.plan(seed)
        day = days.Day(seed, given.engine)
        try:
            day.run_through(plan)
        except Exception:  # noqa: BLE001 - whatever it is: it is told with its seed
            figures.failed.append(_explain(seed, given.engine))
        figures.seeds += 1
        figures.steps += len(plan)
        figures.add(day)
    write([_table(figures, given.engine)], given.json)
    return int(bool(figures.failed))


def _explain(seed: int, engine: str) -> str:
    steps, error = days.shortest(seed, engine)
    text = f"seed {seed}: {error}; enough for it: {[*map(tuple, steps)]}"
    sys.stderr.write(f"{text}\n")
    return text


def _table(figures: _Figures, engine: str) -> Table:
    took_ns = figures.recovered_ns or [0]
    return Table(
        f"Simulated days, {engine} engine",
        ("what", "figure"),
        (
            ("seeds", figures.seeds),
            ("failed", len(figures.failed)),
            ("simulated days", f"{figures.simulated_ns / _DAY:.1f}"),
            ("things that happened", figures.steps),
            ("datagrams sent", figures.datagrams),
            ("packets sent", figures.sent),
            ("packets delivered", figures.delivered),
            ("heard again after the last fault: median", f"{_seconds(statistics.median(took_ns))}"),
            ("heard again: 99.9 % within", f"{_seconds(_permille(took_ns, 999))}"),
            ("heard again: the longest", f"{_seconds(max(took_ns))}"),
            ("heard again: the bound", f"{_seconds(days.RECOVERY_NS)}"),
        ),
        figures.failed,
    )


def _permille(values: Sequence[int], share: int) -> int:
    return sorted(values)[min(len(values) * share // 1000, len(values) - 1)]


def _seconds(duration_ns: float) -> str:
    return f"{duration_ns / _SECOND:.0f} s"
