"""TCP through a bad network: wgd beside wireguard-go, each at both ends of its own tunnel.

A relay between the daemons loses, doubles, reorders, corrupts and delays datagrams, swallows long
ones, or moves to another address all the time (tests/faults). For each seed every implementation
sends the same bytes under the same faults, one after the other, and everybody is first in turn.
What arrives is compared by its hash. Needs root.
"""

import contextlib
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from faults_report import Table, parser, write
from implementations import BASELINE, Implementation, find_implementations
from processes import BenchmarkError
from testbed import check_requirements

from tests.faults.bad_network import ADDRESSES, FAULTS, BadNetwork
from tests.faults.relay import RIGHT, Relay
from tests.faults.weather import Faults
from tests.testbed import Testbed
from tests.testbed.transfer import Transferred, transfer

_NAMES: Final = ("wgd-native", "wgd-portable", BASELINE)
_MOVES: Final = "moves"
_MOVE_EVERY_SECONDS: Final = 0.1
_BYTES: Final = 20_000_003
_TIMEOUT_SECONDS: Final = 60


@dataclass(frozen=True)
class _Round:
    """One transfer; `error` says why it failed, if it did."""

    fault: str
    implementation: str
    seed: int
    transferred: Transferred | None
    initiations: int
    error: str


def main(argv: Sequence[str]) -> int:
    """Measure; 0 if every transfer arrived unchanged and in time."""
    options = parser("network", __doc__, seeds=5, seconds=600)
    options.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    options.add_argument(
        "--fault",
        action="append",
        choices=(*FAULTS, _MOVES),
        help="which; may be repeated (default: all)",
    )
    given = options.parse_args(argv)
    try:
        check_requirements()
        implementations, missing = find_implementations(_NAMES, {})
    except BenchmarkError as error:
        sys.stderr.write(f"faults: {error}\n")
        return 1
    sys.stderr.writelines(f"faults: {line}\n" for line in missing)
    faults = given.fault or (*FAULTS, _MOVES)
    deadline = time.monotonic() + given.seconds
    rounds: list[_Round] = []
    for seed in range(given.first, given.first + given.seeds):
        if time.monotonic() > deadline:
            break
        rounds += _measure(seed, faults, implementations)
    write(_tables(faults, implementations, rounds), given.json)
    return int(any(each.error for each in rounds))


# -- rounds ----------------------------------------------------------------------------------------


def _measure(
    seed: int, faults: Sequence[str], implementations: Sequence[Implementation]
) -> Iterator[_Round]:
    with contextlib.ExitStack() as made:
        networks = {each.name: made.enter_context(_network(each, seed)) for each in implementations}
        for number, fault in enumerate(faults):
            first = (seed + number) % len(implementations)
            for each in (*implementations[first:], *implementations[:first]):
                measured = _send_under(fault, each.name, seed, networks[each.name])
                if measured.error:
                    sys.stderr.write(f"faults: {measured}\n")
                yield measured


@contextlib.contextmanager
def _network(implementation: Implementation, seed: int) -> Iterator[BadNetwork]:
    # Without their options they go into the background, as Testbed wants it.
    command = [str(implementation.program)]
    environment = implementation.environment
    with (
        Testbed(show_logs=False, environment=environment) as bed,
        BadNetwork(bed, seed, left_command=command, right_command=command) as network,
    ):
        network.tunnel.assert_works(versions=(4,))
        yield network


def _send_under(fault: str, implementation: str, seed: int, network: BadNetwork) -> _Round:
    relay, left, right = network.relay, network.tunnel.left, network.tunnel.right
    relay.set_faults(FAULTS.get(fault, Faults()))
    relay.messages.clear()
    transferred, error = None, ""
    with _moving(relay) if fault == _MOVES else contextlib.nullcontext():
        try:
            transferred = transfer(left.home, right.home, right.inner4, _BYTES, _TIMEOUT_SECONDS)
        except (AssertionError, OSError) as failure:
            error = repr(failure)
    relay.set_faults(Faults())
    return _Round(fault, implementation, seed, transferred, relay.messages[1], error)


@contextlib.contextmanager
def _moving(relay: Relay) -> Iterator[None]:
    done = threading.Event()

    def move() -> None:
        for number in count():
            if done.wait(_MOVE_EVERY_SECONDS):
                return
            relay.move(RIGHT, ADDRESSES[RIGHT][number % 2])

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


# -- tables ----------------------------------------------------------------------------------------


def _tables(
    faults: Sequence[str], implementations: Sequence[Implementation], rounds: Sequence[_Round]
) -> list[Table]:
    names = [each.name for each in implementations]
    times = Table(
        f"{_BYTES} bytes of TCP through a bad network: seconds, and ratio to {BASELINE}",
        ("fault", *names),
        [(fault, *(_seconds(rounds, fault, name) for name in names)) for fault in faults],
        (
            "Medians over the seeds; a ratio is of two transfers of one seed. Less is better. "
            "Without any fault the relay and this program are what limits.",
            "; ".join(f"{name}: {FAULTS[name]}" for name in faults if name in FAULTS),
            "; ".join(each.version for each in implementations),
        ),
    )
    counts = Table(
        "Arrived unchanged and in time, TCP retransmissions (median), handshake initiations (all)",
        ("fault", *names),
        [(fault, *(_counts(rounds, fault, name) for name in names)) for fault in faults],
    )
    return [times, counts]


def _of(rounds: Sequence[_Round], fault: str, name: str) -> list[_Round]:
    return [each for each in rounds if (each.fault, each.implementation) == (fault, name)]


def _seconds(rounds: Sequence[_Round], fault: str, name: str) -> str:
    took, others = (
        {
            each.seed: each.transferred.seconds
            for each in _of(rounds, fault, who)
            if each.transferred
        }
        for who in (name, BASELINE)
    )
    if not took:
        return "-"
    text = f"{statistics.median(took.values()):.2f}"
    ratios = [seconds / others[seed] for seed, seconds in took.items() if seed in others]
    return text if name == BASELINE or not ratios else f"{text} ({statistics.median(ratios):.2f})"


def _counts(rounds: Sequence[_Round], fault: str, name: str) -> str:
    ours = _of(rounds, fault, name)
    arrived = [each.transferred for each in ours if each.transferred]
    again = statistics.median([each.retransmissions for each in arrived]) if arrived else 0
    initiations = sum(each.initiations for each in ours)
    return f"{len(arrived)}/{len(ours)}, {again:.0f}, {initiations}"
