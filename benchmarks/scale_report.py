"""What `scale` prints in the end: medians and ratios to the baseline, as Markdown or JSON."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from implementations import BASELINE, Implementation
from machine import Machine
from scale_cases import Case
from scale_lookup import LookupRound, lookups_as_markdown
from scale_round import Figures


@dataclass(frozen=True)
class Round:
    """One round of one implementation in one case."""

    pair: int
    case: Case
    implementation: str
    figures: Figures


@dataclass(frozen=True)
class _Column:
    title: str
    decimals: int
    value: Callable[[Figures, Case], float]
    has_ratio: bool = True


_COLUMNS: Final = (
    _Column("set, s", 2, lambda figures, _: figures.set_seconds),
    _Column("wg setconf, s", 2, lambda figures, _: figures.setconf_seconds),
    _Column("get, s", 2, lambda figures, _: figures.get_seconds),
    _Column("wg show dump, s", 2, lambda figures, _: figures.dump_seconds),
    _Column("memory, MiB", 1, lambda figures, _: figures.grown_bytes / 2**20),
    _Column(
        "bytes each",
        0,
        lambda figures, case: figures.grown_bytes / case.allowed_ips,
        has_ratio=False,
    ),
    _Column("longest wait: idle, ms", 1, lambda figures, _: figures.idle_wait_ms, has_ratio=False),
    _Column("during set, ms", 1, lambda figures, _: figures.set_wait_ms, has_ratio=False),
    _Column("during get, ms", 1, lambda figures, _: figures.get_wait_ms, has_ratio=False),
    _Column("lost", 0, lambda figures, _: figures.lost_handshakes, has_ratio=False),
)


@dataclass(frozen=True)
class Report:
    """All rounds of a run, finished or interrupted."""

    machine: Machine
    implementations: Sequence[Implementation]
    cases: Sequence[Case]
    rounds: Sequence[Round]
    lookups: Sequence[LookupRound] = ()

    def as_json(self) -> dict[str, object]:
        """Return everything as values that JSON knows; units are in the names."""
        return {
            "machine": asdict(self.machine),
            "baseline": BASELINE,
            "implementations": [
                {"name": each.name, "version": each.version} for each in self.implementations
            ],
            "rounds": [
                {
                    "pair": each.pair,
                    "case": asdict(each.case),
                    "implementation": each.implementation,
                }
                | asdict(each.figures)
                for each in self.rounds
            ],
            "lookups": [asdict(each) for each in self.lookups],
        }

    def as_markdown(self) -> str:
        """Return the table: medians, in parentheses the median of the ratios to the baseline."""
        lines = [f"{self.machine}", ""]
        lines += [f"* {each.name}: {each.version}" for each in self.implementations]
        if self.rounds:
            titles = ["case", "daemon", *(column.title for column in _COLUMNS)]
            lines += ["", _row(titles), _row(["---"] * 2 + ["---:"] * len(_COLUMNS))]
        for case in self.cases:
            for each in self.implementations:
                if self._of(case, each.name):
                    cells = (self._cell(column, case, each.name) for column in _COLUMNS)
                    lines.append(_row([case.name, each.name, *cells]))
        table = "\n".join(lines) + "\n"
        return f"{table}\n{lookups_as_markdown(self.lookups)}" if self.lookups else table

    def _of(self, case: Case, name: str) -> dict[int, Figures]:
        return {
            each.pair: each.figures
            for each in self.rounds
            if each.case == case and each.implementation == name
        }

    def _cell(self, column: _Column, case: Case, name: str) -> str:
        own, theirs = self._of(case, name), self._of(case, BASELINE)
        median = statistics.median(column.value(figures, case) for figures in own.values())
        text = f"{median:,.{column.decimals}f}"
        ratios = [
            column.value(own[pair], case) / column.value(theirs[pair], case)
            for pair in own.keys() & theirs.keys()
            if column.has_ratio and column.value(theirs[pair], case) > 0
        ]
        if name != BASELINE and ratios:
            text += f" ({statistics.median(ratios):.2f})"
        return text


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
