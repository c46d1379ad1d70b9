"""How long it takes to find whose an address is, in wgd's native engine and in wireguard-go.

Two small programs do the same work, in turn and from one seed: native/engine/examples/lookup.rs on
the engine, with the lock it takes; benchmarks/lookup on the `device.AllowedIPs` of the Go module of
wireguard-go. A hundred peers have random prefixes of random length (IPv4 /16 to /32, IPv6 /32 to
/128); a million random addresses within them are looked up, one after the other. Neither cache that
is before the table is part of it: wgd's threads remember the owners of the last 256 addresses.
"""

import os
import shutil
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from implementations import BASELINE
from processes import BenchmarkError, run
from programs import CACHE

LOOKUP: Final = "lookup"
FAMILIES: Final = (4, 6)
PREFIXES: Final = (100, 10_000, 1_000_000)
OURS: Final = "wgd-native"
_BUILD_SECONDS: Final = 600
_NATIVE: Final = Path(__file__).resolve().parent.parent / "native"
_GO_SOURCE: Final = Path(__file__).with_name("lookup")


@dataclass(frozen=True)
class LookupRound:
    """One table filled and asked, in nanoseconds per prefix and per address."""

    pair: int
    family: int
    prefixes: int
    implementation: str
    insert_ns: float
    lookup_ns: float


def measure_lookups(pairs: int, prefixes: Sequence[int] = PREFIXES) -> Iterator[LookupRound]:
    """Run the rounds. Raises BenchmarkError for a program that cannot be built or fails."""
    programs = [(OURS, _build_ours()), (BASELINE, _build_theirs())]
    for family in FAMILIES:
        for count in prefixes:
            for pair in range(1, pairs + 1):
                # Everybody is first in turn.
                for name, program in programs if pair % 2 else programs[::-1]:
                    printed = run(program, str(family), str(count), str(pair))
                    insert_ns, lookup_ns = map(float, printed.split())
                    yield LookupRound(pair, family, count, name, insert_ns, lookup_ns)


def lookups_as_markdown(rounds: Sequence[LookupRound]) -> str:
    """Return the table: medians, in parentheses the median of the ratios to the baseline."""
    lines = [
        "| prefixes | daemon | put in, ns each | looked up, ns each |",
        "| --- | --- | ---: | ---: |",
    ]
    for family in FAMILIES:
        for count in sorted({each.prefixes for each in rounds}):
            of_all = [each for each in rounds if each.family == family and each.prefixes == count]
            theirs = {each.pair: each for each in of_all if each.implementation == BASELINE}
            for name in (OURS, BASELINE):
                own = {each.pair: each for each in of_all if each.implementation == name}
                if own:
                    cells = (
                        _cell(
                            {pair: asdict(each)[figure] for pair, each in own.items()},
                            {pair: asdict(each)[figure] for pair, each in theirs.items()},
                            has_ratio=name != BASELINE,
                        )
                        for figure in ("insert_ns", "lookup_ns")
                    )
                    lines.append(f"| IPv{family}, {count:,} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(own: dict[int, float], theirs: dict[int, float], *, has_ratio: bool) -> str:
    text = f"{statistics.median(own.values()):,.0f}"
    ratios = [own[pair] / theirs[pair] for pair in own.keys() & theirs.keys()]
    return f"{text} ({statistics.median(ratios):.2f})" if has_ratio and ratios else text


def _build_ours() -> Path:
    cargo = shutil.which("cargo") or shutil.which("cargo", path=str(Path.home() / ".cargo/bin"))
    if cargo is None:
        raise BenchmarkError("no cargo (https://rustup.rs) to build native/engine/examples/lookup")
    manifest = _NATIVE / "Cargo.toml"
    arguments = ("--quiet", "--release", "--locked", "--package", "wgd-engine")
    example = ("--example", "lookup", "--manifest-path", str(manifest))
    run(cargo, "build", *arguments, *example, timeout_seconds=_BUILD_SECONDS)
    target = os.environ.get("CARGO_TARGET_DIR", str(_NATIVE / "target"))
    return Path(target) / "release/examples/lookup"


def _build_theirs() -> Path:
    go = shutil.which("go")
    if go is None:
        raise BenchmarkError("no Go (https://go.dev/dl/) to build benchmarks/lookup")
    program = CACHE / "lookup"
    flags = ("-mod=readonly", "-buildvcs=false", "-o", str(program), ".")
    environment = ("env", "--chdir", str(_GO_SOURCE), "CGO_ENABLED=0")
    run(*environment, go, "build", *flags, timeout_seconds=_BUILD_SECONDS)
    return program
