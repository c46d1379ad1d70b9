"""What a round under a flood has measured, and the table of all rounds."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from flood_kinds import FLOODS
from implementations import BASELINE

JOIN_TIMEOUT_SECONDS: Final = 15


@dataclass(frozen=True)
class Round:
    """What one flood cost one daemon; `failure` says why there are no figures.

    CPU, pings, what arrived and answers are of the time without the stream. `lost_at_socket` is the
    share of what arrived. `join_seconds` is None if the newcomer was not let in before the end.
    """

    number: int
    flood: str
    implementation: str
    arrived_per_second: float = 0
    lost_at_socket: float = 0
    cpu_us_per_packet: float = 0
    ping_median_ms: float = 0
    ping_p99_ms: float = 0
    pings_lost: float = 0
    arrived_beside_stream_per_second: float = 0
    mbit_per_second: float = 0
    retransmissions: int = 0
    rss_growth_mib: float = 0
    answers_per_second: float = 0
    join_seconds: float | None = None
    failure: str = ""


def summary(measured: Round) -> str:
    """Return one round for people, as soon as it is over."""
    about = f"{measured.number} {measured.flood} {measured.implementation}:"
    if measured.failure:
        return f"{about} failed: {measured.failure}"
    joined = "no" if measured.join_seconds is None else f"{measured.join_seconds:.2f} s"
    return (
        f"{about} {measured.arrived_per_second:.0f} packets/s, {measured.cpu_us_per_packet:.2f} us"
        f" each; ping {measured.ping_median_ms:.2f} ms, p99 {measured.ping_p99_ms:.1f} ms;"
        f" TCP {measured.mbit_per_second:.0f} Mbit/s; joined: {joined}"
    )


_TITLES: Final = (
    "packets/s",
    "lost at socket",
    "CPU us each",
    "ratio",
    "ping ms",
    "p99 ms",
    "pings lost",
    "packets/s beside TCP",
    "TCP Mbit/s",
    "kept",
    "resent",
    "memory MiB",
    "answers/s",
    "joins in s",
)


def markdown(rounds: Sequence[Round]) -> Iterator[str]:
    """Yield the lines of a table: medians by flood and implementation."""
    yield f"| flood | daemon | {' | '.join(_TITLES)} |"
    yield f"| --- | --- |{' ---: |' * len(_TITLES)}"
    fine = {
        (each.number, each.flood, each.implementation): each for each in rounds if not each.failure
    }
    for flood, implementation in dict.fromkeys(
        (each.flood, each.implementation) for each in rounds
    ):
        of = [each for (_, *case), each in fine.items() if case == [flood, implementation]]
        failed = sum(
            (each.flood, each.implementation) == (flood, implementation) for each in rounds
        )
        failed -= len(of)
        cells = list(_cells(of, fine)) if of else ["failed"] * len(_TITLES)
        note = f" ({failed} failed)" if failed and of else ""
        yield f"| {FLOODS[flood].title} | {implementation}{note} | {' | '.join(cells)} |"


def conditions(rounds: int, seconds: int, rate: int, mbit: int) -> str:
    """Say what the figures are of."""
    stream = f"asked for {mbit} Mbit/s" if mbit else "as fast as it goes"
    return (
        f"Medians of {rounds} interleaved rounds, {seconds} s each figure; {rate} packets/s were "
        "asked of the attacker, and packets/s are what came to the target. CPU is the flooded "
        "daemon's, all threads, less what it used before the flood, for each packet that did not "
        f"find its sockets full; ratio is to {BASELINE}'s of the same round. Pings and CPU are "
        f"measured without the stream. The TCP stream is {stream}; kept is to the same daemon's "
        "own round without a flood; resent are its segments. Memory is the greatest resident set "
        "less what it was when the flood had begun. Answers are what came back to the attacker."
    )


def _cells(of: Sequence[Round], fine: dict[tuple[int, str, str], Round]) -> Iterator[str]:
    def median(value: Callable[[Round], float]) -> float:
        return statistics.median(value(each) for each in of)

    def ratio(value: Callable[[Round], float], flood: str, implementation: str) -> str:
        pairs = [(value(each), fine.get((each.number, flood, implementation))) for each in of]
        found = [each / value(other) for each, other in pairs if other and value(other) > 0]
        return f"{statistics.median(found):.2f}" if found else "-"

    flood, implementation = of[0].flood, of[0].implementation
    yield f"{median(lambda each: each.arrived_per_second):.0f}"
    yield f"{median(lambda each: 100 * each.lost_at_socket):.0f} %"
    yield f"{median(lambda each: each.cpu_us_per_packet):.2f}"
    yield ratio(lambda each: each.cpu_us_per_packet, flood, BASELINE)
    yield f"{median(lambda each: each.ping_median_ms):.2f}"
    yield f"{median(lambda each: each.ping_p99_ms):.1f}"
    yield f"{median(lambda each: 100 * each.pings_lost):.0f} %"
    yield f"{median(lambda each: each.arrived_beside_stream_per_second):.0f}"
    yield f"{median(lambda each: each.mbit_per_second):.0f}"
    yield ratio(lambda each: each.mbit_per_second, "none", implementation)
    yield f"{median(lambda each: each.retransmissions):.0f}"
    yield f"{median(lambda each: each.rss_growth_mib):.1f}"
    yield f"{median(lambda each: each.answers_per_second):.0f}"
    joined = [each.join_seconds for each in of if each.join_seconds is not None]
    texts = [f"{statistics.median(joined):.2f}"] if joined else []
    if late := len(of) - len(joined):
        texts.append(f"{late} of {len(of)} not in {JOIN_TIMEOUT_SECONDS}")
    yield "; ".join(texts)
