"""`set`, `setconf`, `addconf`, `syncconf`: read what is wanted, then change the device at once."""

from collections.abc import Sequence
from pathlib import Path

from wgd.configuration import DeviceChange
from wgd.ctl import config_file, set_syntax
from wgd.ctl.errors import ConfigFileError, UsageError
from wgd.ctl.keys import read_key_file
from wgd.ctl.progress import Progress
from wgd.ctl.session import CONFIGURE_TIMEOUT_SECONDS, Session
from wgd.ctl.sync import difference


def set_values(words: Sequence[str], session: Session) -> int:
    """Run `set`: change what the words say."""
    if len(words) < 2:
        raise UsageError("")
    name, *rest = words
    with Progress() as progress:
        progress.waits("looking up endpoints")
        change = set_syntax.parse(
            rest,
            read_key_file=read_key_file,
            read_endpoint=session.endpoint_reader(progress.warn).read,
            warn=progress.warn,
        )
        _configure(session, name, change, progress)
    return 0


def setconf(words: Sequence[str], session: Session) -> int:
    """Run `setconf`: make the device what the file says, and nothing else."""
    with Progress() as progress:
        name, change = _read(words, session, progress)
        _configure(session, name, config_file.whole(change), progress)
    return 0


def addconf(words: Sequence[str], session: Session) -> int:
    """Run `addconf`: change only what the file speaks of."""
    with Progress() as progress:
        name, change = _read(words, session, progress)
        _configure(session, name, change, progress)
    return 0


def syncconf(words: Sequence[str], session: Session) -> int:
    """Run `syncconf`: as setconf, but leave alone what is so already."""
    with Progress() as progress:
        name, wanted = _read(words, session, progress)
        progress.waits(f"reading {name}")
        device = session.client().device(name)
        change = difference(device, config_file.whole(wanted))
        if change != DeviceChange():
            _configure(session, name, change, progress)
    return 0


def _read(words: Sequence[str], session: Session, progress: Progress) -> tuple[str, DeviceChange]:
    if len(words) != 2:
        raise UsageError("")
    name, file_name = words
    try:
        text = Path(file_name).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigFileError(f"cannot read {file_name!a}: {reason}") from None
    try:
        change = config_file.parse(
            text,
            read_endpoint=session.endpoint_reader(progress.warn).read,
            warn=progress.warn,
            on_line=lambda done, total: progress.has_done("lines read", done, total),
        )
    except ConfigFileError as error:
        raise ConfigFileError(f"{file_name!a}, {error}") from None
    return name, change


def _configure(session: Session, name: str, change: DeviceChange, progress: Progress) -> None:
    progress.waits(f"configuring {len(change.peers)} peers of {name}")
    session.client(CONFIGURE_TIMEOUT_SECONDS).configure(name, change)
