"""The hooks of a file: commands for bash, run one after another as wg-quick runs them.

They end with us, but not what they have started in the background.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from wgd.quick.children import die_with_parent
from wgd.quick.errors import QuickError

_BASH: Final = ("bash", "-e", "-o", "pipefail", "-O", "extglob", "-c")


def run(name: str, hooks: Sequence[str], interface: str, say: Callable[[str], None]) -> None:
    """Run hooks until one fails; `name` is what the file calls them. Raises QuickError."""
    for hook in hooks:
        command = hook.replace("%i", interface)
        say(command)
        try:
            status = subprocess.run(  # noqa: S603
                [*_BASH, command], check=False, env=_environment(), preexec_fn=die_with_parent
            ).returncode
        except OSError as error:
            raise QuickError(f"cannot run bash: {error.strerror}; install bash") from None
        _check(name, command, status)


async def run_in_loop(
    name: str, hooks: Sequence[str], interface: str, say: Callable[[str], None]
) -> None:
    """Run hooks while the loop runs, which they may need: `wg set %i …`. Raises QuickError.

    When it is cancelled, so is the hook.
    """
    for hook in hooks:
        command = hook.replace("%i", interface)
        say(command)
        try:
            process = await asyncio.create_subprocess_exec(
                *_BASH,
                command,
                stdin=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            raise QuickError(f"cannot run bash: {error.strerror}; install bash") from None
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.killpg(process.pid, signal.SIGKILL)  # with what the commands have started
            await process.wait()
            raise
        _check(name, command, status)


def _check(name: str, command: str, status: int) -> None:
    if status:
        how = f"exit status {status}" if status > 0 else f"signal {-status}"
        raise QuickError(f"{name} = {command} failed with {how}: mend the command, or take it out")


def _environment() -> dict[str, str]:
    """Return the environment, with our own programs found first, as wg-quick does with its own."""
    directory = Path(sys.executable).parent
    path = os.environ.get("PATH", os.defpath)
    return {**os.environ, "LC_ALL": "C", "PATH": f"{directory}{os.pathsep}{path}"}
