"""docs/limits.md tells every bound, as it is in the code."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

import wgd.constants

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"`(wgd(?:\.[a-z0-9_]+)+)\.(_?[A-Z][A-Z0-9_]+)`")
FACTORS = {
    "": 1,
    "bytes": 1,
    "characters": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "s": 1,
    "s apart": 1,
    "ms": 1e-3,
    "ns": 1e-9,
}

# Of the module's constants, what bounds nothing.
NO_BOUNDS = {"SECOND_NS", "MILLISECOND_NS", "DEFAULT_MTU", "KEY_SIZE", "HANDSHAKE_TRAFFIC_CLASS"}
# Folders whose programs end by themselves, and what runs on macOS or in tests only.
ELSEWHERE = re.compile(r"^(ctl|manual)/|darwin|kqueue|net/memory|tun/memory")
# Attempts and reads of one turn of the loop, what the kernel or another standard defines, and the
# same bound by another name.
INTERNAL = {
    "wgd.dataplane.portable_inbound.MAX_DATAGRAM_SIZE",
    "wgd.dataplane.portable_outbound.MAX_PACKET_SIZE",
    "wgd.dataplane.reader.MAX_FAILING_WAKEUPS",
    "wgd.net.endpoint_socket.MAX_BIND_ATTEMPTS",
    "wgd.net.link.MAX_LOCATE_ATTEMPTS",
    "wgd.net.routes.MAX_DISCARDED_EVENTS",
    "wgd.net.udp.MAX_SEGMENTS",
    "wgd.quick.config.MAX_MTU",
    "wgd.quick.config.MAX_TABLE",
    "wgd.status.MAX_NUMBER",
    "wgd.uapi.name_file.MAX_FILE_NAME_SIZE",
}


@cache
def text() -> str:
    return (ROOT / "docs" / "limits.md").read_text()


def rows() -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text().splitlines()
        if line.startswith("| ") and PLACE.search(line)
    ]


def value(cell: str) -> float:
    """Return the figure of a cell: whole numbers, powers, differences, and a unit."""
    number, _, unit = re.fullmatch(  # type: ignore[union-attr]
        r"([0-9,]+(?:\^[0-9]+)?(?: - [0-9]+(?:\^[0-9]+)?)*)( )?(.*)", cell
    ).groups()
    total = 0
    for place, term in enumerate(number.split(" - ")):
        base, _, power = term.replace(",", "").partition("^")
        total += (1 if place == 0 else -1) * int(base) ** int(power or 1)
    return total if FACTORS[unit] == 1 else total * FACTORS[unit]


@pytest.mark.parametrize("row", rows(), ids=lambda row: PLACE.search(row[-1])[2])  # type: ignore[index]
def test_each_figure_is_that_of_the_code(row: list[str]) -> None:
    _what, limit, _beyond, place = row
    found = PLACE.fullmatch(place)
    assert found is not None
    constant = getattr(importlib.import_module(found[1]), found[2])
    expected = value(limit)
    if found[2].endswith("_NS"):
        assert constant == round(expected * 10**9)
    else:
        assert constant == expected


def test_the_figures_in_the_text_are_those_of_the_code() -> None:
    found = re.findall(r"([0-9]+ [KM]iB)[^`]{1,40}\(`(wgd[a-z_.]+)\.([A-Z_]+)`\)", text())
    assert len(found) == 2
    for figure, module, name in found:
        assert getattr(importlib.import_module(module), name) == value(figure)


def documented() -> set[str]:
    return {f"{module}.{name}" for module, name in PLACE.findall(text())}


def test_every_shared_constant_is_there() -> None:
    names = {name for name in vars(wgd.constants) if name.isupper()} - NO_BOUNDS
    assert {f"wgd.constants.{name}" for name in names} - documented() == set()


def test_every_bound_of_a_module_is_there() -> None:
    """That is: what is called MAX_… or BACKLOG, in what a daemon runs."""
    found = set()
    for file in (ROOT / "wgd").rglob("*.py"):
        path = file.relative_to(ROOT / "wgd").as_posix()
        if ELSEWHERE.search(path):
            continue
        module = ".".join(["wgd", *path.removesuffix(".py").split("/")])
        for node in ast.parse(file.read_text()).body:
            names = (
                [node.target]
                if isinstance(node, ast.AnnAssign)
                else node.targets
                if isinstance(node, ast.Assign)
                else []
            )
            found |= {
                f"{module}.{name.id}"
                for name in names
                if isinstance(name, ast.Name) and re.match(r"MAX_|BACKLOG$", name.id)
            }
    assert found - documented() - INTERNAL == set()


def test_the_native_engine_has_the_same_bounds() -> None:
    constant = re.compile(
        r"const ([A-Z_]+): u(?:size|64|32) = ([0-9_]+(?: \* SECOND_NS)?|1 << 60);"
    )
    seen = set()
    for file in (ROOT / "native" / "engine" / "src").rglob("*.rs"):
        for name, figure in constant.findall(file.read_text()):
            ours = getattr(wgd.constants, name, None)
            if ours is None:
                continue
            seen.add(name)
            shown = figure.replace("_", "").replace("SECONDNS", str(10**9)).replace("1 << 60", "")
            number = 2**60 if not shown else eval(shown, {})
            assert number == ours, f"{file.name}: {name} = {figure}, in wgd.constants {ours}"
    assert {"MAX_STAGED_PACKETS", "MAX_QUEUED_HANDSHAKES", "REPLAY_WINDOW"} <= seen
