"""What a flooded daemon has used, and what came to it: readings, and what was between two."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from flood_bed import FloodBed

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Between:
    """All a second. `lost` are datagrams for which the daemon's sockets had no room."""

    cores: float
    arrived_per_second: float
    lost_per_second: float
    answers_per_second: float

    @property
    def read_per_second(self) -> float:
        """How many packets of the flood the daemon itself had to handle."""
        return self.arrived_per_second - self.lost_per_second


class Usage:
    """A reading."""

    def __init__(self, bed: FloodBed) -> None:
        pid = bed.tested.right.daemon.pid
        self._at = time.monotonic()
        self._cpu_seconds = _cpu_seconds(pid)
        self._lost = _lost_at_sockets(pid)
        self._arrived, self._answers = bed.arrived_and_answers()

    def since(self, before: Self) -> Between:
        """Return what was between an earlier reading and this one."""
        elapsed = self._at - before._at
        return Between(
            cores=(self._cpu_seconds - before._cpu_seconds) / elapsed,
            arrived_per_second=(self._arrived - before._arrived) / elapsed,
            lost_per_second=(self._lost - before._lost) / elapsed,
            answers_per_second=(self._answers - before._answers) / elapsed,
        )


def _cpu_seconds(pid: int) -> float:
    """Return utime + stime of all threads: proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _lost_at_sockets(pid: int) -> int:
    """Return how many datagrams found a full socket in the namespace of a process."""
    lines = Path(f"/proc/{pid}/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    return int(values[names.index("RcvbufErrors")])
