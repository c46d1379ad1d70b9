"""`up`, `down`, `save` and `strip`: wg-quick's files, always on wgd."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from wgd.ctl.errors import UsageError
from wgd.ctl.session import CONFIGURE_TIMEOUT_SECONDS, Session, warn
from wgd.ctl.values import EndpointReader
from wgd.quick import config as files
from wgd.quick import lines
from wgd.quick.config import QuickConfig
from wgd.quick.errors import QuickError

_DEADLY: Final = (signal.SIGTERM, signal.SIGHUP)


def strip(words: Sequence[str], _session: Session) -> int:
    """Run `strip`: print the lines of a file that are for `wg`."""
    path, _ = _find(words)
    sys.stdout.flush()
    sys.stdout.buffer.write(lines.strip(files.content(path)))
    return 0


def up(words: Sequence[str], session: Session) -> int:
    """Run `up`: make the interface of a file, with all that the file says."""
    _check_system()
    config = _load(words)
    from wgd.quick.journal import DIRECTORY, lock
    from wgd.quick.system import System
    from wgd.quick.up import up as bring_up

    system = System(_say, warn, uapi_directory=session.directory)
    reader = EndpointReader(session.environment, warn, time.sleep)
    with _signals_raise(), closing(system), lock(config.interface, DIRECTORY):
        bring_up(
            config,
            system=system,
            client=session.client(CONFIGURE_TIMEOUT_SECONDS),
            endpoints=reader,
            directory=DIRECTORY,
        )
    return 0


def down(words: Sequence[str], session: Session) -> int:
    """Run `down`: undo what `up` did, from its journal, or from the file if there is none."""
    _check_system()
    from wgd.quick.down import down as take_down
    from wgd.quick.journal import DIRECTORY, Journal, lock
    from wgd.quick.system import System

    config: QuickConfig | None = None
    interface = files.interface_of(words[0]) if len(words) == 1 else None
    if interface is None or Journal.find(interface, DIRECTORY) is None:
        config = _load(words)
        interface = config.interface
    else:
        try:
            config = _load(words)
        except QuickError as error:
            warn(f"{error}; going by what was done at `up`")
    system = System(_say, warn, uapi_directory=session.directory)
    with _signals_raise(), closing(system), lock(interface, DIRECTORY):
        take_down(
            interface,
            config,
            system=system,
            client=session.client(),
            directory=DIRECTORY,
            save=lambda: _save(config, session),
        )
    return 0


def save(words: Sequence[str], session: Session) -> int:
    """Run `save`: write the file anew from what the interface is now."""
    _check_system()
    _save(_load(words), session)
    return 0


def _save(config: QuickConfig | None, session: Session) -> None:
    from wgd.quick.rtnetlink import Rtnetlink
    from wgd.quick.save import save as write

    assert config is not None  # noqa: S101 - asked for only by a file
    with Rtnetlink() as network:
        write(config, session.client().device(config.interface), network)


def _load(words: Sequence[str]) -> QuickConfig:
    """Return what the file that the words mean says. Raises UsageError and QuickError."""
    return files.load(*_find(words))


def _find(words: Sequence[str]) -> tuple[Path, str]:
    """Return the file that the words mean and its interface. Raises UsageError and QuickError."""
    if len(words) != 1:
        raise UsageError("")
    path, interface = files.find(words[0])
    if files.is_world_accessible(path):
        warn(f"`{path}' is world accessible: say chmod go= for it, since it holds a private key")
    return path, interface


def _check_system() -> None:
    if sys.platform != "linux":
        raise QuickError(
            "up, down and save are for Linux so far: on macOS use wg-quick, with "
            "WG_QUICK_USERSPACE_IMPLEMENTATION=wgd"
        )
    if os.geteuid() != 0:
        raise QuickError("this must be run as root: say sudo before it")


def _say(command: str) -> None:
    sys.stderr.write(f"[#] {command}\n")


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let what would kill us end us instead, so that everything is undone."""

    def end(number: int, _frame: FrameType | None) -> None:
        for each in (*_DEADLY, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)  # undoing is quick, and must not be broken off
        raise SystemExit(128 + number)

    before = {
        number: signal.signal(number, end)
        for number in (*_DEADLY, signal.SIGINT)
        if signal.getsignal(number) is not signal.SIG_IGN  # as nohup has it
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
