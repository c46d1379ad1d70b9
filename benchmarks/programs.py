"""Where programs are found, or built once into benchmarks/results/bin when they are missing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from processes import BenchmarkError, run

CACHE: Final = Path(__file__).resolve().parent / "results" / "bin"  # cargo wants the last name
_CARGO_HOME: Final = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")


def is_program(path: Path) -> bool:
    """Whether this is a file that one may execute."""
    return path.is_file() and os.access(path, os.X_OK)


def first_line(program: Path, option: str) -> str:
    """Return the first line that `program option` prints, its version mostly."""
    printed = run(program, option).splitlines()
    return printed[0].strip() if printed else "unknown"


def find_go_program(name: str, module: str) -> Path:
    """Return `name` of GOBIN, GOPATH/bin, PATH or the cache, else build `module` with Go."""
    go = shutil.which("go")
    directories = [os.environ.get("GOBIN", "")]
    if go is not None:
        directories += [
            f"{path}/bin" for path in run(go, "env", "GOPATH").strip().split(os.pathsep) if path
        ]
    if (found := _search(name, directories)) is not None:
        return found
    if go is None:
        raise BenchmarkError(f"no current {name}, and no Go (https://go.dev/dl/) to build it")
    _build(name, [go, "install", module], {"GOBIN": str(CACHE), "CGO_ENABLED": "0"})
    return CACHE / name


def find_cargo_program(name: str, crate: str) -> Path:
    """Return `name` of PATH, cargo's bin or the cache, else build `crate` with cargo."""
    if (found := _search(name, [str(_CARGO_HOME / "bin")])) is not None:
        return found
    cargo = shutil.which("cargo") or shutil.which("cargo", path=str(_CARGO_HOME / "bin"))
    if cargo is None:
        raise BenchmarkError(f"no {name}, and no cargo (https://rustup.rs) to build it")
    command = [cargo, "install", "--locked", "--root", str(CACHE.parent), crate]
    with TemporaryDirectory(prefix="wgd-benchmark-") as target:
        _build(name, command, {"CARGO_TARGET_DIR": target})
    return CACHE / name


def _search(name: str, directories: Iterable[str]) -> Path | None:
    everywhere = [*directories, os.environ.get("PATH", ""), str(CACHE)]
    found = shutil.which(name, path=os.pathsep.join(filter(None, everywhere)))
    return None if found is None else Path(found)


def _build(name: str, command: list[str], environment: dict[str, str]) -> None:
    sys.stderr.write(f"building {name} once, in {CACHE}; this takes minutes\n")
    CACHE.mkdir(parents=True, exist_ok=True)
    built = subprocess.run(  # noqa: S603 - a fixed argument list
        command, env=os.environ | environment, stdin=subprocess.DEVNULL, check=False
    )
    if built.returncode != 0:
        raise BenchmarkError(f"`{' '.join(command)}` failed (see above)")
