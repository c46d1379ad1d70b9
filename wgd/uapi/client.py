"""The client library: see and configure the tunnels of this machine, from Python.

Works with every daemon that has a configuration socket: wgd, wireguard-go, boringtun, gotatun.
`Client` blocks, `AsyncClient` has the same methods as coroutines, for asyncio and uvloop.

One transaction, in steps: 1 render the whole request; 2 connect; 3 write all of it; 4 read until
the answer is complete. All of it has one deadline. A daemon that refuses a long request may answer
and close before it has read it: then step 3 fails and step 4 still tells why.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wgd.configuration import NO_KEY, AllowedIpChange, ControlChange, DeviceChange, PeerChange
from wgd.configuration import PeerState as Peer
from wgd.noise.primitives import PrivateKey
from wgd.status import DeviceStatus, PeerStatus
from wgd.uapi import discovery
from wgd.uapi.client_errors import (
    DeviceError,
    DeviceNotFoundError,
    asking_a_wgd,
    check_errno,
    naming,
)
from wgd.uapi.client_protocol import (
    GET_REQUEST,
    STATUS_REQUEST,
    Answer,
    AnswerError,
    GetAnswer,
    SetAnswer,
    StatusAnswer,
    set_request,
)
from wgd.uapi.control import control_request
from wgd.uapi.discovery import FoundSocket, Survey
from wgd.uapi.paths import connect_address
from wgd.uapi.socket_policy import DEFAULT_BUNDLE_IDS

__all__ = [
    "AllowedIpChange",
    "AsyncClient",
    "Client",
    "ControlChange",
    "Device",
    "DeviceChange",
    "DeviceError",
    "DeviceNotFoundError",
    "DeviceStatus",
    "Peer",
    "PeerChange",
    "PeerStatus",
]

logger = logging.getLogger(__name__)

READ_SIZE: Final = 64 * 1024
"""Bytes parsed in one go, a few milliseconds' worth."""

_CONNECT_PAUSE_SECONDS: Final = 0.02
_MAX_AT_ONCE: Final = 64  # connections of one `AsyncClient.devices`
_CUT_OFF: Final = (BrokenPipeError, ConnectionResetError)


@dataclass(frozen=True, slots=True)
class Device:
    """A device as it was at one moment: 32 byte keys (zeros: none), and what else `wg show` shows.

    `path` is the socket it answered on.
    """

    name: str
    path: Path
    private_key: bytes = field(repr=False)
    public_key: bytes = field(repr=False)
    listen_port: int
    fwmark: int
    peers: tuple[Peer, ...]


OnError = Callable[[FoundSocket, DeviceError], None]
"""Told about each device that `devices` leaves out, and why."""


def log_error(found: FoundSocket, error: DeviceError) -> None:
    """Log a device that is left out."""
    logger.warning("event=device_left_out name=%s reason=%r", found.name, str(error))


class _BaseClient:
    """Where to look, and how long to wait.

    `directory` is looked into first, then the system's directory, then the containers of
    `bundle_ids` in the homes that `environment` names. `timeout_seconds` is for each transaction
    with a daemon as a whole.
    """

    def __init__(
        self,
        *,
        directory: Path | None = None,
        bundle_ids: Sequence[str] = DEFAULT_BUNDLE_IDS,
        timeout_seconds: float = 5.0,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._directory = directory
        self._bundle_ids = bundle_ids
        self._timeout_seconds = timeout_seconds
        self._environment = environment

    def _survey(self) -> Survey:
        return discovery.survey(
            directory=self._directory, bundle_ids=self._bundle_ids, environment=self._environment
        )


# -- blocking --------------------------------------------------------------------------------------


class Client(_BaseClient):
    """Sees and configures devices, blocking. It keeps nothing open: threads may share one."""

    def survey(self) -> Survey:
        """Return what was found where, and what was skipped and why."""
        return self._survey()

    def names(self) -> list[str]:
        """Return the names of all devices found, answering or not."""
        return [found.name for found in self.survey().sockets]

    def devices(self, *, on_error: OnError = log_error) -> list[Device]:
        """Return the devices that answer; `on_error` is told of each that does not."""
        devices = []
        for found in self.survey().sockets:
            try:
                devices.append(self._get(found))
            except DeviceError as error:
                on_error(found, error)
        return devices

    def device(self, name: str) -> Device:
        """Return the device called `name`. Raises DeviceNotFoundError and DeviceError."""
        return self._get(_find(self.survey(), name))

    def configure(self, name: str, change: DeviceChange) -> None:
        """Apply `change` to the device called `name`.

        Raises ConfigurationError, before anything is sent, for a value that no daemon would take;
        DeviceNotFoundError; and DeviceError. After one, wgd has applied nothing; of other daemons
        that is not certain. An `endpoint_host` is not part of it: see `control`.
        """
        request = b"".join(set_request(change))
        found = _find(self.survey(), name)
        answer = SetAnswer()
        self._transact(found, request, answer)
        check_errno(found, answer)

    def status(self, name: str) -> DeviceStatus:
        """Return what the device called `name` is doing; only a wgd knows.

        Raises DeviceNotFoundError, and DeviceError: with EOPNOTSUPP if it is another daemon.
        """
        found = _find(self.survey(), name)
        answer = StatusAnswer()
        with asking_a_wgd(found, answer):
            self._transact(found, STATUS_REQUEST, answer)
            check_errno(found, answer)
            with naming(found, self._timeout_seconds):
                return answer.status()

    def control(self, name: str, change: ControlChange) -> None:
        """Apply `change`, whole or not at all, to the device called `name`, which must be a wgd.

        Raises ConfigurationError, before anything is sent, for a value that is none;
        DeviceNotFoundError; and DeviceError, with EOPNOTSUPP if it is another daemon, with ENOENT
        if a public key is no peer's.
        """
        request = control_request(change)
        found = _find(self.survey(), name)
        answer = SetAnswer()
        with asking_a_wgd(found, answer):
            self._transact(found, request, answer)
            check_errno(found, answer)

    def _get(self, found: FoundSocket) -> Device:
        answer = GetAnswer(socket.if_nametoindex)
        self._transact(found, GET_REQUEST, answer)
        return _device(found, answer)

    def _transact(self, found: FoundSocket, request: bytes, answer: Answer) -> None:
        deadline = time.monotonic() + self._timeout_seconds
        with (
            naming(found, self._timeout_seconds),
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock,
        ):
            while not _connect(sock, found.path):
                time.sleep(min(_CONNECT_PAUSE_SECONDS, _remaining_seconds(deadline)))
            is_sent = False
            with contextlib.suppress(*_CUT_OFF):
                sock.settimeout(_remaining_seconds(deadline))
                sock.sendall(request)
                is_sent = True
            while not answer.is_complete:
                data = b""
                with contextlib.suppress(*_CUT_OFF):
                    sock.settimeout(_remaining_seconds(deadline))
                    data = sock.recv(READ_SIZE)
                _feed(answer, data)
            _check_order(answer, is_sent=is_sent)


def _remaining_seconds(deadline: float) -> float:
    """Return the time left until `deadline`; raises TimeoutError when there is none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


# -- asyncio ---------------------------------------------------------------------------------------


class AsyncClient(_BaseClient):
    """Sees and configures devices, as coroutines: `Client` says what each method does.

    It keeps nothing open, and cancelling a call closes its connection.
    """

    async def survey(self) -> Survey:
        """Return what was found where, and what was skipped and why."""
        # In a thread: looking into another app's container may make macOS ask the user.
        return await asyncio.to_thread(self._survey)

    async def names(self) -> list[str]:
        """Return the names of all devices found, answering or not."""
        return [found.name for found in (await self.survey()).sockets]

    async def devices(self, *, on_error: OnError = log_error) -> list[Device]:
        """Return the devices that answer, asked all at once; `on_error` is told of the others."""
        sockets = (await self.survey()).sockets
        turns = asyncio.Semaphore(_MAX_AT_ONCE)
        answers = await asyncio.gather(*(self._get_or_error(found, turns) for found in sockets))
        devices = []
        for found, answer in zip(sockets, answers, strict=True):
            if isinstance(answer, DeviceError):
                on_error(found, answer)
            else:
                devices.append(answer)
        return devices

    async def device(self, name: str) -> Device:
        """Return the device called `name`. Raises DeviceNotFoundError and DeviceError."""
        return await self._get(_find(await self.survey(), name))

    async def configure(self, name: str, change: DeviceChange) -> None:
        """Apply `change` to the device called `name`; raises what `Client.configure` raises."""
        parts = []
        for part in set_request(change):
            parts.append(part)
            await asyncio.sleep(0)
        found = _find(await self.survey(), name)
        answer = SetAnswer()
        await self._transact(found, b"".join(parts), answer)
        check_errno(found, answer)

    async def status(self, name: str) -> DeviceStatus:
        """Return what the device called `name` is doing; raises what `Client.status` raises."""
        found = _find(await self.survey(), name)
        answer = StatusAnswer()
        with asking_a_wgd(found, answer):
            await self._transact(found, STATUS_REQUEST, answer)
            check_errno(found, answer)
            with naming(found, self._timeout_seconds):
                # In a thread: that of tens of thousands of peers takes seconds.
                return await asyncio.to_thread(answer.status)

    async def control(self, name: str, change: ControlChange) -> None:
        """Apply `change` to the device called `name`; raises what `Client.control` raises."""
        request = control_request(change)
        found = _find(await self.survey(), name)
        answer = SetAnswer()
        with asking_a_wgd(found, answer):
            await self._transact(found, request, answer)
            check_errno(found, answer)

    async def _get_or_error(
        self, found: FoundSocket, turns: asyncio.Semaphore
    ) -> Device | DeviceError:
        async with turns:
            try:
                return await self._get(found)
            except DeviceError as error:
                return error

    async def _get(self, found: FoundSocket) -> Device:
        answer = GetAnswer(socket.if_nametoindex)
        await self._transact(found, GET_REQUEST, answer)
        return _device(found, answer)

    async def _transact(self, found: FoundSocket, request: bytes, answer: Answer) -> None:
        loop = asyncio.get_running_loop()
        with (
            naming(found, self._timeout_seconds),
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock,
        ):
            async with asyncio.timeout(self._timeout_seconds):
                while not _connect(sock, found.path):  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(_CONNECT_PAUSE_SECONDS)
                is_sent = False
                with contextlib.suppress(*_CUT_OFF):
                    await loop.sock_sendall(sock, request)
                    is_sent = True
                while not answer.is_complete:
                    data = b""
                    with contextlib.suppress(*_CUT_OFF):
                        data = await loop.sock_recv(sock, READ_SIZE)
                    _feed(answer, data)
                    # What has arrived already is read without waiting: let others have their turn.
                    await asyncio.sleep(0)
            _check_order(answer, is_sent=is_sent)


# -- what both do ----------------------------------------------------------------------------------


def _connect(sock: socket.socket, path: Path) -> bool:
    """Connect and leave `sock` non-blocking; False while the daemon has no room for another client.

    On a unix socket this never waits. Linux says EAGAIN for a full backlog, and does not tell when
    there is room again.
    """
    sock.setblocking(False)
    try:
        with connect_address(path) as address:
            sock.connect(address)
    except BlockingIOError:
        return False
    return True


def _feed(answer: Answer, data: bytes) -> None:
    if data:
        answer.receive_data(data)
    else:
        answer.receive_eof()


def _check_order(answer: Answer, *, is_sent: bool) -> None:
    if answer.errno == 0 and not is_sent:
        raise AnswerError("it reports success, but closed before it had the whole request")


def _find(survey: Survey, name: str) -> FoundSocket:
    for found in survey.sockets:
        if found.name == name:
            return found
    for note in survey.notes:
        if note.path.name == f"{name}.sock":
            raise DeviceNotFoundError(f"{name} ({note.path}) {note.reason}")
    places = ", ".join(map(str, survey.places)) or "any place"
    skipped = "".join(f"; {note.path}: {note.reason}" for note in survey.notes)
    raise DeviceNotFoundError(
        f"there is no device {name!r} in {places}: start its daemon, or check the name{skipped}"
    )


def _device(found: FoundSocket, answer: GetAnswer) -> Device:
    check_errno(found, answer)
    shown = answer.shown()
    state = shown.state
    public_key = shown.own_public_key
    if state.private_key != NO_KEY:
        public_key = PrivateKey(state.private_key).public_key
    return Device(
        name=found.name,
        path=found.path,
        private_key=state.private_key,
        public_key=public_key,
        listen_port=state.listen_port,
        fwmark=state.fwmark,
        peers=tuple(state.peers),
    )
