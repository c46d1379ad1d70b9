"""Coverage-guided runs of the Python targets: prepares, starts `engine`, and reads what it did."""

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz import corpus
from tests.fuzz.target import Target

REPOSITORY: Final = Path(__file__).parents[2]
WORK: Final = REPOSITORY / "build/fuzz"
"""What runs leave behind: everything new they found, for the next run and for `--minimise`."""

_EXECUTED: Final = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_PER_SECOND: Final = re.compile(r"stat::average_exec_per_sec:\s*(\d+)")
_EDGES: Final = re.compile(r"\bcov: (\d+)")
FIND: Final = "-- find --"
"""In the log, before the traceback."""


@dataclass(frozen=True)
class Run:
    """What one target's run came to. `finds` are the inputs that failed; `trouble` says how."""

    name: str
    executions: int
    executions_per_second: int
    edges: int
    finds: tuple[Path, ...]
    trouble: str = ""


def kept_and_seeds(target: Target) -> list[bytes]:
    """Return what every run of a target starts from."""
    kept = (corpus.load(place / target.name) for place in (corpus.DIRECTORY, corpus.FINDS))
    return [*itertools.chain(*kept), *target.seeds()]


def found(name: str) -> list[bytes]:
    """Return what runs on this machine have found to be new."""
    return corpus.load(WORK / name / "corpus")


def run(
    targets: Sequence[Target], seconds: int, seed: int, work: Path = WORK, executions: int = -1
) -> Iterator[Run]:
    """Run targets one after the other, each for so many seconds, or executions if those are fewer
    (-1: any number); yield what came of each.
    """
    plan = []
    for target in targets:
        directory = prepared(work / target.name, kept_and_seeds(target))
        arguments = [f"-max_total_time={seconds}", f"-runs={executions}", f"-seed={seed}"]
        arguments.append("-print_final_stats=1")
        plan.append((target.name, str(directory), arguments))
    command = [sys.executable, "-m", "tests.fuzz.engine", json.dumps(plan)]
    log = work / "engine.log"  # atheris says which modules it instruments
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                name, status = line.split()
                yield result(name, work / name, int(status))
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise RuntimeError(f"the fuzzing engine failed:\n{log.read_text('utf-8', 'replace')}")


def prepared(directory: Path, inputs: Iterable[bytes]) -> Path:
    """Make the directory of a run: inputs to start from, and nothing failed yet."""
    (directory / "finds").mkdir(parents=True, exist_ok=True)
    (directory / "corpus").mkdir(exist_ok=True)
    for path in (directory / "finds").iterdir():
        path.unlink()
    for data in inputs:
        (directory / "corpus" / corpus.name_of(data)).write_bytes(data)
    return directory


def result(name: str, directory: Path, status: int) -> Run:
    """Read what a run's log says."""
    log = (directory / "log").read_text("utf-8", "replace")
    finds = tuple(sorted((directory / "finds").iterdir()))
    trouble = ""
    if status or finds:
        _, _, traceback = log.partition(FIND)
        trouble = traceback.strip() or "\n".join(log.splitlines()[-20:])
    executed, per_second = _EXECUTED.search(log), _PER_SECOND.search(log)
    edges = [int(number) for number in _EDGES.findall(log)]
    return Run(
        name,
        int(executed[1]) if executed else 0,
        int(per_second[1]) if per_second else 0,
        max(edges, default=0),
        finds,
        trouble,
    )
