"""docs/dependencies.md names exactly what wgd is built from."""

import importlib.metadata
import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PYTHON_SECTIONS = ("Python, always installed", "Python, optional")
BUILD_SECTION = "Python, to build, test and measure"
RUST_SECTION = "Rust, in the native data plane"


@cache
def section(title: str) -> str:
    text = (ROOT / "docs" / "dependencies.md").read_text()
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def named(text: str) -> set[str]:
    return set(re.findall(r"`([a-z0-9][a-z0-9_-]*)`", text))


def first_cells(text: str) -> set[str]:
    """Return the names in the first column of a section's tables."""
    return named("\n".join(row.split("|")[1] for row in text.splitlines() if row.startswith("| `")))


def toml(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text())


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: Iterable[str]) -> set[str]:
    return {normal(Requirement(text).name) for text in requirements} - {"wgd"}


def brought_along(packages: set[str]) -> set[str]:
    """Return what these packages ask for here, and what that asks for."""
    found: set[str] = set()

    def wanted(name: str) -> Iterator[str]:
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                yield normal(requirement.name)

    waiting = list(packages)
    while waiting:
        for name in wanted(waiting.pop()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found - packages


def test_python_packages_that_are_always_there() -> None:
    direct = names(toml("pyproject.toml")["project"]["dependencies"])
    assert first_cells(section(PYTHON_SECTIONS[0])) == direct | brought_along(direct)


def test_python_packages_of_extras() -> None:
    extras = toml("pyproject.toml")["project"]["optional-dependencies"]
    direct = names([*extras["native"], *extras["metrics"], *extras["top"]])
    text = section(PYTHON_SECTIONS[1])
    assert first_cells(text) == direct
    along = brought_along(direct - {"wgd-native"}) - brought_along({"cryptography", "pynacl"})
    assert along <= named(text), "not named"
    assert named(text) - direct - along == {"native", "metrics", "top"}


def test_python_packages_to_build_test_and_measure() -> None:
    extras = toml("pyproject.toml")["project"]["optional-dependencies"]
    build = [*toml("pyproject.toml")["build-system"]["requires"]]
    build += toml("native/pyproject.toml")["build-system"]["requires"]
    wanted = names([*extras["dev"], *extras["audit"], *extras["benchmarks"], *build])
    assert first_cells(section(BUILD_SECTION)) == wanted


def test_every_extra_is_looked_at_here() -> None:
    extras = toml("pyproject.toml")["project"]["optional-dependencies"]
    assert set(extras) == {"native", "metrics", "top", "audit", "dev", "benchmarks"}


def direct_crates(kind: str) -> set[str]:
    tables = [toml("native/Cargo.toml"), toml("native/engine/Cargo.toml")]
    if kind == "dev-dependencies":
        tables.append({kind: toml("native/fuzz/Cargo.toml")["dependencies"]})
    tables += [table for each in tables for table in each.get("target", {}).values()]
    found = {name for table in tables for name in table.get(kind, {})}
    return found - {"wgd-engine"}


def test_direct_crates() -> None:
    text = section(RUST_SECTION)
    table = text.partition("What these bring along")[0]
    assert first_cells(table) == direct_crates("dependencies")
    tested = text.partition("To test and measure:")[2]
    assert direct_crates("dev-dependencies") - direct_crates("dependencies") == named(tested)


def test_crates_that_are_brought_along() -> None:
    """Of the lock file, all that is not for tests or for other systems only."""
    packages = toml("native/Cargo.lock")["package"]
    # "name", or "name version" where the lock file has several.
    graph: dict[str, Iterable[str]] = {}
    for package in packages:
        graph[f"{package['name']} {package['version']}"] = package.get("dependencies", ())
        graph[package["name"]] = package.get("dependencies", ())
    ours = {"wgd-native", "wgd-engine"}
    for name in ours:
        tested = direct_crates("dev-dependencies") - direct_crates("dependencies")
        graph[name] = [text for text in graph[name] if text.partition(" ")[0] not in tested]
    reached, waiting = set(ours), list(ours)
    while waiting:
        for text in set(graph[waiting.pop()]) - reached:
            if not OTHER_SYSTEMS.search(text.partition(" ")[0]):
                reached.add(text)
                waiting.append(text)
    crates = {text.partition(" ")[0] for text in reached} - ours
    text = section(RUST_SECTION).partition("To test and measure:")[0]
    assert named(text) & set(graph) == crates


# Only for Windows, Redox, WASI and UEFI; `errno` and `portable-atomic` for kinds that have no Linux
# system calls or atomics of their own.
OTHER_SYSTEMS = re.compile(r"^(windows|wasi|redox|r-efi|errno$|portable-atomic$)")


@pytest.mark.parametrize("title", [*PYTHON_SECTIONS, RUST_SECTION])
def test_every_row_gives_a_reason(title: str) -> None:
    rows = [row for row in section(title).splitlines() if row.startswith("| `")]
    assert rows
    assert all(all(cell.strip() for cell in row.split("|")[1:-1]) for row in rows)
