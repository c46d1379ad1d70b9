"""What a soak says at its end: a verdict with its tables, and a picture of the samples."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Final

from implementations import Implementation
from machine import Machine
from soak_load import Activity
from soak_sampling import Sample
from soak_verdict import ENDS, Check, cores, median_of, quarters, reading

_SHOWN_FAILURES: Final = 10
_OF_A_DAEMON: Final = {
    "RSS, KiB": "rss_kib",
    "PSS, KiB": "pss_kib",
    "anonymous, KiB": "anonymous_kib",
    "descriptors": "descriptors",
    "threads": "threads",
}
_COLOURS: Final = {"left": "#1b6ca8", "right": "#e08e45"}


@dataclass(frozen=True)
class Report:
    """A soak, finished or interrupted; `disturbed_seconds` are since the start, like the samples'.

    `totals` is what there was altogether, by name.
    """

    machine: Machine
    implementations: Mapping[str, Implementation]
    command: str
    commit: str
    seconds: float
    warm_up_seconds: float
    samples: Sequence[Sample]
    activities: Sequence[Activity]
    checks: Sequence[Check]
    totals: Mapping[str, str]
    disturbed_seconds: Sequence[float]

    @property
    def holds(self) -> bool:
        """Whether all is well."""
        return all(check.holds for check in self.checks)

    def as_markdown(self, picture: str | None = None) -> str:
        """Return the report; `picture` is the name of a file beside it."""
        daemons = ", ".join(
            f"{end}: {tested.name} ({tested.version})"
            for end, tested in self.implementations.items()
        )
        passed = sum(check.holds for check in self.checks)
        lines = [
            f"# Soak: {self.seconds / 60:.1f} minutes under mixed load",
            "",
            f"**{'Passed' if self.holds else 'FAILED'}**: {passed} of {len(self.checks)} hold.",
            "",
            f"* Command: `{self.command}`",
            f"* Commit: {self.commit}",
            f"* Daemons: {daemons}",
            f"* Machine: {self.machine}",
            f"* {len(self.samples)} samples; the first {self.warm_up_seconds / 60:.1f} minutes are "
            "warm-up and not judged. Growth is that of the Theil-Sen line (the median slope of all "
            "pairs of samples) over the rest.",
            "",
            *_table(
                ("", "what", "found", "allowed"),
                [
                    ("yes" if check.holds else "**NO**", check.name, check.found, check.allowed)
                    for check in self.checks
                ],
            ),
            "",
            *(
                [f"![memory, descriptors, CPU and round trips over time]({picture})", ""]
                * bool(picture)
            ),
            "## Over time",
            "",
            "Medians of each quarter of what was judged.",
            "",
            *self._quarters(),
            "",
            "## What went on",
            "",
            *_table(
                ("activity", "every", "times", "failed"),
                [
                    (a.name, f"{a.period_seconds:.3g} s", str(a.runs), str(len(a.failures)))
                    for a in self.activities
                ],
            ),
            "",
            *(f"* {name}: {value}" for name, value in self.totals.items()),
        ]
        failures = [text for activity in self.activities for text in activity.failures]
        lines.extend(f"* failed: {failure}" for failure in failures[:_SHOWN_FAILURES])
        return "\n".join(lines) + "\n"

    def _quarters(self) -> list[str]:
        measured = [entry for entry in self.samples if entry.seconds >= self.warm_up_seconds]
        parts = [part for part in quarters(measured) if part]

        def row(title: str, of: Callable[[Sample], float | None], decimals: int = 0) -> list[str]:
            medians = [median_of([of(sample) for sample in part]) for part in parts]
            return [title, *(f"{value:.{decimals}f}" for value in medians)]

        rows = []
        for end in ENDS:
            for title, name in _OF_A_DAEMON.items():
                readings = attrgetter(f"{end}.{name}")
                rows.append(row(f"{end}: {title}", readings))
            rows.append([f"{end}: cores used", *(f"{cores(end, part):.3f}" for part in parts)])
        rows += [
            row("ping: median, ms", lambda s: s.tunnel.median_ms, 2),
            row("ping: p99, ms", lambda s: s.tunnel.p99_ms, 2),
            row("beside the tunnel: median, ms", lambda s: s.outside.median_ms, 2),
            row("beside the tunnel: p99, ms", lambda s: s.outside.p99_ms, 2),
        ]
        names = ("first", "second", "third", "fourth")[: len(parts)]
        return _table(("", *names), rows)

    def as_json(self) -> dict[str, object]:
        """Return what was sampled and found, as values that JSON knows."""
        return {
            "command": self.command,
            "commit": self.commit,
            "seconds": self.seconds,
            "warm_up_seconds": self.warm_up_seconds,
            "checks": [asdict(check) for check in self.checks],
            "totals": dict(self.totals),
            "disturbed_seconds": list(self.disturbed_seconds),
            "samples": [asdict(sample) for sample in self.samples],
        }

    def draw(self, file: Path) -> None:
        """Write the samples as a PNG; needs matplotlib."""
        # Loaded only here: it is large, and not needed for the measurement.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        minutes = [sample.seconds / 60 for sample in self.samples]
        figure = Figure(figsize=(9, 10), layout="constrained")
        FigureCanvasAgg(figure)
        memory, descriptors, cpu, pings = figure.subplots(4, sharex=True)
        for end in ENDS:
            about = {"color": _COLOURS[end], "linewidth": 1.2}
            readings = [reading(end, sample) for sample in self.samples]
            memory.plot(minutes, [r.rss_kib / 1024 for r in readings], label=f"{end}: RSS", **about)
            memory.plot(
                minutes,
                [r.anonymous_kib / 1024 for r in readings],
                linestyle="dotted",
                label=f"{end}: anonymous",
                **about,
            )
            descriptors.plot(minutes, [r.descriptors for r in readings], label=end, **about)
            pairs = list(zip(self.samples, self.samples[1:], strict=False))
            cpu.plot(minutes[1:], [cores(end, pair) for pair in pairs], label=end, **about)
        for title, name, colour in (
            ("tunnel: median", "tunnel.median_ms", "#1b6ca8"),
            ("tunnel: p99", "tunnel.p99_ms", "#8fc1e3"),
            ("beside it: median", "outside.median_ms", "#777777"),
        ):
            values = [attrgetter(name)(sample) for sample in self.samples]
            known = [math.nan if value is None else value for value in values]
            pings.plot(minutes, known, label=title, color=colour, linewidth=1.2)
        pings.set_yscale("log")
        pings.set_xlabel("minutes")
        for axes, title in (
            (memory, "Memory, MiB"),
            (descriptors, "Open descriptors"),
            (cpu, "Cores used"),
            (pings, "Ping, ms; grey lines: moves and flaps"),
        ):
            axes.set_title(title, fontsize="medium")
            axes.grid(linewidth=0.4)
            axes.axvspan(0, self.warm_up_seconds / 60, color="#eeeeee", zorder=0)
            axes.legend(fontsize="small", loc="lower right", ncols=2)
        for seconds in self.disturbed_seconds:
            pings.axvline(seconds / 60, color="#cccccc", linewidth=0.5, zorder=0)
        for axes in (memory, descriptors, cpu):
            axes.set_ylim(bottom=0)
        figure.savefig(file, dpi=110)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
