"""The command line of `compare`."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from cases import Case
from family import Family
from implementations import BASELINE, NAMES
from workloads import WORKLOADS

_DEFAULT_PAIRS: Final = 7
_DEFAULT_SECONDS: Final = 3
_DEFAULT_WORKLOADS: Final = ("tcp1", "udp1392", "udp64", "ping-load")
_DEFAULT_MTUS: Final = (1420,)
_DEFAULT_FAMILIES: Final = (Family.V4,)
_ALL_MTUS: Final = (1420, 8920)
_GREATEST_MTU: Final = 65535 - 80  # of a link, less what WireGuard adds over IPv6
# Programs that may be named; wgd is always that of this repository.
_PROGRAMS: Final = ("wireguard-go", "boringtun", "gotatun")


@dataclass(frozen=True)
class Arguments:
    """What was asked for; `implementations` is None if that was not said."""

    implementations: Sequence[str] | None
    programs: dict[str, Path]
    cases: Sequence[Case]
    pairs: int
    seconds: int
    json: Path | None
    markdown: Path | None
    plots: Path | None


def parse(description: str | None, argv: Sequence[str] | None = None) -> Arguments:
    """Parse the command line (or `argv`); exits with status 2 and a line on what is wrong."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/compare", description=description, allow_abbrev=False
    )
    _add_options(parser)
    given = parser.parse_args(argv)
    workloads = given.workload or (WORKLOADS if given.full else _DEFAULT_WORKLOADS)
    mtus = given.mtu or (_ALL_MTUS if given.full else _DEFAULT_MTUS)
    families = given.family or (tuple(Family) if given.full else _DEFAULT_FAMILIES)
    for mtu, family in product(mtus, families):
        if mtu < family.least_mtu:
            parser.error(f"--mtu {mtu}: IP{family.value} needs {family.least_mtu}")
    for option, file in (("--json", given.json), ("--markdown", given.markdown)):
        if file is not None and not file.parent.is_dir():
            parser.error(f"{option} {file}: no such directory")
    if given.plots is not None and not given.plots.is_dir():
        parser.error(f"--plots {given.plots}: no such directory")
    named = {name: getattr(given, name.replace("-", "_")) for name in _PROGRAMS}
    return Arguments(
        implementations=given.implementations,
        programs={name: program for name, program in named.items() if program is not None},
        cases=tuple(
            Case(WORKLOADS[name], mtu, family)
            for mtu, family, name in product(
                dict.fromkeys(mtus), dict.fromkeys(families), dict.fromkeys(workloads)
            )
        ),
        pairs=given.pairs,
        seconds=given.seconds,
        json=given.json,
        markdown=given.markdown,
        plots=given.plots,
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--implementations",
        "--peers",
        type=_names,
        metavar="NAME,...",
        help=f"which of {', '.join(NAMES)} (default: those that can be had; {BASELINE} always "
        "takes part)",
    )
    parser.add_argument(
        "--pairs",
        type=from_(1),
        default=_DEFAULT_PAIRS,
        help=f"rounds of each implementation in each case (default: {_DEFAULT_PAIRS})",
    )
    parser.add_argument(
        "--seconds",
        type=from_(1),
        default=_DEFAULT_SECONDS,
        help=f"the duration of a round (default: {_DEFAULT_SECONDS})",
    )
    parser.add_argument(
        "--workload",
        action="append",
        choices=tuple(WORKLOADS),
        help=f"what is sent; may be repeated (default: {', '.join(_DEFAULT_WORKLOADS)})",
    )
    parser.add_argument(
        "--mtu",
        action="append",
        type=from_(min(family.least_mtu for family in Family), _GREATEST_MTU),
        metavar="BYTES",
        help="of the tunnel; may be repeated (default: 1420)",
    )
    parser.add_argument(
        "--family",
        action="append",
        type=_family,
        metavar="v4|v6",
        help="of the addresses, the tunnel's own and those inside it; may be repeated "
        "(default: v4)",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="every workload, MTU 1420 and 8920, v4 and v6, unless said otherwise: takes hours",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables to FILE as well"
    )
    parser.add_argument(
        "--plots", type=Path, metavar="DIR", help="draw the ratios as PNG files in DIR"
    )
    for name in _PROGRAMS:
        parser.add_argument(
            f"--{name}",
            type=Path,
            metavar="PATH",
            help=f"{name}'s program (default: an installed one, else one built once)",
        )


def from_(least: int, greatest: int | None = None) -> Callable[[str], int]:
    """Return the argparse type of whole numbers within these bounds."""

    def whole_number(text: str) -> int:
        is_number = text.isascii() and text.isdigit() and len(text) < 10
        if not is_number or int(text) < least or (greatest is not None and int(text) > greatest):
            bounds = f"from {least} up" if greatest is None else f"from {least} to {greatest}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
        return int(text)

    return whole_number


def _names(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, text.split(",")))
    if unknown := [name for name in names if name not in NAMES]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(NAMES)}")
    if not set(names) - {BASELINE}:
        raise argparse.ArgumentTypeError(f"nothing to compare with {BASELINE}")
    return names


def _family(text: str) -> Family:
    try:
        return Family(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither v4 nor v6") from None
