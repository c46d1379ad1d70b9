"""Compare what handshakes cost wgd and wireguard-go, as responder and as initiator.

A daemon with many peers makes handshakes with them, over loopback in a network namespace of its
own; rounds are interleaved. The peers are this program: CPU-seconds are those of the daemon alone.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from arguments import from_
from handshake_bed import Bed, bed
from handshake_crowd import Crowd, median_ms
from implementations import BASELINE, Implementation, find_implementations
from machine import Machine
from metrics import Metric
from processes import BenchmarkError, defer_interruptions, wait_until
from summary import Spread
from testbed import check_requirements

_NAMES: Final = ("wgd-native", "wgd-portable", BASELINE)
_SINGLE_HANDSHAKES: Final = 300
_SETTLE_SECONDS: Final = 0.2
_REKEY_TIMEOUT_SECONDS: Final = 5  # of the protocol: no initiation so soon after a response
_SETTLE_TIMEOUT_SECONDS: Final = 30
_METRICS: Final = (
    Metric("handshakes_per_cpu_second", "per CPU-second", 1, 0, more_is_better=True),
    Metric("handshakes_per_second", "per second", 1, 0, more_is_better=True),
    Metric("latency_median_ms", "ms, one at a time", 1, 3, more_is_better=False),
)

Figures = dict[str, float]


@dataclass(frozen=True)
class Round:
    """What one daemon did in one role."""

    pair: int
    role: str
    implementation: str
    figures: Figures


def main() -> int:
    """Run the comparison; 0 when done, 1 with a line that says what is wrong, 130 on Ctrl-C."""
    given = _parse()
    rounds: list[Round] = []
    status = 0
    try:
        check_requirements()
        implementations, _ = find_implementations(given.implementations, {})
        machine = Machine.this()
        defer_interruptions()
        try:
            for measured in _measure(given, implementations):
                rounds.append(measured)
                figures = "".join(
                    f"  {measured.figures[metric.name]:10.{metric.decimals}f} {metric.title}"
                    for metric in _METRICS
                )
                about = f"pair {measured.pair}  {measured.role:<9}  {measured.implementation:<12}"
                sys.stdout.write(f"{about}{figures}\n")
                sys.stdout.flush()
        except KeyboardInterrupt:
            status = 130
    except (BenchmarkError, OSError) as error:
        sys.stderr.write(f"handshakes: {error}\n")
        return 1
    if rounds:
        tables = "\n".join(markdown(given.peers, machine, implementations, rounds)) + "\n"
        sys.stdout.write(f"\n{tables}")
        if given.markdown is not None:
            given.markdown.write_text(tables)
        if given.json is not None:
            found = {"machine": asdict(machine), "rounds": [asdict(each) for each in rounds]}
            given.json.write_text(json.dumps(found, indent=2) + "\n")
    return status


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/handshakes", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--pairs", type=from_(1), default=5, help="rounds of each (default: 5)")
    parser.add_argument(
        "--peers",
        type=from_(2 * _SINGLE_HANDSHAKES, 60000),
        default=5000,
        help="each makes a handshake that is measured (default: 5000)",
    )
    parser.add_argument(
        "--implementations",
        type=lambda text: tuple(text.split(",")),
        default=_NAMES,
        metavar="NAME,...",
        help=f"which of {', '.join(_NAMES)} (default: all; {BASELINE} always takes part)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to FILE")
    given = parser.parse_args()
    if unknown := set(given.implementations) - set(_NAMES):
        parser.error(f"--implementations: {', '.join(unknown)} is none of {', '.join(_NAMES)}")
    return given


# -- the rounds ------------------------------------------------------------------------------------


def _measure(
    given: argparse.Namespace, implementations: Sequence[Implementation]
) -> Iterator[Round]:
    roles = {"responder": _responder, "initiator": _initiator}
    for pair in range(1, given.pairs + 1):
        first = (pair - 1) % len(implementations)
        for role, measure in roles.items():
            for implementation in (*implementations[first:], *implementations[:first]):
                crowd = Crowd(given.peers)
                with bed(implementation) as made:
                    made.configure(crowd.daemon_private_key, crowd.public_keys)
                    # A first handshake may cost more, and tells where the peer is. Sessions that
                    # are never confirmed do not keep the daemon from beginning others.
                    crowd.initiate(made, crowd.prepare(), confirms=False)
                    figures = measure(made, crowd)
                yield Round(pair, role, implementation.name, figures)


def _responder(made: Bed, crowd: Crowd) -> Figures:
    prepared = crowd.prepare()
    single = crowd.prepare()[:_SINGLE_HANDSHAKES]
    account = _Account(made)
    crowd.initiate(made, prepared)
    figures = account.figures(len(prepared))
    return figures | {"latency_median_ms": median_ms(crowd.initiate(made, single, window=1))}


def _initiator(made: Bed, crowd: Crowd) -> Figures:
    wait = time.monotonic() + _REKEY_TIMEOUT_SECONDS + _SETTLE_SECONDS
    wait_until(lambda: time.monotonic() > wait, 2 * _REKEY_TIMEOUT_SECONDS, what="time")
    everybody = range(len(crowd.public_keys))
    single, peers = everybody[:_SINGLE_HANDSHAKES], everybody[_SINGLE_HANDSHAKES:]
    latencies = crowd.respond(made, single, window=1)
    account = _Account(made)
    crowd.respond(made, peers)
    return account.figures(len(peers)) | {"latency_median_ms": median_ms(latencies)}


class _Account:
    """What a daemon that had nothing to do uses from now on."""

    def __init__(self, made: Bed) -> None:
        _settle(made)
        self._made = made
        self._cpu_seconds = made.cpu_seconds()
        self._begun = time.perf_counter()

    def figures(self, handshakes: int) -> Figures:
        """Return the account up to now, once the daemon has nothing to do any more."""
        seconds = time.perf_counter() - self._begun
        _settle(self._made)
        cpu_seconds = self._made.cpu_seconds() - self._cpu_seconds
        return {
            "handshakes": handshakes,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "handshakes_per_cpu_second": handshakes / cpu_seconds,
            "handshakes_per_second": handshakes / seconds,
        }


def _settle(made: Bed) -> None:
    """Wait until the daemon has used (next to) nothing for a moment."""

    def is_idle() -> bool:
        made.daemon.check_running()
        before = made.cpu_seconds()
        time.sleep(_SETTLE_SECONDS)
        return made.cpu_seconds() - before < _SETTLE_SECONDS / 50

    wait_until(is_idle, _SETTLE_TIMEOUT_SECONDS, what="the daemon has nothing to do")


# -- the report ------------------------------------------------------------------------------------


def markdown(
    peers: int,
    machine: Machine,
    implementations: Sequence[Implementation],
    rounds: Sequence[Round],
) -> Iterator[str]:
    """Yield the lines of two tables, of ratios and of figures, and what they mean."""
    names = [tested.name for tested in implementations]
    others = [name for name in names if name != BASELINE]
    yield f"Ratios to {BASELINE}, within pairs:\n"
    yield from _table(rounds, others, lambda of, base, name: of[name] / base[name], 2)
    yield "\nFigures:\n"
    yield from _table(rounds, names, lambda of, _base, name: of[name], None)
    yield (
        f"\nMedians (least to greatest) of {max(each.pair for each in rounds)} interleaved pairs; "
        f"a handshake with each of {peers} peers in a round. A CPU-second is the daemon's, "
        "user and kernel, all threads. One at a time: as responder from initiation to response; as "
        "initiator from a packet to send to that packet sent, without the peer's own time."
    )
    yield f"{'; '.join(tested.version for tested in implementations)}."
    yield f"{machine}."


def _table(
    rounds: Sequence[Round],
    names: Sequence[str],
    value: Callable[[Figures, Figures, str], float],
    decimals: int | None,
) -> Iterator[str]:
    """Yield a line for each metric of each role, of values of a round and the baseline's."""
    found = {(each.role, each.implementation, each.pair): each.figures for each in rounds}
    yield f"| role | handshakes | {' | '.join(names)} |"
    yield f"| --- | --- |{' ---: |' * len(names)}"
    for role in dict.fromkeys(each.role for each in rounds):
        for metric in _METRICS:
            cells = []
            for name in names:
                spread = Spread.of(
                    value(figures, found[role, BASELINE, pair], metric.name)
                    for (of_role, of_name, pair), figures in found.items()
                    if (of_role, of_name) == (role, name) and (role, BASELINE, pair) in found
                )
                shown = metric.decimals if decimals is None else decimals
                cells.append(spread.format(shown) if spread else "-")
            arrow = "↑" if metric.more_is_better else "↓"
            yield f"| {role} | {metric.title} {arrow} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
