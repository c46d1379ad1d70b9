"""Steps done in order, each written down first; and undone in the reverse order."""

import logging
from collections.abc import Callable
from typing import Literal

from wgd.quick import launch
from wgd.quick.dns import Dns
from wgd.quick.errors import QuickError
from wgd.quick.journal import Journal, give_back_sysctl, own_namespace
from wgd.quick.launch import Daemon
from wgd.quick.steps import Addresses, LinkUp, Mark, Routes, Step, Sysctl
from wgd.quick.system import System

logger = logging.getLogger(__name__)

Checkpoint = Callable[[str, Literal["before", "after"]], None]
"""Told about each step by name: when it is written down, and when it is done. For tests, which
raise from it or kill the process."""


def no_checkpoint(_name: str, _moment: Literal["before", "after"]) -> None:
    """Do nothing."""


class Transaction:
    """The steps of one `up`; what was done can be undone at any time, here or from the journal."""

    def __init__(
        self, journal: Journal, system: System, checkpoint: Checkpoint = no_checkpoint
    ) -> None:
        self.journal = journal
        self.system = system
        self._checkpoint = checkpoint

    def do(self, step: Step) -> None:
        """Do a step. Raises QuickError and OSError; then it may be half done."""
        name = step.name if isinstance(step, Mark) else step.kind
        if step not in self.journal.record.steps:  # it is there when an interface is adopted
            self.journal.step(step)
        self._checkpoint(name, "before")
        step.do(self.system)
        self._checkpoint(name, "after")

    def has(self, kind: type[Step]) -> bool:
        """Whether a step of that kind was done: by a predecessor, whose interface is adopted."""
        return any(isinstance(step, kind) for step in self.journal.record.steps)

    def redo(self) -> None:
        """Make again what is missing of the steps of a predecessor. Raises as `do` does."""
        for step in list(self.journal.record.steps):
            if not isinstance(step, Dns | LinkUp):  # DNS may take root, and the MTU another has set
                self.do(step)

    def act(self, name: str, action: Callable[[], None]) -> None:
        """Do something that needs no undoing, or that the interface's end undoes."""
        self.journal.step(Mark(name))
        self._checkpoint(name, "before")
        action()
        self._checkpoint(name, "after")


def undo(journal: Journal, system: System) -> list[str]:
    """Undo all steps of a journal, the last one first, and return what went wrong.

    Goes on after an error; what could not be undone stays in the journal, else that is removed.
    """
    problems: list[str] = []
    kept: list[Step] = []
    record = journal.record
    is_elsewhere = record.namespace != own_namespace()
    if any(isinstance(step, Daemon) for step in record.steps):
        # Thousands of routes, perhaps, which go with an interface that is deleted.
        record.steps = [s for s in record.steps if not isinstance(s, Addresses | LinkUp | Routes)]
    for step in reversed(list(record.steps)):
        try:
            if is_elsewhere:
                _undo_elsewhere(step, system)
            elif not isinstance(step, Sysctl) or not give_back_sysctl(step, journal):
                step.undo(system)
        except (QuickError, OSError) as error:
            problems.append(f"cannot undo the {step.kind} of {record.interface}: {error}")
            kept.append(step)
        record.steps.pop()
    record.steps.extend(reversed(kept))
    try:
        if kept:
            journal.write()
        else:
            journal.remove()
    except OSError as error:
        problems.append(f"cannot remove the journal of {record.interface}: {error}")
    return problems


def _undo_elsewhere(step: Step, system: System) -> None:
    """Undo what is not in a network namespace; that one, we are not in, and perhaps it is gone."""
    if isinstance(step, Dns):
        step.undo(system)
    elif isinstance(step, Daemon):
        launch.remove_dead_socket(launch.socket_path(step.interface, step.uapi_directory))
