"""Time as wgd's core sees it: values passed in, never read."""

import time
from typing import NamedTuple, Protocol


class Instant(NamedTuple):
    """One moment on two clocks, both in nanoseconds.

    `boot_ns` never goes back and counts suspended time (CLOCK_BOOTTIME): every deadline is on it.
    `wall_ns` is Unix time: only for TAI64N timestamps and for what a user is shown.
    """

    boot_ns: int
    wall_ns: int

    def wall_at(self, boot_ns: int) -> int:
        """Return the Unix time of another moment of the boot clock; 0, which is never, stays 0."""
        return boot_ns and self.wall_ns - self.boot_ns + boot_ns


class Clock(Protocol):
    """Something that tells the time."""

    def now(self) -> Instant:
        """Return the present moment on both clocks."""

    def boot_ns(self) -> int:
        """Return only the monotonic half of `now`, in nanoseconds."""


# Darwin's CLOCK_MONOTONIC counts suspended time; Linux's does not, its CLOCK_BOOTTIME does.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> Instant:
        """Return the present moment on both clocks."""
        return Instant(time.clock_gettime_ns(_BOOT_CLOCK), time.time_ns())

    def boot_ns(self) -> int:
        """Return nanoseconds since boot, suspended time included."""
        return time.clock_gettime_ns(_BOOT_CLOCK)


class VirtualClock:
    """A clock that moves only when told to: a simulated day takes milliseconds."""

    def __init__(self, boot_ns: int = 1_000_000_000, wall_ns: int = 1_700_000_000_000_000_000):
        self._boot_ns = boot_ns
        self._wall_ns = wall_ns

    def now(self) -> Instant:
        """Return the simulated moment."""
        return Instant(self._boot_ns, self._wall_ns)

    def boot_ns(self) -> int:
        """Return the monotonic half of the simulated moment."""
        return self._boot_ns

    def advance(self, duration_ns: int) -> None:
        """Let `duration_ns` pass on both clocks."""
        self._boot_ns += duration_ns
        self._wall_ns += duration_ns

    def step_wall_clock(self, difference_ns: int) -> None:
        """Move only the wall clock, forth or back, as an NTP step does."""
        self._wall_ns += difference_ns
