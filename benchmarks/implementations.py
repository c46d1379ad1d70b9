"""What is compared: the program of each implementation, its version and how it is started."""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from processes import BenchmarkError, run
from programs import find_cargo_program, find_go_program, first_line, is_program

BASELINE: Final = "wireguard-go"
NAMES: Final = ("wgd-native", "wgd-portable", BASELINE, "boringtun", "gotatun")
# Only these may be missing when nobody asked for them by name.
_OPTIONAL: Final = frozenset({"wgd-native", "boringtun", "gotatun"})

_VIRTUAL_ENVIRONMENT: Final = Path(__file__).resolve().parent.parent / ".venv"


@dataclass(frozen=True)
class Implementation:
    """A WireGuard daemon; `options` and `environment` keep it in the foreground, as root, quiet."""

    name: str
    program: Path
    version: str
    options: tuple[str, ...] = ("-f",)
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, interface: str) -> list[str | Path]:
        """Return the command line that serves `interface`."""
        return [self.program, *self.options, interface]


def find_implementations(
    names: Collection[str] | None, programs: Mapping[str, Path]
) -> tuple[list[Implementation], list[str]]:
    """Return the implementations of these names, and why some of all (`None`) are left out.

    The baseline always takes part, and the order is that of NAMES. `programs` are those that the
    user named. Raises BenchmarkError for what was named, or is needed, and cannot be had.
    """
    found: list[Implementation] = []
    missing: list[str] = []
    for name in NAMES:
        if names is not None and name not in names and name != BASELINE:
            continue
        try:
            found.append(_FINDERS[name](programs.get(name)))
        except BenchmarkError as error:
            if names is not None or name in programs or name not in _OPTIONAL:
                raise
            missing.append(f"{name} is left out: {error}")
    return found, missing


def _wgd_native(_program: Path | None) -> Implementation:
    program = _find_wgd()
    python = program.parent / "python"
    try:
        engine = run(python, "-c", "import wgd_native; print(wgd_native.__version__)").strip()
    except BenchmarkError as error:
        raise BenchmarkError(
            f"{python} has no wgd_native: install cargo (https://rustup.rs) and run "
            "scripts/bootstrap"
        ) from error
    return _wgd(program, "native", f"wgd-native {engine}")


def _wgd_portable(_program: Path | None) -> Implementation:
    program = _find_wgd()
    python = run(program.parent / "python", "--version").strip()
    return _wgd(program, "portable", f"{first_line(program, '--version')} on {python}")


def _wgd(program: Path, engine: str, version: str) -> Implementation:
    return Implementation(f"wgd-{engine}", program, version, environment={"WGD_DATAPLANE": engine})


def _find_wgd() -> Path:
    """Return the wgd beside the running Python, else the one in the repository's .venv."""
    directories: Sequence[Path] = (Path(sys.executable).parent, _VIRTUAL_ENVIRONMENT / "bin")
    for directory in directories:
        if is_program(directory / "wgd"):
            return directory / "wgd"
    searched = " or ".join(map(str, directories))
    raise BenchmarkError(f"no wgd in {searched}: run scripts/bootstrap")


def _wireguard_go(program: Path | None) -> Implementation:
    # Debian's program of 2022 is `wireguard-go`; what `go install` builds is `wireguard`.
    program = _named("wireguard-go", program) or find_go_program(
        "wireguard", "golang.zx2c4.com/wireguard@latest"
    )
    return Implementation("wireguard-go", program, first_line(program, "--version"))


def _boringtun(program: Path | None) -> Implementation:
    program = _named("boringtun", program) or find_cargo_program("boringtun-cli", "boringtun-cli")
    options = ("-f", "--disable-drop-privileges")
    return Implementation("boringtun", program, first_line(program, "--version"), options)


def _gotatun(program: Path | None) -> Implementation:
    program = _named("gotatun", program) or find_cargo_program("gotatun", "gotatun-cli")
    options = ("-f", "--disable-drop-privileges", "-v", "error")
    return Implementation("gotatun", program, first_line(program, "--version"), options)


def _named(name: str, program: Path | None) -> Path | None:
    """Return the program that the user named, if any; raises BenchmarkError if it is none."""
    if program is not None and not is_program(program):
        raise BenchmarkError(f"--{name} {program}: no such program")
    return None if program is None else program.resolve()


_FINDERS: Final[Mapping[str, Callable[[Path | None], Implementation]]] = {
    "wgd-native": _wgd_native,
    "wgd-portable": _wgd_portable,
    "wireguard-go": _wireguard_go,
    "boringtun": _boringtun,
    "gotatun": _gotatun,
}
