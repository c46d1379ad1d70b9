"""Which implementations take part, and how each is started."""

from collections.abc import Callable
from pathlib import Path

import implementations
import pytest
from implementations import Implementation, find_implementations
from processes import BenchmarkError, Process


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Replace the search by one that finds everything but these."""
    names: set[str] = set()

    def finder(name: str) -> Callable[[Path | None], Implementation]:
        def find(program: Path | None) -> Implementation:
            if name in names:
                raise BenchmarkError(f"no {name} here")
            return Implementation(name, program or Path("/bin") / name, "1")

        return find

    for name in ("wgd-native", "wgd-portable", "wireguard-go", "boringtun", "gotatun"):
        monkeypatch.setitem(implementations._FINDERS, name, finder(name))
    return names


def test_all_take_part_that_can_be_had(missing: set[str]) -> None:
    missing.update({"wgd-native", "gotatun"})
    found, left_out = find_implementations(None, {})
    assert [tested.name for tested in found] == ["wgd-portable", "wireguard-go", "boringtun"]
    assert left_out == [
        "wgd-native is left out: no wgd-native here",
        "gotatun is left out: no gotatun here",
    ]


def test_the_baseline_always_takes_part(missing: set[str]) -> None:
    found, left_out = find_implementations(["gotatun", "wgd-native"], {})
    assert [tested.name for tested in found] == ["wgd-native", "wireguard-go", "gotatun"]
    assert left_out == []


@pytest.mark.parametrize("name", ["wgd-portable", "wireguard-go"])
def test_what_is_needed_must_be_there(missing: set[str], name: str) -> None:
    missing.add(name)
    with pytest.raises(BenchmarkError, match=f"no {name} here"):
        find_implementations(None, {})


def test_what_is_named_must_be_there(missing: set[str]) -> None:
    missing.add("boringtun")
    with pytest.raises(BenchmarkError, match="no boringtun here"):
        find_implementations(["boringtun"], {})
    with pytest.raises(BenchmarkError, match="no boringtun here"):
        find_implementations(None, {"boringtun": Path("/opt/boringtun")})


@pytest.mark.parametrize("name", ["wireguard-go", "boringtun", "gotatun"])
def test_a_named_program_must_be_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=f"--{name} {tmp_path}: no such program"):
        implementations._FINDERS[name](tmp_path)


def test_how_they_are_started(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho a program 1.2\n")
    program.chmod(0o755)
    commands = {
        name: implementations._FINDERS[name](program).command("wg7")
        for name in ("wireguard-go", "boringtun", "gotatun")
    }
    as_root = "--disable-drop-privileges"
    assert commands == {
        "wireguard-go": [program, "-f", "wg7"],
        "boringtun": [program, "-f", as_root, "wg7"],
        "gotatun": [program, "-f", as_root, "-v", "error", "wg7"],
    }
    assert implementations._FINDERS["gotatun"](program).version == "a program 1.2"


def test_daemons_get_only_the_environment_meant_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOG_LEVEL", "WG_THREADS", "WGD_WORKERS", "WGD_DATAPLANE"):
        monkeypatch.setenv(name, "stray")
    monkeypatch.setenv("KEPT", "yes")
    output = tmp_path / "output"
    with Process(["env"], output, {"WGD_DATAPLANE": "portable"}) as child:
        child.wait_for_success(10)
    lines = child.output().splitlines()
    assert {"KEPT=yes", "WGD_DATAPLANE=portable"} <= set(lines)
    assert "stray" not in child.output()
