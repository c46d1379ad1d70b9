"""Which lines of the modules under test an input reaches, and fewest inputs that reach them all.

With the interpreter's own tracing, so it works where atheris does not. Lines are those of function
bodies: what runs at import says nothing of an input.
"""

import contextlib
import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.target import Target

Line = tuple[str, int]
Step = tuple[str, int, int, int]
"""From one line of a file to another, and how often: 1, 2, or 3 for more."""


def lines_of(target: Target) -> frozenset[Line]:
    """Return every line that a target could reach."""
    return frozenset(line for module in target.modules for line in _lines(_file(module)))


def reached(target: Target, inputs: Iterable[bytes]) -> set[Line]:
    """Return the lines that inputs reach together."""
    lines = lines_of(target)
    steps = {step for data in inputs for step in _steps(target, data)}
    return {(file, line) for file, _, line, _ in steps} & lines


def fewest(target: Target, inputs: Iterable[bytes]) -> list[bytes]:
    """Return small inputs that take every step which `inputs` take."""
    smallest_first = sorted(set(inputs), key=lambda each: (len(each), each))
    return _needed(target, reversed(_needed(target, smallest_first)))


def _needed(target: Target, inputs: Iterable[bytes]) -> list[bytes]:
    seen: set[Step] = set()
    needed = []
    for data in inputs:
        steps = _steps(target, data)
        if not steps <= seen:
            seen |= steps
            needed.append(data)
    return needed


def _steps(target: Target, data: bytes) -> set[Step]:
    files = {_file(module) for module in target.modules}
    counts: dict[tuple[str, int, int], int] = {}

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        file = frame.f_code.co_filename
        if file not in files:
            return None
        last = frame.f_code.co_firstlineno

        def trace_line(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal last
            if event == "line":
                step = (file, last, frame.f_lineno)
                counts[step] = counts.get(step, 0) + 1
                last = frame.f_lineno
            return trace_line

        return trace_line

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with contextlib.suppress(Exception):  # replaying tells of what fails
            target.run(data)
    finally:
        sys.settrace(before)
    return {(*step, min(count, 3)) for step, count in counts.items()}


@cache
def _file(module: str) -> str:
    file = importlib.import_module(module).__file__
    assert file is not None
    return file


@cache
def _lines(file: str) -> frozenset[Line]:
    module = compile(Path(file).read_text("utf-8"), file, "exec")
    return frozenset((file, line) for line in _body_lines(module))


def _body_lines(code: CodeType) -> Iterator[int]:
    if code.co_flags & inspect.CO_NEWLOCALS:  # a function, and no module or class
        for _, _, line in code.co_lines():
            if line is not None and line != code.co_firstlineno:
                yield line
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _body_lines(constant)
