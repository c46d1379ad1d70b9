"""`wgdctl top`: its arguments, and the choice between a live screen and one table."""

import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Final

from wgd.ctl.errors import UsageError
from wgd.ctl.session import Session, report
from wgd.ctl.top.cells import Layout, device_line
from wgd.ctl.top.model import Model, Sort
from wgd.ctl.top.sources import Reader
from wgd.errors import WgdError
from wgd.interface_name import check_interface_name

DEFAULT_SECONDS: Final = 1.0
MIN_SECONDS: Final = 0.1
MAX_SECONDS: Final = 3600.0
WIDTH_IN_A_PIPE: Final = 120


def top(words: Sequence[str], session: Session) -> int:
    """Run `top`; returns the exit status: 1 if there was no interface to show."""
    is_once, seconds, names = _arguments(words)
    reader = Reader(session, names)
    if is_once:
        return _once(reader, seconds)
    if not (os.isatty(0) and os.isatty(1)):
        raise WgdError("top needs a terminal: give --once for one table")
    try:
        from wgd.ctl.top.app import TopApp
    except ImportError as error:
        raise WgdError(
            f"wgdctl top needs the Python package {error.name or 'textual'}: pip install "
            "'wgd[top]', or give --once for one table"
        ) from error
    app = TopApp(reader.read, seconds)
    app.run()
    return app.return_code or 0


def _arguments(words: Sequence[str]) -> tuple[bool, float, list[str]]:
    """Return whether to look once, the interval in seconds and the interfaces' names."""
    is_once = False
    seconds = DEFAULT_SECONDS
    names = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if word == "--once":
            is_once = True
        elif option == "--interval":
            if not equals:
                value = rest.pop(0) if rest else ""
            seconds = _seconds(value)
        elif word.startswith("-"):
            raise UsageError(f"there is no option {word!a}")
        else:
            check_interface_name(word)
            names.append(word)
    return is_once, seconds, names


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise UsageError(f"--interval takes seconds from {MIN_SECONDS} to 3600, not {text!a}")
    return seconds


def _once(reader: Reader, seconds: float) -> int:
    """Print one table; rates are those of the time between two looks."""
    model = Model()
    model.update(reader.read().statuses)
    time.sleep(seconds)
    reading = reader.read()
    model.update(reading.statuses)
    fallback = (WIDTH_IN_A_PIPE, 0)
    width = shutil.get_terminal_size(fallback).columns if os.isatty(1) else WIDTH_IN_A_PIPE
    layout = Layout.of(width, [status.interface for status in model.statuses])
    lines = [device_line(status, *model.rates(status)) for status in model.statuses]
    lines.append(layout.heading(Sort.RECEIVED, is_reversed=False))
    lines += [layout.line(row) for row in model.rows(Sort.RECEIVED)]
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in lines)
    for problem in reading.problems:
        report(WgdError(problem))
    if not model.statuses and not reading.problems:
        report(WgdError("there is no interface of a userspace daemon here (see: wgdctl where)"))
    return 0 if model.statuses else 1
