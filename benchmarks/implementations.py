"""What is compared: where each implementation's program is found, and which version it is."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from processes import BenchmarkError, run

_HERE: Final = Path(__file__).resolve().parent
_CACHE: Final = _HERE / "results" / "bin"
_GO_MODULE: Final = "golang.zx2c4.com/wireguard@latest"
_GO_PROGRAM: Final = "wireguard"  # as `go install` names it; Debian's old one is `wireguard-go`


@dataclass(frozen=True)
class Implementation:
    """A WireGuard daemon with wireguard-go's command line: `program -f INTERFACE`."""

    name: str
    program: Path
    version: str


def find_wgd() -> Implementation:
    """Return the wgd beside the running Python, else the one in the repository's .venv."""
    directories = (Path(sys.executable).parent, _HERE.parent / ".venv" / "bin")
    for directory in directories:
        if _is_program(directory / "wgd"):
            found = _implementation("wgd", directory / "wgd")
            # Not necessarily the Python that runs the comparison.
            python = run(directory / "python", "--version").strip()
            return replace(found, version=f"{found.version} on {python}")
    searched = " or ".join(map(str, directories))
    raise BenchmarkError(f"no wgd in {searched}: run scripts/bootstrap")


def find_wireguard_go(program: Path | None) -> Implementation:
    """Return `program`, else an installed current wireguard-go, else one built for this."""
    if program is None:
        program = _installed_wireguard_go() or _build_wireguard_go()
    elif not _is_program(program):
        raise BenchmarkError(f"--wireguard-go {program}: no such program")
    return _implementation("wireguard-go", program.resolve())


def _implementation(name: str, program: Path) -> Implementation:
    printed = run(program, "--version").splitlines()
    return Implementation(name, program, printed[0].strip() if printed else "unknown")


def _installed_wireguard_go() -> Path | None:
    directories = [os.environ.get("GOBIN", "")]
    if shutil.which("go") is not None:
        directories += [
            f"{path}/bin" for path in run("go", "env", "GOPATH").strip().split(os.pathsep) if path
        ]
    directories += [os.environ.get("PATH", ""), str(_CACHE)]
    found = shutil.which(_GO_PROGRAM, path=os.pathsep.join(filter(None, directories)))
    return None if found is None else Path(found)


def _build_wireguard_go() -> Path:
    go = shutil.which("go")
    if go is None:
        raise BenchmarkError(
            "no current wireguard-go: install Go (https://go.dev/dl/), which builds it here, "
            "or name a program with --wireguard-go PATH"
        )
    sys.stderr.write(f"building wireguard-go once, in {_CACHE}\n")
    _CACHE.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"GOBIN": str(_CACHE), "CGO_ENABLED": "0"}
    built = subprocess.run(  # noqa: S603 - a fixed argument list
        [go, "install", _GO_MODULE], env=environment, stdin=subprocess.DEVNULL, check=False
    )
    if built.returncode != 0:
        raise BenchmarkError(f"`go install {_GO_MODULE}` failed (see above)")
    return _CACHE / _GO_PROGRAM


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
