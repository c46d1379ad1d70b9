"""`scripts/fuzz`: runs the fuzz targets and says what came of it.

    scripts/fuzz                         every target, a second each
    scripts/fuzz --seconds 600 device    one target for ten minutes
    scripts/fuzz --minimise              then keep the fewest inputs that reach as much
    scripts/fuzz --missing device        only say which lines its kept inputs do not reach

Names that begin with `native-` are the targets of the Rust crate. What fails is left in
`build/fuzz/TARGET/finds`; the exit status is 1 then.
"""

import argparse
import linecache
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.fuzz import corpus, guided, native, reach
from tests.fuzz.guided import Run
from tests.fuzz.target import Target, check_logs
from tests.fuzz.targets import TARGETS

_HEAD: Final = ("target", "executions", "per second", "edges", "lines", "kept", "KiB", "finds")


def main(arguments: Sequence[str]) -> int:
    """Run; return the exit status."""
    names = {target.name: target for target in TARGETS}
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("targets", nargs="*", choices=[[], *names, *native.NAMES], metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=1, help="for each target")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 2**31))
    parser.add_argument("--minimise", action="store_true", help="keep what was found to be new")
    parser.add_argument("--keep", type=Path, help="keep the input in this file for ever")
    parser.add_argument("--missing", action="store_true", help="show what is not reached, run none")
    given = parser.parse_args(arguments)
    check_logs()
    chosen = given.targets or [*names, *native.NAMES]
    ours = [names[name] for name in chosen if name in names]
    theirs = [name for name in chosen if name in native.NAMES]
    if given.keep is not None:
        (name,) = chosen
        directory = native.finds(name) if name in native.NAMES else corpus.FINDS / name
        corpus.save(directory, [*corpus.load(directory), given.keep.read_bytes()])
        return 0
    if given.missing:
        for target in ours:
            _show_missing(target)
        return 0

    _say("seed", str(given.seed))
    _say(_line(_HEAD))
    has_failed = False
    for run in guided.run(ours, given.seconds, given.seed) if ours else ():
        target = names[run.name]
        if given.minimise:
            kept = reach.fewest(target, [*guided.kept_and_seeds(target), *guided.found(run.name)])
            corpus.save(corpus.DIRECTORY / run.name, kept)
        kept = guided.kept_and_seeds(target)
        reached, lines = len(reach.reached(target, kept)), len(reach.lines_of(target))
        _report(run, f"{100 * reached / lines:.1f} %", corpus.load(corpus.DIRECTORY / run.name))
        has_failed |= bool(run.trouble)
    for run in native.run(theirs, given.seconds, given.seed) if theirs else ():
        if given.minimise:
            native.minimise(run.name)
        _report(run, "-", corpus.load(native.kept(run.name)))
        has_failed |= bool(run.trouble)
    return int(has_failed)


def _report(run: Run, lines: str, kept: Sequence[bytes]) -> None:
    size = f"{sum(map(len, kept)) / 1024:.1f}"
    numbers = (run.executions, run.executions_per_second, run.edges, lines, len(kept), size)
    _say(_line((run.name, *map(str, numbers), str(len(run.finds)))))
    if run.trouble:
        _say(run.trouble)
        for path in run.finds:
            _say(f"  {path.relative_to(guided.REPOSITORY)}")


def _line(columns: Sequence[str]) -> str:
    return f"{columns[0]:24}" + "".join(f"{column:>12}" for column in columns[1:])


def _show_missing(target: Target) -> None:
    missing = reach.lines_of(target) - reach.reached(target, guided.kept_and_seeds(target))
    _say(f"{target.name}: {len(missing)} of {len(reach.lines_of(target))} lines")
    for file, line in sorted(missing):
        text = linecache.getline(file, line).strip()
        _say(f"  {file.rpartition('/wgd/')[2]}:{line}: {text}")


_say: Callable[..., None] = print

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
