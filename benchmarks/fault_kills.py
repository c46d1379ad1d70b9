"""kill -9 at random moments of a daemon's life: does the next start work, and is anything left?

A round is one kill and the next start, at the moments of tests/faults/kills.py in turn: --seeds is
how many. wireguard-go is killed at those moments that it has, too.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from faults_report import Table, parser, write
from implementations import find_implementations

from tests.faults.kills import MOMENTS, Killed, Killer
from tests.quick.scene import Scene
from tests.testbed import Testbed

_PLAIN_MOMENTS = ("start", "set", "traffic", "shutdown")
_COLUMNS = (
    *("daemon", "killed while", "rounds", "next start failed", "left after it"),
    *("found by it: files, most", "next start: median, s", "greatest, s"),
)


@dataclass
class _Tally:
    rounds: list[Killed] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def main(argv: Sequence[str]) -> int:
    """Kill them; 0 if every next start of wgd worked and left nothing."""
    given = parser("kills", __doc__, seeds=200, seconds=3600).parse_args(argv)
    (go,) = (one for one in find_implementations((), {})[0] if one.name == "wireguard-go")
    until = time.monotonic() + given.seconds
    rows, problems = [], []
    for name, moments, command, seeds in (
        ("wgd", MOMENTS, ("wgd",), given.seeds),
        ("wireguard-go", _PLAIN_MOMENTS, (str(go.program),), given.seeds // 4),
    ):
        tallies = _kill(name, moments, command, seeds, until)
        for moment, tally in tallies.items():
            rows.append(_row(name, moment, tally))
            problems += [f"{name}: {each}" for each in tally.failed + tally.left]
    notes = [
        "A round's number, from 0 for each moment, is the seed of all that is random in it.",
        *(f"* {problem}" for problem in problems),
    ]
    write([Table("kill -9, and the next start", _COLUMNS, rows, notes)], given.json)
    return any(problem.startswith("wgd:") for problem in problems)


def _kill(
    name: str, moments: Sequence[str], command: tuple[str, ...], seeds: int, until: float
) -> dict[str, _Tally]:
    tallies = {moment: _Tally() for moment in moments}
    number = 0
    while number < seeds and time.monotonic() < until:
        with Testbed(show_logs=False) as bed:
            scene = Scene.build(bed)
            try:
                killer = Killer(scene, command)
                while number < seeds and time.monotonic() < until:
                    moment = moments[number % len(moments)]
                    seed, number = number // len(moments), number + 1
                    sys.stderr.write(f"{name}: {number} of {seeds}, {moment}, seed {seed}\n")
                    try:
                        tallies[moment].rounds.append(killer.kill_at(moment, seed))
                    except AssertionError as error:
                        # What is left is told; the next rounds are on a new scene.
                        reason = f"{moment}, seed {seed}: {' '.join(str(error).split())[:300]}"
                        sys.stderr.write(f"{reason}\n")
                        is_start = "start failed" in reason or "packet loss" in reason
                        (tallies[moment].failed if is_start else tallies[moment].left).append(
                            reason
                        )
                        break
            finally:
                scene.clear()
    return tallies


def _row(name: str, moment: str, tally: _Tally) -> tuple[object, ...]:
    seconds = [each.next_start_seconds for each in tally.rounds]
    return (
        *(name, moment, len(seconds) + len(tally.failed) + len(tally.left)),
        *(len(tally.failed), len(tally.left)),
        max((each.left_files for each in tally.rounds), default=0),
        f"{statistics.median(seconds):.2f}" if seconds else "",
        f"{max(seconds):.2f}" if seconds else "",
    )
