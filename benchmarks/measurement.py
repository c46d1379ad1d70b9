"""One round: a TCP stream through a fresh tunnel, and who used how much CPU meanwhile."""

import json
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from implementations import Implementation
from processes import BenchmarkError, Process, wait_until
from testbed import Tunnel, tunnel

_CLOCK_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_IPERF_PORT: Final = 5201
_START_TIMEOUT_SECONDS: Final = 5
_END_TIMEOUT_SECONDS: Final = 30  # beyond the seconds of the stream
_NOISY_CORES: Final = 0.2


@dataclass(frozen=True)
class Round:
    """What one round measured.

    `others_cores` is the CPU that was neither the daemons' nor iperf3's, in cores: that of other
    processes, of the kernel outside any process, and of other machines on the same host (steal).
    """

    pair: int
    implementation: str
    bits_per_second: float
    gib_received: float
    sender_cpu_seconds: float
    receiver_cpu_seconds: float
    cpu_seconds_per_gib: float
    iperf3_cpu_seconds: float
    others_cores: float
    is_noisy: bool


def measure_tcp(implementation: Implementation, pair: int, seconds: int) -> Round:
    """Send one TCP stream for `seconds` through a tunnel of fresh daemons and return the figures.

    Raises BenchmarkError if the daemons do not run, or nothing comes through.
    """
    with tunnel(implementation.program) as tested:
        before = _Usage(tested)
        bits_per_second, received_bytes = _iperf3(tested, seconds)
        after = _Usage(tested)

    gib = received_bytes / 2**30
    sender = after.sender_seconds - before.sender_seconds
    receiver = after.receiver_seconds - before.receiver_seconds
    iperf3 = after.children_seconds - before.children_seconds
    busy = after.machine_seconds - before.machine_seconds
    elapsed = after.time_seconds - before.time_seconds
    others_cores = max(0.0, (busy - sender - receiver - iperf3) / elapsed)
    return Round(
        pair=pair,
        implementation=implementation.name,
        bits_per_second=bits_per_second,
        gib_received=gib,
        sender_cpu_seconds=sender,
        receiver_cpu_seconds=receiver,
        cpu_seconds_per_gib=(sender + receiver) / gib,
        iperf3_cpu_seconds=iperf3,
        others_cores=others_cores,
        is_noisy=others_cores > _NOISY_CORES,
    )


class _Usage:
    """CPU-seconds used so far: by the two daemons, by children that have ended, by everybody."""

    def __init__(self, tested: Tunnel) -> None:
        self.time_seconds = time.monotonic()
        self.sender_seconds = _process_seconds(tested.left.daemon.pid)
        self.receiver_seconds = _process_seconds(tested.right.daemon.pid)
        # iperf3 is the only child that ends between two readings.
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.children_seconds = children.ru_utime + children.ru_stime
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


def _iperf3(tested: Tunnel, seconds: int) -> tuple[float, int]:
    """Send from left to right; return bits per second and bytes as the receiver counted them."""
    left, right = tested.left, tested.right
    address = ("-p", str(_IPERF_PORT))
    with right.start("iperf3", "-s", "-1", *address, output="server.txt") as server:
        wait_until(lambda: _listens(server), _START_TIMEOUT_SECONDS, what="iperf3 -s listening")
        arguments = ("-c", right.address, *address, "-t", str(seconds), "--json")
        with left.start("iperf3", *arguments, output="client.json") as client:

            def has_ended() -> bool:
                tested.check_running()
                return client.has_ended()

            wait_until(has_ended, seconds + _END_TIMEOUT_SECONDS, what="the end of iperf3")
            client.wait_for_success(_END_TIMEOUT_SECONDS)
        server.wait_for_success(_END_TIMEOUT_SECONDS)
        received = json.loads(client.output())["end"]["sum_received"]
    bits_per_second, received_bytes = float(received["bits_per_second"]), int(received["bytes"])
    if received_bytes == 0:
        raise BenchmarkError("iperf3 got nothing through the tunnel")
    return bits_per_second, received_bytes


def _listens(server: Process) -> bool:
    """Whether the server accepts; it is not asked by connecting, since it serves only once."""
    server.check_running()
    network = Path(f"/proc/{server.pid}/net")
    sockets = [line.split() for name in ("tcp", "tcp6") for line in _lines(network / name)]
    port, listening = f":{_IPERF_PORT:04X}", "0A"
    return any(fields[1].endswith(port) and fields[3] == listening for fields in sockets)


def _lines(table: Path) -> list[str]:
    try:
        return table.read_text().splitlines()[1:]
    except OSError:  # no tcp6 where IPv6 is switched off; a server that ended is seen elsewhere
        return []
