"""The rounds: a workload through a fresh tunnel each, and who used how much CPU meanwhile."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cases import Case, schedule
from family import Family
from implementations import Implementation
from metrics import CPU
from processes import BenchmarkError
from testbed import NoTunnelError, tunnel
from usage import Usage
from workloads import Figures

_ATTEMPTS: Final = 2
_NOISY_CORES: Final = 0.2


@dataclass(frozen=True)
class Round:
    """What one round measured: `figures` by the names of metrics, and more; none if it failed.

    `failures` says what went wrong, in the first attempt or in both.
    """

    pair: int
    case: Case
    implementation: str
    figures: Mapping[str, float]
    failures: tuple[str, ...] = ()

    @property
    def has_failed(self) -> bool:
        """Whether there are no figures."""
        return not self.figures

    @property
    def is_noisy(self) -> bool:
        """Whether something else used more than a fifth of a core."""
        return self.figures.get("others_cores", 0.0) > _NOISY_CORES


def measure(
    pairs: int, cases: Sequence[Case], implementations: Sequence[Implementation], seconds: int
) -> Iterator[Round]:
    """Measure every round as it is scheduled, for `seconds` each, and yield it.

    A round that fails is tried once more, with a tunnel as new as the first. When both failed for
    want of a tunnel, the implementation is not tried again at that MTU in that family: gotatun's
    buffers, for one, are too small for MTU 8920. Raises KeyboardInterrupt when interrupted, and
    nothing else.
    """
    cannot: dict[tuple[str, int, Family], str] = {}
    for pair, case, implementation in schedule(pairs, cases, implementations):
        tunnels = (implementation.name, case.mtu, case.family)
        if (reason := cannot.get(tunnels)) is not None:
            failure = f"not tried again: {reason}"
            yield Round(pair, case, implementation.name, {}, (failure,))
            continue
        figures, errors = _attempts(implementation, case, seconds)
        if not figures and all(isinstance(error, NoTunnelError) for error in errors):
            cannot[tunnels] = str(errors[-1])
        yield Round(pair, case, implementation.name, figures, tuple(map(str, errors)))


def _attempts(
    implementation: Implementation, case: Case, seconds: int
) -> tuple[Figures, list[Exception]]:
    """Return the figures of the first attempt that went well, and why others failed."""
    errors: list[Exception] = []
    while len(errors) < _ATTEMPTS:
        try:
            return _attempt(implementation, case, seconds), errors
        except (BenchmarkError, OSError) as error:
            errors.append(error)
    return {}, errors


def _attempt(implementation: Implementation, case: Case, seconds: int) -> Figures:
    with tunnel(implementation, case.mtu, case.family) as tested:
        before = Usage(tested)
        figures = case.workload.measure(tested, seconds)
        after = Usage(tested)
    return figures | _cpu_figures(before, after, figures.get("received_bytes"))


def _cpu_figures(before: Usage, after: Usage, received_bytes: float | None) -> Figures:
    """Return the account between two readings.

    `others_cores` is the CPU that was neither the daemons' nor the tools', in cores: that of other
    processes, of the kernel outside any process, and of other machines on the same host (steal).
    """
    left = after.left_seconds - before.left_seconds
    right = after.right_seconds - before.right_seconds
    tools = after.tools_seconds - before.tools_seconds
    busy = after.machine_seconds - before.machine_seconds
    elapsed = after.time_seconds - before.time_seconds
    figures = {
        "left_cpu_seconds": left,
        "right_cpu_seconds": right,
        "tools_cpu_seconds": tools,
        "others_cores": max(0.0, (busy - left - right - tools) / elapsed),
    }
    if received_bytes is not None:
        figures[CPU.name] = (left + right) / (received_bytes / 2**30)
    return figures
