"""What a comparison says at its end: ratios, figures, and what one must know to read them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from cases import Case
from implementations import BASELINE, Implementation
from machine import Machine
from measurement import Round
from metrics import Metric
from summary import Summary, summarise


@dataclass(frozen=True)
class Report:
    """A comparison, finished or interrupted; the ratios are to BASELINE."""

    machine: Machine
    implementations: Sequence[Implementation]
    cases: Sequence[Case]
    seconds: int
    rounds: Sequence[Round]

    @cached_property
    def summaries(self) -> list[list[Summary]]:
        """A list for each case, with one summary for each implementation."""
        return [
            [summarise(self.rounds, case, tested.name, BASELINE) for tested in self.implementations]
            for case in self.cases
        ]

    def as_json(self) -> dict[str, object]:
        """Return everything as values that JSON knows; units are in the names."""
        return {
            "machine": asdict(self.machine),
            "baseline": BASELINE,
            "seconds": self.seconds,
            "implementations": [
                {"name": tested.name, "program": str(tested.program), "version": tested.version}
                for tested in self.implementations
            ],
            "summaries": [
                _case_json(summary.case)
                | {
                    "implementation": summary.implementation,
                    "rounds": summary.rounds,
                    "failed_rounds": summary.failed_rounds,
                    "retried_rounds": summary.retried_rounds,
                    "noisy_rounds": summary.noisy_rounds,
                    "figures": {name: asdict(value) for name, value in summary.figures.items()},
                    "ratios": {name: asdict(value) for name, value in summary.ratios.items()},
                }
                for summaries in self.summaries
                for summary in summaries
            ],
            "rounds": [
                {"pair": entry.pair}
                | _case_json(entry.case)
                | {
                    "implementation": entry.implementation,
                    "figures": dict(entry.figures),
                    "failures": list(entry.failures),
                    "has_failed": entry.has_failed,
                    "is_noisy": entry.is_noisy,
                }
                for entry in self.rounds
            ],
        }

    def as_markdown(self) -> str:
        """Return two tables, of ratios and of figures, and what one must know to read them."""
        return "\n".join(
            [
                f"Ratios to {BASELINE}, within pairs:",
                "",
                *self._table(_ratio_cell, without=BASELINE),
                "",
                "Figures:",
                "",
                *self._table(_figure_cell),
                "",
                *self._notes(),
            ]
        )

    def _table(
        self, cell: Callable[[Summary, Metric], str], without: str | None = None
    ) -> list[str]:
        """Return the lines of a table: a row for each metric of each case."""
        names = [tested.name for tested in self.implementations if tested.name != without]
        header = ["workload", "MTU", "IP", "figure", *names, "noisy"]
        rows = [header, [*["---"] * 4, *["---:"] * (len(names) + 1)]]
        for case, summaries in zip(self.cases, self.summaries, strict=True):
            shown = [summary for summary in summaries if summary.implementation != without]
            for metric in case.workload.metrics:
                arrow = "↑" if metric.more_is_better else "↓"
                about = [case.workload.name, str(case.mtu), case.family.value]
                cells = [cell(summary, metric) for summary in shown]
                title = f"{metric.title} {arrow}"
                rows.append([*about, title, *cells, _noisy_cell(summaries)])
        return [f"| {' | '.join(row)} |" for row in rows]

    def _notes(self) -> Iterable[str]:
        pairs = len({entry.pair for entry in self.rounds})
        yield (
            f"Medians (least to greatest) of interleaved pairs: {pairs}, of {self.seconds} s a "
            "round; both ends and the tools on this machine; ↑ more is better, ↓ less is."
        )
        described = {case.workload.name: case.workload.description for case in self.cases}
        yield "; ".join(f"{name}: {text}" for name, text in described.items()) + "."
        yield (
            "Datagrams are counted as the receiver got them; 1392 bytes (the payload) are 1372 "
            "where IPv6 leaves no more room. CPU is that of both daemons. In a noisy round others "
            "had more than 0.2 of a core."
        )
        retried = sum(bool(entry.failures) and not entry.has_failed for entry in self.rounds)
        failed = sum(entry.has_failed for entry in self.rounds)
        yield f"Rounds: {len(self.rounds)}; failed: {failed}; second attempts: {retried}."
        yield f"{'; '.join(tested.version for tested in self.implementations)}."
        yield f"{self.machine}."


def _case_json(case: Case) -> dict[str, object]:
    return {"workload": case.workload.name, "mtu": case.mtu, "family": case.family.value}


def _ratio_cell(summary: Summary, metric: Metric) -> str:
    spread = summary.ratios.get(metric.name)
    return _with_failures(summary, spread.format(2) if spread else None)


def _figure_cell(summary: Summary, metric: Metric) -> str:
    spread = summary.figures.get(metric.name)
    return _with_failures(summary, spread.format(metric.decimals, metric.scale) if spread else None)


def _with_failures(summary: Summary, text: str | None) -> str:
    failed = f"{summary.failed_rounds} of {summary.rounds} failed"
    if summary.failed_rounds and text:
        return f"{text}; {failed}"
    return text or (failed if summary.failed_rounds else "-")


def _noisy_cell(summaries: Sequence[Summary]) -> str:
    noisy = sum(summary.noisy_rounds for summary in summaries)
    return f"{noisy} of {sum(summary.rounds - summary.failed_rounds for summary in summaries)}"
