"""Replacing the running program by a new one in place: same process, TUN, UAPI socket and state.

    1 ask     the new program whether it starts here with our arguments (`--check`), while we go on
    2 stop    everything but what is handed over: packets wait in the TUN, clients in the backlog
    3 exec    the new program finds the descriptors as systemd's convention has it

If 3 fails we are still there, and start again with the same descriptors.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from wgd.errors import WgdError
from wgd.service.descriptors import Handed, hand_over, take

CHECK_OPTION: Final = "--check"
CHECK_SECONDS: Final = 30.0
_MAX_REASON_SIZE: Final = 300

# What we were given once and now hand over in another way.
_USED_UP: Final = ("WG_TUN_FD", "WG_UAPI_FD", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


@dataclass(frozen=True, slots=True)
class Command:
    """How the program was started: what has to be done again to start its successor."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: str

    @classmethod
    def of_this_process(cls, environment: Mapping[str, str]) -> "Command":
        """Return how this process was started; call it before a change of directory."""
        try:
            directory = os.getcwd()  # noqa: PTH109 - for chdir, as it is
        except FileNotFoundError:
            directory = "/"
        kept = {name: value for name, value in environment.items() if name not in _USED_UP}
        # The interpreter by its path: argv[0] is what somebody has called it.
        return cls((sys.executable, *sys.orig_argv[1:]), kept, directory)

    async def check(self) -> None:
        """Ask the program on disk whether it would start. Raises WgdError if not."""
        import asyncio  # not at the top: `wgd --help` can do without

        try:
            process = await asyncio.create_subprocess_exec(
                *self.argv,
                CHECK_OPTION,
                env=self.environment,
                cwd=self.directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            what = self.directory if error.filename == self.directory else self.argv[0]
            raise WgdError(f"{what}: cannot be run: {error.strerror}") from error
        try:
            _, stderr = await asyncio.wait_for(process.communicate(), CHECK_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise WgdError(f"the new program did not answer in {CHECK_SECONDS:.0f} s") from None
        if process.returncode != 0:
            reason = stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise WgdError(
                f"the new program would not start: {reason[-_MAX_REASON_SIZE:]} "
                f"(exit status {process.returncode})"
            )

    def execute(self, named: Sequence[tuple[str, int]]) -> tuple[Handed, str]:
        """Become the new program, with descriptors by name, which are given away.

        Returns only if that fails: the same descriptors with other numbers, and why. What else had
        the numbers from 3 on is closed then, too.
        """
        environment = hand_over(named, self.environment, os.getpid())
        try:
            os.chdir(self.directory)
            os.execve(self.argv[0], list(self.argv), environment)  # noqa: S606 - no shell is meant
        except OSError as error:
            what = f"{error.filename}: " if error.filename is not None else ""
            return take(environment, os.getpid()), f"{what}{error.strerror or error}"
