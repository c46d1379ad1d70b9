"""`log-level`: show or change how much a running wgd logs."""

import sys
from collections.abc import Sequence

from wgd.configuration import ControlChange
from wgd.ctl.errors import UsageError
from wgd.ctl.session import Session


def log_level(words: Sequence[str], session: Session) -> int:
    """Run `log-level`: with an interface, show its level; with a level, too, change it."""
    match words:
        case [interface]:
            level = session.client().status(interface).log_level
            sys.stdout.write(f"{level or '(the log belongs to another program)'}\n")
        case [interface, level]:
            session.client().control(interface, ControlChange(log_level=level))
        case _:
            raise UsageError("")
    return 0
