"""What is sent through a tunnel, and the figures that come of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import iperf3
import pings
from metrics import CPU, PACKETS, PING_MEDIAN, PING_P99, THROUGHPUT, Metric
from processes import BenchmarkError, wait_until
from testbed import Tunnel

_UDP_HEADER_BYTES: Final = 8
_FULL_LOAD_BYTES: Final = 4 * 2**20  # enough for TCP to have found its window
_FULL_LOAD_TIMEOUT_SECONDS: Final = 10
_LOAD_OUTLASTS_PINGS_SECONDS: Final = 2

Figures = dict[str, float]


@dataclass(frozen=True)
class Workload:
    """Something to send for so many seconds.

    `metrics` are the figures that tables show; `measure` may return more, and in all throughput
    workloads `received_bytes`, which CPU-seconds are divided by.
    """

    name: str
    description: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Tunnel, int], Figures]


def _tcp(*options: str) -> Callable[[Tunnel, int], Figures]:
    def measure(tested: Tunnel, seconds: int) -> Figures:
        with iperf3.load(tested, seconds, *options) as load:
            return _tcp_figures(load.wait())

    return measure


def _tcp_figures(transfer: iperf3.Transfer) -> Figures:
    return {
        THROUGHPUT.name: 8 * transfer.received_bytes / transfer.received_seconds,
        "received_bytes": transfer.received_bytes,
    }


def _udp(payload_bytes: int) -> Callable[[Tunnel, int], Figures]:
    def measure(tested: Tunnel, seconds: int) -> Figures:
        # A datagram that had to be fragmented would be two packets: IPv6 leaves less room.
        largest = tested.mtu - tested.family.header_bytes - _UDP_HEADER_BYTES
        length = min(payload_bytes, largest)
        options = ("-u", "-b", "0", "-l", str(length))
        with iperf3.load(tested, seconds, *options) as load:
            transfer = load.wait()
        # The sender's seconds: the receiver's clock goes on until the end of the test has come
        # through the tunnel, which takes a while after a flood.
        return {
            PACKETS.name: transfer.received_bytes / length / transfer.sent_seconds,
            "packets_sent_per_second": transfer.sent_bytes / length / transfer.sent_seconds,
            "payload_bytes": length,
            "received_bytes": transfer.received_bytes,
        }

    return measure


def _ping_idle(tested: Tunnel, seconds: int) -> Figures:
    return _ping_figures(pings.ping(tested, seconds))


def _ping_load(tested: Tunnel, seconds: int) -> Figures:
    with iperf3.load(tested, seconds + _LOAD_OUTLASTS_PINGS_SECONDS) as load:

        def is_under_load() -> bool:
            return load.is_over() or tested.left.sent_bytes() >= _FULL_LOAD_BYTES

        wait_until(is_under_load, _FULL_LOAD_TIMEOUT_SECONDS, what="a TCP stream under way")
        times = pings.ping(tested, seconds)
        if load.is_over():
            raise BenchmarkError("the TCP stream ended before the pings did")
        return _ping_figures(times) | _tcp_figures(load.wait())


def _ping_figures(times: pings.RoundTrips) -> Figures:
    return {
        PING_MEDIAN.name: times.median_ms,
        PING_P99.name: times.p99_ms,
        "pings_sent": times.sent,
        "pings_answered": times.answered,
    }


_WORKLOADS: Final = (
    Workload("tcp1", "one TCP stream", (THROUGHPUT, CPU), _tcp()),
    Workload("tcp8", "eight TCP streams", (THROUGHPUT, CPU), _tcp("-P", "8")),
    Workload(
        "bidirectional", "a TCP stream each way, added up", (THROUGHPUT, CPU), _tcp("--bidir")
    ),
    Workload("udp1392", "datagrams of 1392 bytes, as many as go", (PACKETS, CPU), _udp(1392)),
    Workload("udp64", "datagrams of 64 bytes, as many as go", (PACKETS, CPU), _udp(64)),
    Workload("ping-idle", "pings alone", (PING_MEDIAN, PING_P99), _ping_idle),
    Workload("ping-load", "pings beside a TCP stream", (PING_MEDIAN, PING_P99), _ping_load),
)
WORKLOADS: Final = {workload.name: workload for workload in _WORKLOADS}
