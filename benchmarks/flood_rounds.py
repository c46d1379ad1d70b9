"""Flood a tunnel and see what it keeps: wgd beside wireguard-go, in interleaved rounds.

An attacker floods the right end of a tunnel. The left end sends a TCP stream through it and pings
beside that; after that, amid the flood, a peer that was not there before wants to join.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from arguments import from_
from family import Family
from flood_bed import FloodBed, build_sender, flood_bed
from flood_kinds import FLOODS
from implementations import BASELINE, Implementation, find_implementations
from iperf3 import load
from machine import Machine
from pings import RoundTrips
from processes import BenchmarkError, Process, defer_interruptions, wait_until
from testbed import check_requirements, tunnel

_NAMES: Final = ("wgd-native", "wgd-portable", BASELINE)
_MTU: Final = 1420
_LEAD_SECONDS: Final = 1
_JOIN_TIMEOUT_SECONDS: Final = 15
_ATTACK_SECONDS: Final = 120  # at most; it is ended with its round
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Round:
    """What one daemon kept under one flood; `failure` says why it has no figures.

    `join_seconds` is None if the newcomer was not let in before the end.
    """

    number: int
    flood: str
    implementation: str
    sent_per_second: float = 0
    mbit_per_second: float = 0
    ping_p99_ms: float = 0
    pings_lost: float = 0
    cpu_seconds_per_second: float = 0
    rss_growth_mib: float = 0
    answers_per_second: float = 0
    join_seconds: float | None = None
    failure: str = ""


def main() -> int:
    """Run the rounds; 0 when done, 1 with a line that says what is wrong, 130 on Ctrl-C."""
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
                sys.stdout.write(f"{asdict(measured)}\n")
                sys.stdout.flush()
        except KeyboardInterrupt:
            status = 130
    except (BenchmarkError, OSError) as error:
        sys.stderr.write(f"floods: {error}\n")
        return 1
    if rounds:
        lines = [*markdown(rounds), "", *_notes(given, machine, implementations)]
        tables = "\n".join(lines) + "\n"
        sys.stdout.write(f"\n{tables}")
        if given.markdown is not None:
            given.markdown.write_text(tables)
        if given.json is not None:
            found = {"machine": asdict(machine), "rounds": [asdict(each) for each in rounds]}
            given.json.write_text(json.dumps(found, indent=2) + "\n")
    return status


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/floods", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=from_(1), default=3, help="of each (default: 3)")
    parser.add_argument(
        "--rate", type=from_(1, 1_000_000), default=100_000, help="packets/s (default: 100000)"
    )
    parser.add_argument(
        "--seconds", type=from_(2, 60), default=4, help="of each flood (default: 4)"
    )
    parser.add_argument(
        "--floods",
        type=lambda text: tuple(text.split(",")),
        default=tuple(FLOODS),
        metavar="NAME,...",
        help=f"which of {', '.join(FLOODS)} (default: all; none always takes part)",
    )
    parser.add_argument(
        "--implementations",
        type=lambda text: tuple(text.split(",")),
        default=("wgd-native",),
        metavar="NAME,...",
        help=f"which of {', '.join(_NAMES)} (default: wgd-native; {BASELINE} always takes part)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to FILE")
    given = parser.parse_args()
    for option, names, known in (
        ("--implementations", given.implementations, _NAMES),
        ("--floods", given.floods, FLOODS),
    ):
        if unknown := set(names) - set(known):
            parser.error(f"{option}: {', '.join(unknown)} is none of {', '.join(known)}")
    return given


# -- the rounds ------------------------------------------------------------------------------------


def _measure(
    given: argparse.Namespace, implementations: Sequence[Implementation]
) -> Iterator[Round]:
    with TemporaryDirectory(prefix="wgd-floods-") as directory:
        sender = build_sender(Path(directory))
        for number in range(1, given.rounds + 1):
            first = (number - 1) % len(implementations)
            for name in dict.fromkeys(("none", *given.floods)):
                for implementation in (*implementations[first:], *implementations[:first]):
                    try:
                        with (
                            tunnel(implementation, _MTU, Family.V4) as tested,
                            flood_bed(tested, implementation) as bed,
                        ):
                            yield _round(number, name, implementation.name, bed, sender, given)
                    except BenchmarkError as error:
                        yield Round(number, name, implementation.name, failure=str(error))


def _round(
    number: int,
    name: str,
    implementation: str,
    bed: FloodBed,
    sender: Path,
    given: argparse.Namespace,
) -> Round:
    tested, target = bed.tested, bed.target()
    daemon = tested.right.daemon.pid
    with bed.attack(sender, FLOODS[name], target, given.rate, _ATTACK_SECONDS) as attack:
        time.sleep(_LEAD_SECONDS)
        Path(f"/proc/{daemon}/clear_refs").write_text("5")  # the peak is the present
        rss, cpu, answers = _kib(daemon, "VmRSS"), _cpu_seconds(daemon), bed.answers()
        began = time.monotonic()
        options = ("-n", "-i", "0.01", "-w", str(given.seconds))
        with (
            load(tested, given.seconds) as stream,
            tested.left.start("ping", *options, tested.right.address, output="pings.txt") as ping,
        ):
            transfer = stream.wait()
            wait_until(ping.has_ended, 10, what="the end of ping")
            trips = RoundTrips.from_output(ping.output())
        elapsed = time.monotonic() - began
        used = _cpu_seconds(daemon) - cpu
        answered = bed.answers() - answers
        joined = bed.join(_JOIN_TIMEOUT_SECONDS)
        growth = _kib(daemon, "VmHWM") - rss
        per_second = _stop(attack)
    return Round(
        number,
        name,
        implementation,
        sent_per_second=per_second,
        mbit_per_second=transfer.received_bytes * 8e-6 / transfer.received_seconds,
        ping_p99_ms=trips.p99_ms,
        pings_lost=1 - trips.answered / trips.sent,
        cpu_seconds_per_second=used / elapsed,
        rss_growth_mib=growth / 1024,
        answers_per_second=answered / elapsed,
        join_seconds=joined,
    )


def _stop(attack: Process | None) -> float:
    """End the attack; return how many packets it has sent a second."""
    if attack is None:
        return 0
    attack.check_running()  # it was there all the time
    os.kill(attack.pid, signal.SIGTERM)
    wait_until(attack.has_ended, 5, what="the end of the attack")
    sent, elapsed = attack.output().split()
    return int(sent) / float(elapsed)


def _cpu_seconds(pid: int) -> float:
    """Return utime + stime of all threads: proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _kib(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise BenchmarkError(f"process {pid} has no {name}")


# -- the report ------------------------------------------------------------------------------------


def markdown(rounds: Sequence[Round]) -> Iterator[str]:
    """Yield the lines of a table: medians by flood and implementation."""
    titles = (
        "packets/s sent",
        "TCP Mbit/s",
        "kept",
        "ping p99 ms",
        "times",
        "pings lost",
        "CPU cores",
        "memory MiB",
        "answers/s",
        "joins in s",
    )
    yield f"| flood | daemon | {' | '.join(titles)} |"
    yield f"| --- | --- |{' ---: |' * len(titles)}"
    fine = [each for each in rounds if not each.failure]
    base = {(each.number, each.implementation): each for each in fine if each.flood == "none"}
    for flood, implementation in dict.fromkeys(
        (each.flood, each.implementation) for each in rounds
    ):
        of = [each for each in fine if (each.flood, each.implementation) == (flood, implementation)]
        failed = sum(
            bool(each.failure)
            for each in rounds
            if (each.flood, each.implementation) == (flood, implementation)
        )
        cells = ["failed"] * len(titles)
        if of:
            cells = list(_cells(of, base))
        note = f" ({failed} failed)" if failed and of else ""
        yield f"| {FLOODS[flood].title} | {implementation}{note} | {' | '.join(cells)} |"


def _cells(of: Sequence[Round], base: dict[tuple[int, str], Round]) -> Iterator[str]:
    def median(value: Callable[[Round], float]) -> float:
        return statistics.median(value(each) for each in of)

    def ratio(value: Callable[[Round], float]) -> str:
        pairs = [(each, base.get((each.number, each.implementation))) for each in of]
        found = [value(each) / value(other) for each, other in pairs if other is not None]
        return f"{statistics.median(found):.2f}" if found else "-"

    yield f"{median(lambda each: each.sent_per_second):.0f}"
    yield f"{median(lambda each: each.mbit_per_second):.0f}"
    yield ratio(lambda each: each.mbit_per_second)
    yield f"{median(lambda each: each.ping_p99_ms):.1f}"
    yield ratio(lambda each: each.ping_p99_ms)
    yield f"{median(lambda each: 100 * each.pings_lost):.0f} %"
    yield f"{median(lambda each: each.cpu_seconds_per_second):.2f}"
    yield f"{median(lambda each: each.rss_growth_mib):.1f}"
    yield f"{median(lambda each: each.answers_per_second):.0f}"
    joined = [each.join_seconds for each in of if each.join_seconds is not None]
    texts = [f"{statistics.median(joined):.2f}"] if joined else []
    if late := len(of) - len(joined):
        texts.append(f"{late} of {len(of)} not in {_JOIN_TIMEOUT_SECONDS}")
    yield "; ".join(texts)


def _notes(
    given: argparse.Namespace, machine: Machine, implementations: Sequence[Implementation]
) -> Iterator[str]:
    yield (
        f"Medians of {given.rounds} interleaved rounds, {given.seconds} s each; {given.rate} "
        "packets/s were asked of the attacker. Kept and times are ratios to the same daemon's own "
        "round without a flood. CPU is the flooded daemon's, all threads. Memory is its greatest "
        "resident set less what it was when the flood had begun. Answers are what came back to the "
        "attacker."
    )
    yield f"{'; '.join(tested.version for tested in implementations)}."
    yield f"{machine}."


if __name__ == "__main__":
    sys.exit(main())
