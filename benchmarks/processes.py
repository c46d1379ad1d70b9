"""Child processes of a benchmark: started, waited for and always ended.

Signals only set a flag, which `wait_until` looks at: nothing is cut off between the moment it is
made and the moment its removal is assured, and a second Ctrl-C does not disturb the cleaning up.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

_COMMAND_TIMEOUT_SECONDS: Final = 30
_TERMINATE_TIMEOUT_SECONDS: Final = 5
_POLL_SECONDS: Final = 0.05
# What would change a daemon behind the comparison's back; a child gets its own on purpose only.
_CHANGES_DAEMONS: Final = ("LOG_LEVEL", "WG_", "WGD_")

_interrupted = threading.Event()


class BenchmarkError(Exception):
    """Why a benchmark cannot go on: the message names the cause and, if there is one, the cure."""


def defer_interruptions() -> None:
    """Let SIGINT, SIGTERM and SIGHUP end the next (or the present) `wait_until`, nothing else."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: _interrupted.set())


def wait_until(predicate: Callable[[], object], timeout_seconds: float, *, what: str) -> None:
    """Return when `predicate` is true.

    Raises BenchmarkError naming `what` after the timeout, KeyboardInterrupt when interrupted.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        if _interrupted.is_set():
            raise KeyboardInterrupt
        if predicate():
            return
        if time.monotonic() > deadline:
            raise BenchmarkError(f"waited {timeout_seconds:g} s in vain: {what}")
        time.sleep(_POLL_SECONDS)


def run(
    *argv: str | Path, stdin: str = "", timeout_seconds: float = _COMMAND_TIMEOUT_SECONDS
) -> str:
    """Run a short command and return what it printed; raises BenchmarkError if it fails."""
    command = " ".join(map(str, argv))
    try:
        completed = subprocess.run(  # noqa: S603 - argument lists of our own, never a shell
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
            start_new_session=True,  # a Ctrl-C is for us alone
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchmarkError(f"`{command}`: {error}") from error
    if completed.returncode != 0:
        output = (completed.stderr or completed.stdout).strip()
        raise BenchmarkError(f"`{command}` exited {completed.returncode}: {output}")
    return completed.stdout


class Process:
    """A child process whose output goes to a file; leaving the context ends it.

    `environment` is added to ours, of which nothing that concerns WireGuard daemons is passed on.
    """

    def __init__(
        self, argv: Sequence[str | Path], output: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._name = " ".join(map(str, argv))
        self._output = output
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_CHANGES_DAEMONS)
        }
        try:
            with output.open("wb") as sink:
                self._child = subprocess.Popen(  # noqa: S603 - see `run`
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    env=inherited | dict(environment or {}),
                    start_new_session=True,
                )
        except OSError as error:
            raise BenchmarkError(f"`{self._name}`: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._child.poll() is None:
            self._child.terminate()
        try:
            self._child.wait(_TERMINATE_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    @property
    def pid(self) -> int:
        """The process id: that of the program itself, since `ip netns exec` execs."""
        return self._child.pid

    def output(self) -> str:
        """Return what the process has printed so far, to stdout and stderr."""
        return self._output.read_text(errors="replace")

    def has_ended(self) -> bool:
        """Whether the process has ended (and has been waited for)."""
        return self._child.poll() is not None

    def check_running(self) -> None:
        """Raise BenchmarkError with the end of its output if the process has ended."""
        if (status := self._child.poll()) is not None:
            tail = "\n".join(list(filter(None, self.output().splitlines()))[-10:])
            raise BenchmarkError(f"`{self._name}` ended with status {status}:\n{tail}")

    def wait_for_success(self, timeout_seconds: float) -> None:
        """Wait for the end of the process; raises BenchmarkError unless its status is 0."""
        wait_until(self.has_ended, timeout_seconds, what=f"end of `{self._name}`")
        if self._child.returncode != 0:
            self.check_running()
