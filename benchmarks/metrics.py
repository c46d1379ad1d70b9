"""What is measured: the name of each figure, its unit, and whether more of it is better."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Metric:
    """A figure of a round. `name` is its key in JSON; `title` its unit in tables, times `scale`."""

    name: str
    title: str
    scale: float
    decimals: int
    more_is_better: bool


THROUGHPUT: Final = Metric("bits_per_second", "Mbit/s", 1e-6, 0, more_is_better=True)
PACKETS: Final = Metric("packets_per_second", "1000 packets/s", 1e-3, 1, more_is_better=True)
CPU: Final = Metric("cpu_seconds_per_gib", "CPU-s per GiB", 1, 2, more_is_better=False)
PING_MEDIAN: Final = Metric("ping_median_ms", "ms, median", 1, 3, more_is_better=False)
PING_P99: Final = Metric("ping_p99_ms", "ms, p99", 1, 3, more_is_better=False)
