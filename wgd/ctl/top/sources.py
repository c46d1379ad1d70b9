"""Where `top` gets its figures, an interface at a time and the best way first.

1 The status socket of `wgd --metrics unix`: who is in its group needs not be root, and the daemon
answers it beside its work. 2 The UAPI socket's `status`, of a wgd. 3 The UAPI socket's `get`, of
any daemon: counters, but no reasons.
"""

import errno
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wgd.ctl.session import Session
from wgd.ctl.statuses import (
    TIMEOUT_SECONDS,
    WatchError,
    names,
    of_other_daemon,
    watched_interface,
)
from wgd.errors import WgdError
from wgd.status import DeviceStatus
from wgd.uapi.client import DeviceError
from wgd.watch.listener import RUN_DIRECTORY


@dataclass(frozen=True, slots=True)
class Reading:
    """One look: what could be read, and one line for each interface that could not."""

    statuses: tuple[DeviceStatus, ...]
    problems: tuple[str, ...]


class Reader:
    """Reads the interfaces that are `wanted`, or without any all there are at that moment."""

    def __init__(
        self, session: Session, wanted: Sequence[str] = (), run_directory: Path = RUN_DIRECTORY
    ) -> None:
        self._client = session.client(TIMEOUT_SECONDS)
        self._names = tuple(wanted)
        self._run_directory = run_directory
        self._others: set[str] = set()
        """Those of other daemons: not asked again for what they do not know."""

    def read(self) -> Reading:
        """Return what there is now; never raises for what one interface does."""
        statuses = []
        problems = []
        for name in self._names or names(self._client, self._run_directory):
            try:
                statuses.append(self._status(name))
            except _LeftBehindError as error:
                if self._names:
                    problems.append(str(error))
            except WgdError as error:
                problems.append(str(error))
        return Reading(tuple(statuses), tuple(problems))

    def _status(self, name: str) -> DeviceStatus:
        try:
            return watched_interface(name, self._run_directory, TIMEOUT_SECONDS)
        except WatchError as error:
            refusal = error
        if name not in self._others:
            try:
                return self._client.status(name)
            except DeviceError as error:
                if error.errno in (errno.EACCES, errno.EPERM, errno.ENODEV):
                    raise _explained(error, refusal) from error
                if error.errno not in (errno.EOPNOTSUPP, errno.EPROTO):
                    raise
        self._others.add(name)
        try:
            return of_other_daemon(self._client.device(name), time.time_ns())
        except DeviceError:
            self._others.discard(name)  # the next one of that name may be a wgd
            raise


class _LeftBehindError(DeviceError):
    """There is nothing but the status socket of a daemon that was killed."""


def _explained(error: DeviceError, refusal: WatchError) -> DeviceError:
    """Say what else was tried, where neither socket can be had."""
    if isinstance(refusal.__cause__, ConnectionRefusedError) and error.errno == errno.ENODEV:
        return _LeftBehindError(error.errno, f"{error}; nobody listens: {refusal}")
    if isinstance(refusal.__cause__, FileNotFoundError):
        hint = "; without root, start the daemon with --metrics unix"
    elif isinstance(refusal.__cause__, PermissionError):
        hint = f"; {refusal}: that is for the members of its group (--metrics-group)"
    else:
        hint = f"; {refusal}"
    return DeviceError(error.errno, f"{error}{hint}")
