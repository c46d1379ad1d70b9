"""Open descriptors that come with the start: from systemd, or from the program we replace.

systemd's convention (sd_listen_fds(3)): LISTEN_FDS descriptors from number 3 on, for the process
LISTEN_PID, with names in LISTEN_FDNAMES, separated by colons:

    tun        the TUN device, one descriptor a queue
    uapi       the listening UAPI socket of a systemd.socket unit, whose file stays that unit's
    uapi-own   the listening UAPI socket that a wgd before us has made, whose file is ours now
    state      the configuration: see `wgd.service.state`
    janitor    the pipe to `wgd.service.janitor`

A socket unit gives `uapi` (FileDescriptorName=uapi); all others a wgd itself has put into the fd
store or has handed over.
"""

import fcntl
import os
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final

from wgd.errors import WgdError

FIRST: Final = 3
MAX_COUNT: Final = 1024
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

TUN: Final = "tun"
UAPI: Final = "uapi"
UAPI_OWN: Final = "uapi-own"
STATE: Final = "state"
JANITOR: Final = "janitor"
_NAMES: Final = (TUN, UAPI, UAPI_OWN, STATE, JANITOR)
STORED: Final = (TUN, UAPI_OWN, STATE)
"""What a service manager is asked to keep."""


@dataclass(frozen=True, slots=True)
class Handed:
    """What was handed to us; close-on-exec, and ours from now on."""

    tun: tuple[int, ...] = ()
    uapi: int | None = None
    uapi_own: int | None = None
    state: int | None = None
    janitor: int | None = None

    @property
    def is_some(self) -> bool:
        """Whether there is anything."""
        return bool(self.tun) or any(
            one is not None for one in (self.uapi, self.uapi_own, self.state, self.janitor)
        )


def take(environment: MutableMapping[str, str], pid: int) -> Handed:
    """Take the descriptors meant for process `pid`, and their variables out of the environment.

    Raises WgdError for variables that make no sense, descriptors that are not open, names that
    nobody here knows, and two where there can be one.
    """
    pid_text, count_text, names_text = (environment.pop(name, "") for name in _VARIABLES)
    if pid_text != str(pid) or not count_text:
        return Handed()
    if not (count_text.isascii() and count_text.isdigit() and len(count_text) < 6):
        raise WgdError(f"LISTEN_FDS={count_text!r} is not a number of descriptors")
    count = int(count_text)
    if count > MAX_COUNT:
        raise WgdError(f"LISTEN_FDS={count} is too much: at most {MAX_COUNT}")
    names = names_text.split(":") if count else []
    if len(names) != count:
        raise WgdError(
            f"LISTEN_FDNAMES={names_text!r} does not name {count} descriptors: in a socket unit, "
            "set FileDescriptorName=uapi"
        )
    return _sorted_out(names)


def _sorted_out(names: Sequence[str]) -> Handed:
    found: dict[str, list[int]] = {name: [] for name in _NAMES}
    for fd, name in enumerate(names, start=FIRST):
        if name not in found:
            raise WgdError(
                f"LISTEN_FDNAMES: descriptor {fd} is called {name!r}, and wgd knows "
                f"{', '.join(_NAMES)}: in a socket unit, set FileDescriptorName=uapi"
            )
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFD)
        except OSError as error:
            raise WgdError(f"LISTEN_FDS: descriptor {fd} ({name}) is not open") from error
        fcntl.fcntl(fd, fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)
        found[name].append(fd)
    for name, fds in found.items():
        if name != TUN and len(fds) > 1:
            raise WgdError(f"LISTEN_FDNAMES: {len(fds)} descriptors are called {name}: give one")
    if found[UAPI] and found[UAPI_OWN]:
        # A socket unit was started since; its file has taken the place of ours.
        os.close(found[UAPI_OWN].pop())

    def one(name: str) -> int | None:
        return found[name][0] if found[name] else None

    return Handed(tuple(found[TUN]), one(UAPI), one(UAPI_OWN), one(STATE), one(JANITOR))


def hand_over(
    named: Sequence[tuple[str, int]], environment: Mapping[str, str], pid: int
) -> dict[str, str]:
    """Move descriptors to where the next program of process `pid` looks; return its environment.

    Whatever else had these numbers is closed: call it right before `exec`, when nothing else is
    open that matters.
    """
    # Out of the way first: none may be overwritten before it has been copied.
    above = FIRST + len(named)
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for _, fd in named]
    for _, fd in named:
        os.close(fd)
    for number, copy in enumerate(copies, start=FIRST):
        os.dup2(copy, number, inheritable=True)
        os.close(copy)
    return {
        **environment,
        "LISTEN_PID": str(pid),
        "LISTEN_FDS": str(len(named)),
        "LISTEN_FDNAMES": ":".join(name for name, _ in named),
    }
