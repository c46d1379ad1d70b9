"""Whether a soak went well, by statistics: no growth, no slowing down, nothing lost or broken."""

import itertools
import statistics
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final

from soak_sampling import Reading, Sample

# Growth is that of the line through the samples after the warm-up, over the time they took.
MAX_GROWTH_KIB: Final = 1024
# What is judged for its course takes time: a shorter run shows only that everything works.
LEAST_JUDGED_SECONDS: Final = 120
MAX_CPU_RATIO: Final = 1.5
MAX_MEDIAN_RATIO: Final = 1.5
MAX_P99_RATIO: Final = 3.0
# Below this a difference of two round trips is the machine's.
LEAST_DIFFERENCE_MS: Final = 0.25
MAX_LOST_SHARE: Final = 1e-4
_NOT_JUDGED: Final = f"not judged: less than {LEAST_JUDGED_SECONDS} s"
ENDS: Final = ("left", "right")


@dataclass(frozen=True)
class Check:
    """One thing that must hold, what was found, and what is allowed."""

    name: str
    found: str
    allowed: str
    holds: bool


@dataclass(frozen=True)
class Line:
    """A Theil-Sen line: the median of the slopes between all pairs of points."""

    slope: float
    lowest: float
    highest: float

    @classmethod
    def through(cls, xs: Sequence[float], ys: Sequence[float]) -> "Line":
        """Return the line and its 95 % interval by Kendall's statistic; needs two points.

        Source: P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968.
        """
        points = sorted(zip(xs, ys, strict=True))
        slopes = sorted(
            (y2 - y1) / (x2 - x1)
            for (x1, y1), (x2, y2) in itertools.combinations(points, 2)
            if x1 != x2
        )
        n = len(points)
        half_width = 1.96 * (n * (n - 1) * (2 * n + 5) / 18) ** 0.5 / 2
        middle = len(slopes) / 2
        last = len(slopes) - 1
        return cls(
            statistics.median(slopes),
            slopes[max(0, round(middle - half_width))],
            slopes[min(last, round(middle + half_width))],
        )


@dataclass(frozen=True)
class Events:
    """What was counted beside the samples."""

    pings_sent: int
    pings_lost_unexcused: int
    action_failures: int
    broken_streams: int
    excused_streams: int
    expected_handshakes: int
    tracebacks: int


def check(
    samples: Sequence[Sample],
    warm_up_seconds: float,
    events: Events,
    ends: Collection[str] = ENDS,
) -> list[Check]:
    """Return everything that must hold; raises ValueError if there are too few samples.

    Only `ends` are judged: what another implementation's daemon needs is shown.
    """
    measured = _judged(samples, warm_up_seconds)
    if not is_enough(samples, warm_up_seconds):
        raise ValueError(f"{len(measured)} samples after the warm-up are too few")
    course = []
    for end in ENDS:
        of_end = list(_of_end(end, measured))
        if end not in ends:
            of_end = [replace(entry, allowed="not judged: not wgd", holds=True) for entry in of_end]
        course += of_end
    course += _round_trips(measured)
    if measured[-1].seconds - measured[0].seconds < LEAST_JUDGED_SECONDS:
        course = [replace(entry, allowed=_NOT_JUDGED, holds=True) for entry in course]
    return [*course, *_counted(samples, events)]


def is_enough(samples: Sequence[Sample], warm_up_seconds: float) -> bool:
    """Return whether there are two samples for each quarter."""
    return len(_judged(samples, warm_up_seconds)) >= 8


def _judged(samples: Sequence[Sample], warm_up_seconds: float) -> list[Sample]:
    return [sample for sample in samples if sample.seconds >= warm_up_seconds]


def quarters(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    """Return the samples in four parts of (nearly) the same number."""
    edges = [len(samples) * part // 4 for part in range(5)]
    return [samples[start:end] for start, end in itertools.pairwise(edges)]


def reading(end: str, sample: Sample) -> Reading:
    """Return the reading of the end called `left` or `right`."""
    return sample.left if end == "left" else sample.right


def cores(end: str, samples: Sequence[Sample]) -> float:
    """Return how many cores an end used between the first and the last of the samples."""
    first, last = samples[0], samples[-1]
    used = reading(end, last).cpu_seconds - reading(end, first).cpu_seconds
    return used / max(last.seconds - first.seconds, 1e-9)


def median_of(values: Iterator[float | None] | Sequence[float | None]) -> float:
    """Return the median of those that are there; NaN if none is."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else float("nan")


def _of_end(end: str, measured: Sequence[Sample]) -> Iterator[Check]:
    readings = [reading(end, sample) for sample in measured]
    seconds = [sample.seconds for sample in measured]
    for title, values in (
        ("RSS", [entry.rss_kib for entry in readings]),
        ("anonymous memory", [entry.anonymous_kib for entry in readings]),
    ):
        line = Line.through(seconds, values)
        growth = line.slope * (seconds[-1] - seconds[0])
        yield Check(
            f"{end}: growth of {title}",
            f"{growth:+.0f} KiB; slope {line.slope * 3600:+.0f} KiB/hour "
            f"(95 %: {line.lowest * 3600:+.0f} to {line.highest * 3600:+.0f})",
            f"at most {MAX_GROWTH_KIB} KiB",
            growth <= MAX_GROWTH_KIB,
        )
    first, *_, last = quarters(measured)
    for title in ("descriptors", "threads"):
        count = attrgetter(f"{end}.{title}")
        before, after = (median_of([count(sample) for sample in part]) for part in (first, last))
        yield Check(
            f"{end}: {title}",
            f"{before:g}, then {after:g}",
            "the same median in first and last quarter",
            before == after,
        )
    before, after = cores(end, first), cores(end, last)
    yield Check(
        f"{end}: CPU",
        f"{before:.3f} cores, then {after:.3f}",
        f"at most {MAX_CPU_RATIO:g} times as much in the last quarter",
        after <= MAX_CPU_RATIO * before + 0.01,
    )


def _round_trips(measured: Sequence[Sample]) -> Iterator[Check]:
    """Compare the last quarter with the first; the machine may have become slower by itself."""
    first, *_, last = quarters(measured)
    outside_before = median_of([sample.outside.median_ms for sample in first])
    outside_after = median_of([sample.outside.median_ms for sample in last])
    machine = max(1.0, outside_after / outside_before)
    for title, of, ratio in (
        ("median", attrgetter("tunnel.median_ms"), MAX_MEDIAN_RATIO),
        ("p99", attrgetter("tunnel.p99_ms"), MAX_P99_RATIO),
    ):
        before, after = (median_of([of(sample) for sample in part]) for part in (first, last))
        yield Check(
            f"ping: {title}",
            f"{before:.2f} ms, then {after:.2f} ms (beside the tunnel the median went from "
            f"{outside_before:.2f} to {outside_after:.2f} ms)",
            f"at most {ratio:g} times as long in the last quarter, or as much longer as beside it",
            after <= before * ratio * machine + LEAST_DIFFERENCE_MS,
        )


def _counted(samples: Sequence[Sample], events: Events) -> Iterator[Check]:
    share = events.pings_lost_unexcused / max(events.pings_sent, 1)
    yield Check(
        "pings lost, not beside a flap or a move",
        f"{events.pings_lost_unexcused} of {events.pings_sent}",
        f"at most {MAX_LOST_SHARE:.2%}",
        share <= MAX_LOST_SHARE,
    )
    handshakes = samples[-1].handshakes
    yield Check(
        "handshakes between the ends",
        f"{handshakes}",
        f"at least {events.expected_handshakes}",
        handshakes >= events.expected_handshakes,
    )
    yield Check(
        "streams that broke",
        f"{events.broken_streams}",
        f"at most {events.excused_streams}, two a flap",
        events.broken_streams <= events.excused_streams,
    )
    yield Check(
        "requests and commands that failed",
        f"{events.action_failures}",
        "none",
        events.action_failures == 0,
    )
    yield Check("tracebacks in the logs", f"{events.tracebacks}", "none", events.tracebacks == 0)
