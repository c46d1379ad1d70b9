"""The panels of the Grafana dashboard, drawn by matplotlib from what Prometheus answers.

This is not Grafana's rendering: it shows that every expression of the dashboard has data, and where
on the dashboard it is.
"""

import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from tests.watch.prometheus import Prometheus, Query, Series, dashboard_panels, dashboard_queries

COLUMNS = 24
INCHES_PER_COLUMN, INCHES_PER_ROW = 0.72, 0.33
_UNITS = {"bps": "bit/s", "pps": "/s", "ops": "/s", "s": "s", "bytes": "B"}


def draw_dashboard(prometheus: Prometheus, start: float, end: float, path: Path) -> None:
    """Draw every panel for the time from `start` to `end` (Unix time) into a PNG file."""
    panels = dashboard_panels()
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(COLUMNS * INCHES_PER_COLUMN, rows * INCHES_PER_ROW), dpi=100)
    with mpl.rc_context({"font.size": 8}):
        grid = figure.add_gridspec(
            rows, COLUMNS, left=0.04, right=0.99, top=0.995, bottom=0.005, hspace=2.2, wspace=3
        )
        queries = dashboard_queries()
        for panel in panels:
            place = panel["gridPos"]
            x, y = place["x"], place["y"]
            spot = grid[y + 1 : y + place["h"] - 1, x + 1 if x else x : x + place["w"]]
            axes = figure.add_subplot(spot)
            axes.set_title(panel["title"], loc="left", fontweight="bold")
            results = [
                (query, prometheus.query_range(query.expression, start, end))
                for query in queries
                if query.panel == panel["id"]
            ]
            _draw(axes, panel, results, start)
    figure.savefig(path, pil_kwargs={"optimize": True})


def _draw(
    axes: Axes, panel: dict[str, Any], results: list[tuple[Query, list[Series]]], start: float
) -> None:
    if panel["type"] == "stat":
        _draw_values(axes, results)
    elif panel["type"] == "heatmap":
        _draw_heatmap(axes, results[0][1], start)
    else:
        _draw_lines(axes, panel["fieldConfig"]["defaults"]["unit"], results, start)


def _draw_values(axes: Axes, results: list[tuple[Query, list[Series]]]) -> None:
    axes.axis("off")
    lines = [
        f"{samples[-1].value:g}  {_legend(query, labels)}"
        for query, series in results
        for labels, samples in series
    ]
    axes.text(0, 0.9, "\n".join(lines), fontsize=11, va="top")


def _draw_lines(
    axes: Axes, unit: str, results: list[tuple[Query, list[Series]]], start: float
) -> None:
    for query, series in results:
        for labels, samples in series:
            points = [each for each in samples if math.isfinite(each.value)]
            axes.plot(
                [each.at - start for each in points],
                [each.value for each in points],
                label=_legend(query, labels),
                linewidth=1,
                marker="." if len(points) < 3 else None,
            )
    axes.set_ylim(bottom=0)
    if unit == "percentunit":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    elif unit in _UNITS:
        axes.yaxis.set_major_formatter(EngFormatter(_UNITS[unit]))
    axes.set_xlabel("seconds", loc="right", labelpad=-1)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=6, framealpha=0.6, ncols=2)


def _draw_heatmap(axes: Axes, series: list[Series], start: float) -> None:
    """Draw how many fell into each bucket, second by second, from cumulative buckets."""
    bounds = sorted((float(labels["le"]), samples) for labels, samples in series)
    counts: dict[float, dict[float, float]] = defaultdict(dict)
    for bound, samples in bounds:
        for at, value in samples:
            counts[at - start][bound] = value
    names = [f"{bound:g}" for bound, _ in bounds]
    image = [
        [max(0.0, of[bound] - of.get(lower, 0.0)) if bound in of else 0.0 for of in counts.values()]
        for (bound, _), lower in zip(bounds, [0.0, *(b for b, _ in bounds)], strict=False)
    ]
    axes.pcolormesh(list(counts), range(len(names)), image, cmap="Oranges", shading="nearest")
    axes.set_yticks(range(len(names)), names, fontsize=5)
    axes.set_ylabel("up to s", fontsize=6)
    axes.set_xlabel("seconds", loc="right", labelpad=-1)


def _legend(query: Query, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda name: labels.get(name[1], ""), query.legend)
