"""Where `top` gets its figures, an interface at a time and the best way first.

1 The status socket of `wgd --metrics unix`: who is in its group needs not be root, and the daemon
answers it beside its work. 2 The UAPI socket's `status`, of a wgd. 3 The UAPI socket's `get`, of
any daemon: counters, but no reasons.
"""

import contextlib
import errno
import http.client
import json
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wgd.configuration import NO_KEY
from wgd.ctl.session import Session
from wgd.ctl.values import base64_of
from wgd.errors import WgdError
from wgd.interface_name import check_interface_name
from wgd.status import DeviceStatus, PeerStatus, from_json
from wgd.uapi.client import Device, DeviceError
from wgd.uapi.paths import connect_address
from wgd.watch.listener import RUN_DIRECTORY

TIMEOUT_SECONDS: Final = 5.0
MAX_STATUS_SIZE: Final = 64 << 20
"""Bytes: 100,000 peers."""

_SUFFIX: Final = ".sock"


@dataclass(frozen=True, slots=True)
class Reading:
    """One look: what could be read, and one line for each interface that could not."""

    statuses: tuple[DeviceStatus, ...]
    problems: tuple[str, ...]


class Reader:
    """Reads the interfaces called `names`, or without names all there are at that moment."""

    def __init__(
        self, session: Session, names: Sequence[str] = (), run_directory: Path = RUN_DIRECTORY
    ) -> None:
        self._client = session.client(TIMEOUT_SECONDS)
        self._names = tuple(names)
        self._run_directory = run_directory
        self._others: set[str] = set()
        """Those of other daemons: not asked again for what they do not know."""

    def read(self) -> Reading:
        """Return what there is now; never raises for what one interface does."""
        statuses = []
        problems = []
        for name in self._names or self._found():
            try:
                statuses.append(self._status(name))
            except _LeftBehindError as error:
                if self._names:
                    problems.append(str(error))
            except WgdError as error:
                problems.append(str(error))
        return Reading(tuple(statuses), tuple(problems))

    def _found(self) -> list[str]:
        names = dict.fromkeys(self._client.names())
        with contextlib.suppress(OSError):
            for path in sorted(self._run_directory.glob(f"*{_SUFFIX}")):
                with contextlib.suppress(WgdError):
                    check_interface_name(path.stem)
                    names[path.stem] = None
        return list(names)

    def _status(self, name: str) -> DeviceStatus:
        path = self._run_directory / f"{name}{_SUFFIX}"
        try:
            return _ask(path)
        except (OSError, http.client.HTTPException, ValueError, WgdError) as error:
            refusal = error
        if name not in self._others:
            try:
                return self._client.status(name)
            except DeviceError as error:
                if error.errno in (errno.EACCES, errno.EPERM, errno.ENODEV):
                    raise _explained(error, path, refusal) from error
                if error.errno not in (errno.EOPNOTSUPP, errno.EPROTO):
                    raise
        self._others.add(name)
        try:
            return of_other_daemon(self._client.device(name), time.time_ns())
        except DeviceError:
            self._others.discard(name)  # the next one of that name may be a wgd
            raise


def of_other_daemon(device: Device, now_ns: int) -> DeviceStatus:
    """Return what a daemon's `get` tells of its status; `version` stays "". No secret comes along.

    Whether there is a session is guessed from the last handshake: it is good for three minutes.
    """
    return DeviceStatus(
        interface=device.name,
        now_ns=now_ns,
        public_key="" if device.public_key == NO_KEY else base64_of(device.public_key),
        listen_port=device.listen_port,
        is_up=True,
        peers=tuple(
            PeerStatus(
                public_key=base64_of(peer.public_key),
                endpoint="" if peer.endpoint is None else str(peer.endpoint),
                allowed_ips=tuple(map(str, peer.allowed_ips)),
                persistent_keepalive_seconds=peer.persistent_keepalive_seconds,
                has_preshared_key=peer.preshared_key != NO_KEY,
                has_session=now_ns - peer.last_handshake_ns < 180 * 10**9,
                last_handshake_ns=peer.last_handshake_ns,
                received_bytes=peer.received_bytes,
                sent_bytes=peer.sent_bytes,
            )
            for peer in device.peers
        ),
    )


class _LeftBehindError(DeviceError):
    """There is nothing but the status socket of a daemon that was killed."""


def _explained(error: DeviceError, path: Path, refusal: Exception) -> DeviceError:
    """Say what else was tried, where neither socket can be had."""
    if isinstance(refusal, ConnectionRefusedError) and error.errno == errno.ENODEV:
        return _LeftBehindError(error.errno, f"{error}; nobody listens at {path}")
    if isinstance(refusal, FileNotFoundError):
        hint = f"; without root, start the daemon with --metrics unix (there is no {path})"
    elif isinstance(refusal, PermissionError):
        hint = f"; {path} is for the members of its group (--metrics-group)"
    else:
        hint = f"; {path} cannot be used either: {refusal}"
    return DeviceError(error.errno, f"{error}{hint}")


# -- the status socket -----------------------------------------------------------------------------


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with connect_address(self._path) as address:
            self.sock.connect(address)


def _ask(path: Path) -> DeviceStatus:
    """Raises OSError, HTTPException, WgdError, and ValueError for an answer that is no status."""
    with contextlib.closing(_Connection(path)) as connection:
        connection.request("GET", "/status")
        answer = connection.getresponse()
        body = b"".join(_limited(answer))
    if answer.status != http.client.OK:
        raise ValueError(f"it answered {answer.status}")
    return from_json(json.loads(body))


def _limited(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    size = 0
    while data := answer.read(1 << 20):
        size += len(data)
        if size > MAX_STATUS_SIZE:
            raise ValueError("its answer is too long")
        yield data
