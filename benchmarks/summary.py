"""Medians and spreads of rounds, and of the ratios to the baseline's round of the same pair."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cases import Case
from measurement import Round
from metrics import Metric


@dataclass(frozen=True)
class Spread:
    """A median with the least and the greatest value."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """Summarise values; none have no spread."""
        listed = list(values)
        return cls(statistics.median(listed), min(listed), max(listed)) if listed else None

    def format(self, decimals: int, scale: float = 1) -> str:
        """Return `median (minimum to maximum)`, times `scale`."""
        texts = [
            f"{value * scale:.{decimals}f}" for value in (self.median, self.minimum, self.maximum)
        ]
        return f"{texts[0]} ({texts[1]} to {texts[2]})"


@dataclass(frozen=True)
class Summary:
    """One implementation's rounds of one case; `figures` and `ratios` are by names of metrics.

    A failed round has no figures; a ratio needs both rounds of a pair.
    """

    case: Case
    implementation: str
    rounds: int
    failed_rounds: int
    retried_rounds: int
    noisy_rounds: int
    figures: Mapping[str, Spread]
    ratios: Mapping[str, Spread]


def summarise(rounds: Sequence[Round], case: Case, implementation: str, baseline: str) -> Summary:
    """Summarise the rounds of an implementation in a case against those of the baseline."""
    of_case = [entry for entry in rounds if entry.case == case]
    own = [entry for entry in of_case if entry.implementation == implementation]
    theirs = {entry.pair: entry for entry in of_case if entry.implementation == baseline}
    figures: dict[str, Spread] = {}
    ratios: dict[str, Spread] = {}
    for metric in case.workload.metrics:
        values = (entry.figures[metric.name] for entry in own if not entry.has_failed)
        if (spread := Spread.of(values)) is not None:
            figures[metric.name] = spread
        if (spread := Spread.of(_ratios(own, theirs, metric))) is not None:
            ratios[metric.name] = spread
    return Summary(
        case=case,
        implementation=implementation,
        rounds=len(own),
        failed_rounds=sum(entry.has_failed for entry in own),
        retried_rounds=sum(bool(entry.failures) and not entry.has_failed for entry in own),
        noisy_rounds=sum(entry.is_noisy for entry in own),
        figures=figures,
        ratios=ratios,
    )


def _ratios(own: Iterable[Round], theirs: Mapping[int, Round], metric: Metric) -> Iterator[float]:
    for entry in own:
        other = theirs.get(entry.pair)
        if other is None or entry.has_failed or other.has_failed:
            continue
        # A CPU time may be zero: it is counted in hundredths of a second.
        if (divisor := other.figures[metric.name]) > 0:
            yield entry.figures[metric.name] / divisor
