"""The way in: options and subcommand off the command line, and every error on one line.

The exit status is 0, 1 for an error or a wrong usage, and 128 and the signal's number when stopped
by Ctrl-C or by a pipe that is no longer read.
"""

import io
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from wgd import __version__
from wgd.ctl import configure, keys, quick, usage
from wgd.ctl.errors import UsageError
from wgd.ctl.log_level import log_level
from wgd.ctl.session import Session, report
from wgd.ctl.show import show, showconf
from wgd.ctl.where import where
from wgd.errors import WgdError
from wgd.uapi.socket_policy import DEFAULT_BUNDLE_IDS

_Subcommand = Callable[[Sequence[str], Session], int]


def _doctor(words: Sequence[str], session: Session) -> int:
    from wgd.ctl.doctor.command import doctor  # it is large, and the others do without

    return doctor(words, session)


def _top(words: Sequence[str], session: Session) -> int:
    from wgd.ctl.top.command import top  # here, as the terminal's library is slow to load

    return top(words, session)


SUBCOMMANDS: Final[Mapping[str, _Subcommand]] = {
    "show": show,
    "showconf": showconf,
    "set": configure.set_values,
    "setconf": configure.setconf,
    "addconf": configure.addconf,
    "syncconf": configure.syncconf,
    "genkey": keys.genkey,
    "genpsk": keys.genpsk,
    "pubkey": keys.pubkey,
    "where": where,
    "doctor": _doctor,
    "up": quick.up,
    "down": quick.down,
    "save": quick.save,
    "strip": quick.strip,
    "top": _top,
    "log-level": log_level,
}

_HELP: Final = ("help", "-h", "--help")
_VERSION: Final = ("version", "-v", "--version")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `wgdctl` and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of interfaces need not be what the locale can write.
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        status = run(sys.argv[1:] if arguments is None else arguments, os.environ)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except (WgdError, OSError) as error:
        report(error)
        status = 1
    sys.exit(status)


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one command and return the exit status. Raises WgdError and OSError."""
    session, words = _options(arguments, environment)
    name, *rest = words or ["show"]
    if name in _HELP:
        sys.stdout.write(usage.overview())
        return 0
    if name in _VERSION:
        sys.stdout.write(f"wgdctl v{__version__}\n")
        return 0
    if name not in SUBCOMMANDS:
        sys.stderr.write(f"wgdctl: there is no subcommand {name!a}\n{usage.overview()}")
        return 1
    if len(rest) == 1 and rest[0] in _HELP:
        sys.stdout.write(usage.explanation(name))
        return 0
    try:
        return SUBCOMMANDS[name](rest, session)
    except UsageError as error:
        if str(error):
            report(error)
        sys.stderr.write(usage.synopsis(name))
        return 1


def _options(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[Session, list[str]]:
    """Return the session and the words from the subcommand on. Raises WgdError."""
    directory = environment.get("WGD_UAPI_DIR", "")
    bundle_ids: list[str] = []
    words = list(arguments)
    while words and words[0].startswith("--"):
        option, equals, value = words[0].partition("=")
        if option not in ("--uapi-dir", "--sandbox-bundle-id"):
            break
        if not equals and len(words) > 1:
            value = words.pop(1)
        if not value:
            raise WgdError(f"{option} needs a value (try: wgdctl --help)")
        words.pop(0)
        if option == "--uapi-dir":
            directory = value
        else:
            bundle_ids.append(value)
    session = Session(
        directory=Path(directory) if directory else None,
        bundle_ids=tuple(bundle_ids) or DEFAULT_BUNDLE_IDS,
        environment=environment,
    )
    return session, words
