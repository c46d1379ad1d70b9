"""What the steps act through: netlink, programs, sysctls; and where it is all told."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

from wgd.quick.errors import QuickError
from wgd.quick.rtnetlink import Link, Rtnetlink

PROGRAM_TIMEOUT_SECONDS: Final = 60.0

_SYSCTLS: Final = Path("/proc/sys")


class System:
    """The system as steps see it; `say` is told each command that a step stands for.

    With `adopts`, what is there already is taken for ours instead of for somebody else's: an
    interface that outlived its daemon is brought up to date. `uapi_directory` is where a daemon
    that is started puts its socket, None for the system's directory.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        warn: Callable[[str], None],
        *,
        adopts: bool = False,
        uapi_directory: Path | None = None,
    ) -> None:
        self.say = say
        self.warn = warn
        self.adopts = adopts
        self.uapi_directory = uapi_directory

    @cached_property
    def network(self) -> Rtnetlink:
        """Route netlink of this network namespace. Raises OSError."""
        return Rtnetlink()

    def close(self) -> None:
        """Close what was opened."""
        if "network" in self.__dict__:
            self.network.close()
            del self.__dict__["network"]

    def link(self, interface: str) -> Link:
        """Return an interface that must be there. Raises QuickError."""
        link = self.network.link(interface)
        if link is None:
            raise QuickError(f"{interface} has gone: see why its daemon has ended")
        return link

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """Let what is there already pass, if it is ours."""
        try:
            yield
        except FileExistsError:
            if not self.adopts:
                raise

    @staticmethod
    def has(program: str) -> bool:
        """Whether a program is on the PATH."""
        return shutil.which(program) is not None

    @staticmethod
    def run(*command: str, stdin: str = "") -> str:
        """Run a program to its end and return what it wrote. Raises QuickError if it fails."""
        try:
            completed = subprocess.run(  # noqa: S603 - no shell; the words are ours
                command,
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PROGRAM_TIMEOUT_SECONDS,
                check=False,
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as error:
            raise QuickError(f"cannot run {command[0]}: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise QuickError(
                f"{command[0]} did not end within {PROGRAM_TIMEOUT_SECONDS:g} s: "
                "see what it waits for"
            ) from None
        if completed.returncode != 0:
            said = " ".join(completed.stderr.split()) or f"exit status {completed.returncode}"
            raise QuickError(f"{' '.join(command)} failed: {said}")
        return completed.stdout

    @staticmethod
    def sysctl(name: str) -> str | None:
        """Return the value of a sysctl, named with slashes; None if there is none."""
        try:
            return (_SYSCTLS / name).read_text().strip()
        except OSError:
            return None

    @staticmethod
    def set_sysctl(name: str, value: str) -> None:
        """Set a sysctl. Raises OSError."""
        (_SYSCTLS / name).write_text(value)
