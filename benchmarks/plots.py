"""The ratios as pictures: for each MTU and family one PNG, with a bar for each implementation."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from family import Family
from implementations import BASELINE
from metrics import CPU, PACKETS, PING_MEDIAN, PING_P99, THROUGHPUT, Metric
from processes import BenchmarkError
from report import Report
from summary import Spread, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GROUP_WIDTH: Final = 0.8  # of the distance between two groups
_INCHES_PER_BAR: Final = 0.3
_PANEL_HEIGHT_INCHES: Final = 2.6
_COLOURS: Final = {
    "wgd-native": "#1b6ca8",
    "wgd-portable": "#8fc1e3",
    "boringtun": "#e08e45",
    "gotatun": "#7a9e4b",
}


@dataclass(frozen=True)
class _Panel:
    title: str
    metrics: tuple[Metric, ...]


_PANELS: Final = (
    _Panel("Received, more is better", (THROUGHPUT, PACKETS)),
    _Panel("CPU-seconds per GiB, less is better", (CPU,)),
    _Panel("Ping, median, less is better", (PING_MEDIAN,)),
    _Panel("Ping, 99th percentile, less is better", (PING_P99,)),
)


def check_matplotlib() -> None:
    """Raise BenchmarkError if plots cannot be drawn with the running Python."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchmarkError(
            "--plots needs matplotlib: run `.venv/bin/pip install matplotlib`, then this with "
            ".venv/bin/python"
        )


def write_plots(report: Report, directory: Path) -> list[Path]:
    """Write `compare-MTU-FAMILY.png` for each MTU and family of the report; return the files."""
    # Loaded only here: it is large, and not needed for the measurement.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    written = []
    for mtu, family in dict.fromkeys((case.mtu, case.family) for case in report.cases):
        groups = _groups(report, mtu, family)
        panels = [panel for panel in _PANELS if _bars(groups, panel)]
        if not panels:
            continue  # everything failed
        compared = [tested.name for tested in report.implementations if tested.name != BASELINE]
        width = 2 + _INCHES_PER_BAR * (1 + len(compared)) * len(groups)
        size = (max(width, 6.4), _PANEL_HEIGHT_INCHES * len(panels) + 0.8)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(f"Ratio to {BASELINE}: tunnel MTU {mtu}, IP{family.value}")
        all_axes = figure.subplots(len(panels), squeeze=False)[:, 0]
        for axes, panel in zip(all_axes, panels, strict=True):
            _draw(axes, panel, _bars(groups, panel), compared)
        patches = [Patch(color=_COLOURS[name], label=name) for name in compared]
        figure.legend(handles=patches, loc="outside lower center", ncols=len(compared))
        file = directory / f"compare-{mtu}-{family.value}.png"
        figure.savefig(file, dpi=120)
        written.append(file)
    return written


def _groups(report: Report, mtu: int, family: Family) -> list[Sequence[Summary]]:
    return [
        summaries
        for case, summaries in zip(report.cases, report.summaries, strict=True)
        if (case.mtu, case.family) == (mtu, family)
    ]


def _bars(groups: Sequence[Sequence[Summary]], panel: _Panel) -> dict[str, dict[str, Spread]]:
    """Return the ratios of a panel: by workload, then by implementation."""
    bars: dict[str, dict[str, Spread]] = {}
    for summaries in groups:
        for summary in summaries:
            for metric in panel.metrics:
                if summary.implementation != BASELINE and metric.name in summary.ratios:
                    of_workload = bars.setdefault(summary.case.workload.name, {})
                    of_workload[summary.implementation] = summary.ratios[metric.name]
    return bars


def _draw(
    axes: "Axes", panel: _Panel, bars: dict[str, dict[str, Spread]], compared: Sequence[str]
) -> None:
    width = _GROUP_WIDTH / len(compared)
    for place, name in enumerate(compared):
        drawn = [
            (group + (place + 0.5) * width - _GROUP_WIDTH / 2, ratios[name])
            for group, ratios in enumerate(bars.values())
            if name in ratios
        ]
        below = [spread.median - spread.minimum for _, spread in drawn]
        above = [spread.maximum - spread.median for _, spread in drawn]
        axes.bar(
            [position for position, _ in drawn],
            [spread.median - 1 for _, spread in drawn],
            width,
            bottom=1,
            yerr=[below, above],
            capsize=2,
            color=_COLOURS[name],
            error_kw={"elinewidth": 1},
        )
    # Twice as much and half as much are equally far from 1.
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(lambda ratio, _position: f"{ratio:g}")
    axes.grid(axis="y", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(bars)), list(bars))
    axes.set_xlim(-0.5, len(bars) - 0.5)
    axes.set_title(panel.title, fontsize="medium")
