"""What is seen of a soak from outside: memory, descriptors, CPU, round trips, handshakes."""

import os
import re
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pings import percentile
from processes import BenchmarkError, Process

_CLOCK_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_LINE: Final = re.compile(
    r"^\[(?P<time>[0-9.]+)\] .*\bicmp_seq=(?P<sequence>[0-9]+)"
    r"(?:.* time=(?P<milliseconds>[0-9.]+))?"
)
_SEQUENCES: Final = 2**16


@dataclass(frozen=True)
class Reading:
    """One daemon at one moment; `cpu_seconds` is all it has used so far."""

    rss_kib: int
    pss_kib: int
    anonymous_kib: int
    descriptors: int
    threads: int
    cpu_seconds: float

    @classmethod
    def of(cls, pid: int) -> "Reading":
        """Read proc(5); raises BenchmarkError if the process is gone."""
        process = Path("/proc") / str(pid)
        try:
            memory = _fields(process / "smaps_rollup")
            stat = (process / "stat").read_text().rpartition(")")[2].split()
            return cls(
                rss_kib=memory["Rss"],
                pss_kib=memory["Pss"],
                anonymous_kib=memory["Anonymous"],
                descriptors=len(os.listdir(process / "fd")),  # noqa: PTH208 - only how many
                threads=int(stat[17]),
                cpu_seconds=(int(stat[11]) + int(stat[12])) / _CLOCK_TICKS_PER_SECOND,
            )
        except (OSError, KeyError) as error:
            raise BenchmarkError(f"process {pid} cannot be read: {error!r}") from error


@dataclass(frozen=True)
class RoundTripTimes:
    """The answers that came since the last sample; None if there were none."""

    answered: int
    median_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class Sample:
    """Everything at one moment: `seconds` since the start; handshakes between the ends so far.

    `outside` is a ping over the cable, beside the tunnel: it shows what the machine alone did.
    """

    seconds: float
    left: Reading
    right: Reading
    tunnel: RoundTripTimes
    outside: RoundTripTimes
    handshakes: int


class PingFollower:
    """A ping(8) under way with `-D` and `-O`, read as it prints."""

    def __init__(self, output: Path, process: Process) -> None:
        self._file = output.open()
        self._process = process
        self._unread = ""
        self._last_sequence = 0
        self._unanswered: dict[int, float] = {}

    def close(self) -> None:
        """Read no more."""
        self._file.close()

    def take(self) -> RoundTripTimes:
        """Return what came since the last time; raises BenchmarkError if ping has ended."""
        self._process.check_running()
        times_ms: list[float] = []
        lines = (self._unread + self._file.read()).split("\n")
        self._unread = lines.pop()
        for line in lines:
            if (match := _LINE.match(line)) is None:
                continue
            sequence = self._unwrap(int(match["sequence"]))
            if match["milliseconds"]:
                times_ms.append(float(match["milliseconds"]))
                self._unanswered.pop(sequence, None)
            elif "no answer" in line:
                self._unanswered[sequence] = float(match["time"])
        if not times_ms:
            return RoundTripTimes(0, None, None)
        return RoundTripTimes(len(times_ms), statistics.median(times_ms), percentile(times_ms, 99))

    def lost_at(self, patience_seconds: float = 2) -> list[float]:
        """Return when (Unix time) each ping was found lost, but for the most recent ones."""
        latest = time.time() - patience_seconds
        return [when for when in self._unanswered.values() if when < latest]

    def _unwrap(self, sequence: int) -> int:
        """Return a number of 16 bits as the one near the last that it stands for."""
        distance = (sequence - self._last_sequence + _SEQUENCES // 2) % _SEQUENCES
        self._last_sequence += distance - _SEQUENCES // 2
        return self._last_sequence


def _fields(file: Path) -> Mapping[str, int]:
    pairs = (line.split() for line in file.read_text().splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) for words in pairs}
