"""Round-trip times through the tunnel, as ping(8) measured them."""

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from processes import BenchmarkError, wait_until
from testbed import Tunnel

_INTERVAL_SECONDS: Final = 0.01
_END_TIMEOUT_SECONDS: Final = 10  # beyond the seconds of pings
_TIME: Final = re.compile(r"\btime=([0-9.]+) ms")
_SENT: Final = re.compile(r"^([0-9]+) packets transmitted", re.MULTILINE)


@dataclass(frozen=True)
class RoundTrips:
    """A hundred pings a second; those without an answer have no time, so they are counted."""

    median_ms: float
    p99_ms: float
    sent: int
    answered: int

    @classmethod
    def from_output(cls, output: str) -> Self:
        """Read what ping printed; raises BenchmarkError if there was no answer at all."""
        times_ms = [float(text) for text in _TIME.findall(output)]
        sent = _SENT.search(output)
        if not times_ms or sent is None:
            raise BenchmarkError("ping got no answer through the tunnel")
        return cls(
            median_ms=statistics.median(times_ms),
            p99_ms=percentile(times_ms, 99),
            sent=int(sent[1]),
            answered=len(times_ms),
        )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the least value that `percent` of them do not exceed (nearest rank); needs one."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def ping(tested: Tunnel, seconds: int) -> RoundTrips:
    """Ping from left to right for `seconds`; raises BenchmarkError if nothing comes back."""
    options = ("-n", "-i", str(_INTERVAL_SECONDS), "-w", str(seconds))
    with tested.left.start("ping", *options, tested.right.address, output="pings.txt") as pinging:

        def has_ended() -> bool:
            tested.check_running()
            return pinging.has_ended()

        wait_until(has_ended, seconds + _END_TIMEOUT_SECONDS, what="the end of ping")
        return RoundTrips.from_output(pinging.output())
