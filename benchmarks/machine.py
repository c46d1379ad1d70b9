"""Where and when figures were measured."""

import os
import platform
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from processes import run


@dataclass(frozen=True)
class Machine:
    """What a report says of its machine; `cores` are those this process may use."""

    cpu_model: str
    is_virtual: bool
    cores: int
    memory_gib: float
    kernel: str
    iperf3: str
    date: str

    @classmethod
    def this(cls) -> "Machine":
        """Describe the machine we run on, today."""
        cpu = _cpu_information()
        pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return cls(
            # ARM kernels name only numbers.
            cpu_model=cpu.get("model name", "unknown CPU"),
            is_virtual="hypervisor" in cpu.get("flags", "").split(),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=round(pages * page_bytes / 2**30, 1),
            kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
            iperf3=run("iperf3", "--version").splitlines()[0],
            date=date.today().isoformat(),
        )

    def __str__(self) -> str:
        cores = f"{self.cores} {'virtual ' if self.is_virtual else ''}cores"
        return (
            f"{self.cpu_model}, {cores}, {self.memory_gib:g} GiB, {self.kernel}; {self.iperf3}; "
            f"{self.date}"
        )


def _cpu_information() -> dict[str, str]:
    """Return what /proc/cpuinfo says of the first core."""
    first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
