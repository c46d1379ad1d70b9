"""Flood a tunnel and see what it costs: wgd beside wireguard-go, in interleaved rounds.

An attacker floods the right end of a tunnel through which there are only pings; then, amid the
flood, through which there is a TCP stream of a bitrate that is easy without one; then a peer that
was not there before wants to join.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pings
from arguments import from_
from family import Family
from flood_bed import FloodBed, build_sender, flood_bed
from flood_kinds import FLOODS
from flood_report import JOIN_TIMEOUT_SECONDS, Round, conditions, markdown, summary
from flood_usage import Usage
from implementations import BASELINE, Implementation, find_implementations
from iperf3 import load
from machine import Machine
from processes import BenchmarkError, Process, defer_interruptions, wait_until
from testbed import check_requirements, tunnel

_NAMES: Final = ("wgd-native", "wgd-portable", BASELINE)
_MTU: Final = 1420
_LEAD_SECONDS: Final = 1
_ATTACK_SECONDS: Final = 120  # at most; it is ended with its round


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
                sys.stdout.write(f"{summary(measured)}\n")
                sys.stdout.flush()
        except KeyboardInterrupt:
            status = 130
    except (BenchmarkError, OSError) as error:
        sys.stderr.write(f"floods: {error}\n")
        return 1
    if rounds:
        notes = (
            conditions(given.rounds, given.seconds, given.rate, given.mbit),
            f"{'; '.join(tested.version for tested in implementations)}.",
            f"{machine}.",
        )
        lines = [*markdown(rounds), "", *notes]
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
        "--rate", type=from_(1, 1_000_000), default=40_000, help="packets/s (default: 40000)"
    )
    parser.add_argument(
        "--seconds", type=from_(2, 15), default=3, help="of each figure (default: 3)"
    )
    parser.add_argument(
        "--mbit",
        type=from_(0, 10_000),
        default=200,
        help="of the TCP stream a second; 0 is as many as go (default: 200)",
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
    before = Usage(bed)
    pings.ping(tested, given.seconds)
    quiet = Usage(bed).since(before)
    with bed.attack(sender, FLOODS[name], target, given.rate, _ATTACK_SECONDS) as attack:
        time.sleep(_LEAD_SECONDS)
        Path(f"/proc/{daemon}/clear_refs").write_text("5")  # the peak is the present
        rss, before = _kib(daemon, "VmRSS"), Usage(bed)
        trips = pings.ping(tested, given.seconds)
        flooded, before = Usage(bed).since(before), Usage(bed)
        with load(tested, given.seconds, "-b", f"{given.mbit}M") as stream:
            transfer = stream.wait()
        streaming = Usage(bed).since(before)
        joined = bed.join(JOIN_TIMEOUT_SECONDS)
        growth = _kib(daemon, "VmHWM") - rss
        _stop(attack)
    extra_cores = flooded.cores - quiet.cores
    return Round(
        number,
        name,
        implementation,
        arrived_per_second=flooded.arrived_per_second,
        lost_at_socket=flooded.lost_per_second / max(flooded.arrived_per_second, 1),
        cpu_us_per_packet=1e6 * extra_cores / max(flooded.read_per_second, 1) if attack else 0,
        ping_median_ms=trips.median_ms,
        ping_p99_ms=trips.p99_ms,
        pings_lost=1 - trips.answered / trips.sent,
        arrived_beside_stream_per_second=streaming.arrived_per_second,
        mbit_per_second=transfer.received_bytes * 8e-6 / transfer.received_seconds,
        retransmissions=transfer.retransmissions,
        rss_growth_mib=growth / 1024,
        answers_per_second=flooded.answers_per_second,
        join_seconds=joined,
    )


def _stop(attack: Process | None) -> None:
    if attack is not None:
        attack.check_running()  # it was there all the time
        os.kill(attack.pid, signal.SIGTERM)
        wait_until(attack.has_ended, 5, what="the end of the attack")


def _kib(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise BenchmarkError(f"process {pid} has no {name}")


if __name__ == "__main__":
    sys.exit(main())
