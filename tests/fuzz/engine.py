"""Runs targets under atheris: coverage-guided mutation (libFuzzer) of Python.

    python -m tests.fuzz.engine PLAN

PLAN is JSON: a list of [target, directory, [arguments of libFuzzer]]. wgd is imported once, with
instructions at every branch that count, then each target has a process of its own, one at a time;
its output is `log` in its directory, which also holds `corpus` (what was found to be new) and
`finds` (what failed).
"""

import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Final

import atheris

from tests.fuzz.corpus import name_of
from tests.fuzz.guided import FIND

MAX_MEMORY_MIB: Final = 1024
MAX_INPUT_SECONDS: Final = 20
"""For one input; the slowest take some milliseconds."""

_INSTRUMENTED: Final = ["wgd"]


def main(plan_text: str) -> None:
    """Run a plan."""
    plan: list[tuple[str, str, list[str]]] = json.loads(plan_text)
    logging.lastResort = None
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.target import Target, check_logs

    check_logs()
    known = {target.name: target for target in TARGETS}

    def run(target: Target, directory: Path, arguments: list[str]) -> None:
        log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        words = directory / "words"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))

        def run_one(data: bytes) -> None:
            try:
                target.run(data)
            except BaseException:  # noqa: BLE001 - whatever it is, it is a find
                (directory / "finds" / name_of(data)).write_bytes(data)
                print(FIND, traceback.format_exc(), sep="\n", flush=True)  # noqa: T201 - to the log
                os._exit(77)

        atheris.Setup(
            [
                target.name,
                f"-rss_limit_mb={MAX_MEMORY_MIB}",
                f"-timeout={MAX_INPUT_SECONDS}",
                f"-max_len={target.max_size}",
                f"-artifact_prefix={directory}/finds/",
                *([f"-dict={words}"] if target.words else []),
                *arguments,
                str(directory / "corpus"),
            ],
            run_one,
        )
        atheris.Fuzz()

    for name, place, arguments in plan:
        if (pid := os.fork()) == 0:
            run(known[name], Path(place), arguments)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(name, os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - to the caller


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main(sys.argv[1])
