"""What a comparison says at its end: the machine, medians, spreads and ratios within pairs."""

import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from implementations import Implementation
from measurement import Round
from processes import run


@dataclass(frozen=True)
class Machine:
    """Where the figures were measured."""

    cpu_model: str
    cores: int
    kernel: str
    iperf3: str

    @classmethod
    def this(cls) -> "Machine":
        """Describe the machine we run on; `cores` are those this process may use."""
        return cls(
            cpu_model=_cpu_model(),
            cores=len(os.sched_getaffinity(0)),
            kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
            iperf3=run("iperf3", "--version").splitlines()[0],
        )


@dataclass(frozen=True)
class Spread:
    """A median with the least and the greatest value."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Summarise at least one value."""
        listed = list(values)
        return cls(statistics.median(listed), min(listed), max(listed))

    def format(self, decimals: int) -> str:
        """Return `median (minimum to maximum)`."""
        low, high = f"{self.minimum:.{decimals}f}", f"{self.maximum:.{decimals}f}"
        return f"{self.median:.{decimals}f} ({low} to {high})"


@dataclass(frozen=True)
class Summary:
    """One implementation's rounds; the ratios are to the baseline's round of the same pair."""

    implementation: str
    bits_per_second: Spread
    cpu_seconds_per_gib: Spread
    throughput_ratio: Spread
    cpu_ratio: Spread
    noisy_rounds: int


def summarise(rounds: Sequence[Round], implementation: str, baseline: str) -> Summary:
    """Summarise the rounds of an implementation that has one in every pair, as the baseline has."""
    own = [entry for entry in rounds if entry.implementation == implementation]
    theirs = {entry.pair: entry for entry in rounds if entry.implementation == baseline}

    def ratio(figure: Callable[[Round], float]) -> Spread:
        return Spread.of(figure(entry) / figure(theirs[entry.pair]) for entry in own)

    return Summary(
        implementation=implementation,
        bits_per_second=Spread.of(entry.bits_per_second for entry in own),
        cpu_seconds_per_gib=Spread.of(entry.cpu_seconds_per_gib for entry in own),
        throughput_ratio=ratio(lambda entry: entry.bits_per_second),
        cpu_ratio=ratio(lambda entry: entry.cpu_seconds_per_gib),
        noisy_rounds=sum(entry.is_noisy for entry in own),
    )


@dataclass(frozen=True)
class Report:
    """A finished comparison; the last implementation is the baseline of the ratios."""

    machine: Machine
    implementations: Sequence[Implementation]
    seconds: int
    rounds: Sequence[Round]

    def _summaries(self) -> list[Summary]:
        baseline = self.implementations[-1].name
        return [summarise(self.rounds, tested.name, baseline) for tested in self.implementations]

    def as_json(self) -> dict[str, object]:
        """Return everything as values that JSON knows; units are in the names."""
        return {
            "machine": asdict(self.machine),
            "implementations": [
                {"name": tested.name, "program": str(tested.program), "version": tested.version}
                for tested in self.implementations
            ],
            "workload": {"protocol": "tcp", "streams": 1, "seconds": self.seconds},
            "summaries": [asdict(summary) for summary in self._summaries()],
            "rounds": [asdict(entry) for entry in self.rounds],
        }

    def as_markdown(self) -> str:
        """Return a table with one row per implementation, and what one must know to read it."""
        baseline = self.implementations[-1].name
        header = (
            "implementation",
            "Mbit/s",
            f"/ {baseline}",
            "CPU-s per GiB",
            f"/ {baseline}",
            "noisy rounds",
        )
        rows = [header, ("---", *["---:"] * (len(header) - 1))]
        for summary in self._summaries():
            is_baseline = summary.implementation == baseline
            mbits = Spread(*(value / 1e6 for value in asdict(summary.bits_per_second).values()))
            rows.append(
                (
                    summary.implementation,
                    mbits.format(0),
                    "1" if is_baseline else summary.throughput_ratio.format(3),
                    summary.cpu_seconds_per_gib.format(2),
                    "1" if is_baseline else summary.cpu_ratio.format(2),
                    str(summary.noisy_rounds),
                )
            )
        pairs = len({entry.pair for entry in self.rounds})
        versions = ", ".join(tested.version for tested in self.implementations)
        machine = self.machine
        return "\n".join(
            [
                *(f"| {' | '.join(row)} |" for row in rows),
                "",
                f"Median (least to greatest) of {pairs} interleaved pairs; one TCP stream of "
                f"{self.seconds} s; both ends and iperf3 on this machine.",
                "Ratios are within a pair. CPU is that of both daemons. In a noisy round others "
                "had more than 0.2 of a core.",
                f"{machine.cpu_model}, {machine.cores} cores, {machine.kernel}; {versions}; "
                f"{machine.iperf3}.",
            ]
        )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return "unknown CPU"  # ARM kernels name only numbers
