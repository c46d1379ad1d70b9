"""Coverage-guided runs of the Rust crate's targets by libFuzzer, on the compiler that is there.

What cargo-fuzz adds to the compiler's arguments is stable but for the sanitizers, which would find
little in a crate whose few `unsafe` lines are system calls. So no nightly compiler is needed.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.fuzz import corpus
from tests.fuzz.guided import REPOSITORY, WORK, Run, prepared, result

NAMES: Final = (
    *("native-inbound", "native-outbound", "native-split", "native-coalesce"),
    *("native-handshakes", "native-allowed_ips", "native-replay"),
)
MAX_INPUT_SIZE: Final = 2048

_CRATE: Final[Path] = REPOSITORY / "native/fuzz"
_FLAGS: Final = (
    "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module"
    " -Cllvm-args=-sanitizer-coverage-level=4"
    " -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
    " -Cllvm-args=-sanitizer-coverage-pc-table"
    " -Cllvm-args=-sanitizer-coverage-trace-compares"
)
_HOST: Final = re.compile(r"^host: (.*)$", re.MULTILINE)


def kept(name: str) -> Path:
    """Return where the kept inputs of a target are."""
    return corpus.NATIVE_DIRECTORY / name.removeprefix("native-")


def finds(name: str) -> Path:
    """Return where those are that have failed once."""
    return corpus.NATIVE_FINDS / name.removeprefix("native-")


def run(names: Sequence[str], seconds: int, seed: int) -> Iterator[Run]:
    """Build the targets (minutes, the first time), run each for so many seconds; yield what came
    of each. Raises CalledProcessError if they cannot be built.
    """
    programs = _built()
    for name in names:
        directory = prepared(WORK / name, [*corpus.load(kept(name)), *corpus.load(finds(name))])
        with (directory / "log").open("wb") as log:
            done = subprocess.run(
                [
                    _program(programs, name),
                    f"-max_total_time={seconds}",
                    f"-seed={seed}",
                    f"-max_len={MAX_INPUT_SIZE}",
                    "-print_final_stats=1",
                    f"-artifact_prefix={directory}/finds/",
                    directory / "corpus",
                ],
                check=False,
                stdout=log,
                stderr=log,
            )
        yield result(name, directory, done.returncode)


def minimise(name: str) -> None:
    """Keep the fewest inputs, of the kept ones and those found, that reach as much (libFuzzer's
    merge).
    """
    merged = WORK / name / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir()
    subprocess.run(
        [
            _program(_built(), name),
            "-set_cover_merge=1",
            merged,
            kept(name),
            WORK / name / "corpus",
        ],
        check=True,
        capture_output=True,
    )
    corpus.save(kept(name), corpus.load(merged))


def _built() -> Path:
    """Return the directory of the programs."""
    host = _HOST.findall(_cargo_says("rustc", "-vV"))[0]
    target = _CRATE / "target"
    subprocess.run(
        [
            *("cargo", "build", "--quiet", "--release", "--locked", "--target", host),
            *("--manifest-path", _CRATE / "Cargo.toml", "--target-dir", target),
        ],
        check=True,
        env={**_environment(), "RUSTFLAGS": _FLAGS},
    )
    return target / str(host) / "release"


def _program(programs: Path, name: str) -> Path:
    return programs / name.removeprefix("native-")


def _cargo_says(*command: str) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=_environment()
    ).stdout


def _environment() -> dict[str, str]:
    """Return ours, with rustup's programs first."""
    home = os.environ.get("CARGO_HOME") or str(Path.home() / ".cargo")
    return {**os.environ, "PATH": f"{home}/bin:{os.environ.get('PATH', os.defpath)}"}
