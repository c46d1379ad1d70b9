"""Who has used how much CPU: the two daemons, the tools that load them, everybody."""

import os
import resource
import time
from pathlib import Path
from typing import Final

from testbed import Tunnel

_CLOCK_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


class Usage:
    """CPU-seconds used so far: a reading; two of them make a round's account."""

    def __init__(self, tested: Tunnel) -> None:
        self.time_seconds = time.monotonic()
        self.left_seconds = _process_seconds(tested.left.daemon.pid)
        self.right_seconds = _process_seconds(tested.right.daemon.pid)
        # iperf3 and ping are the only children that end between two readings.
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.tools_seconds = children.ru_utime + children.ru_stime
        self.machine_seconds = _machine_seconds()


def _process_seconds(pid: int) -> float:
    """Return utime + stime of all threads of a process, also of those that have ended: proc(5)."""
    # The name in the second field may itself hold blanks and brackets.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS_PER_SECOND


def _machine_seconds() -> float:
    """Return the CPU-seconds that all cores together were not idle, steal included: proc(5)."""
    first_line = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first_line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _CLOCK_TICKS_PER_SECOND
