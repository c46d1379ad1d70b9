"""Keeps the configuration of a tunnel written down while it changes, and makes it whole again.

The messages are what a client would say on the UAPI socket: `set=1`, and for host names of
endpoints `control=1`. One is for ourselves: `sessions=1` names the peers that had a session when
the program was replaced, so that the next one does their handshakes before packets get lost.
"""

import asyncio
import errno
import itertools
import logging
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from wgd.configuration import (
    NO_KEY,
    AllowedIpChange,
    ControlChange,
    DeviceChange,
    DeviceState,
    PeerChange,
    PeerState,
)
from wgd.constants import REJECT_AFTER_TIME_NS
from wgd.errors import ConfigurationError, WgdError
from wgd.service.state import StateFile
from wgd.status import DeviceStatus
from wgd.uapi import grammar
from wgd.uapi.client_protocol import set_request
from wgd.uapi.control import control_request
from wgd.uapi.protocol import BadRequest, Connection, ControlRequest, SetRequest

logger = logging.getLogger(__name__)

_SESSIONS: Final = b"sessions=1\n"
_PEERS_PER_PART: Final = 64
_PREFIXES_PER_CHANGE: Final = 128
"""How much is made ready to be written in one go (a few milliseconds)."""

_GROWTH: Final = 2
_SMALL_SIZE: Final = 256 * 1024
"""A new snapshot is due when the messages are more than `_GROWTH` times the last one, and this."""


class Recorded(Protocol):
    """What is written down: a tunnel."""

    def get(self) -> DeviceState:
        """Return a consistent snapshot, made at once."""

    def reading(self) -> AbstractAsyncContextManager[DeviceState]:
        """Give a consistent snapshot whose peers are made when they are looked at."""

    def settings(self) -> DeviceState:
        """Return the device's own values, without its peers."""

    def has_peers(self, public_keys: Collection[bytes]) -> bool:
        """Whether each of these keys is a peer's."""

    def set(self, change: DeviceChange) -> None:
        """Apply `change` at once and whole, or raise ConfigurationError."""

    async def apply(self, change: DeviceChange) -> None:
        """As `set`, but while the loop does other work."""

    def status(self) -> DeviceStatus:
        """Return what it is doing."""


class Restored(Protocol):
    """What is made whole again: the tunnel, as the UAPI server sees it."""

    async def apply(self, change: DeviceChange) -> None:
        """Apply `change` whole, or raise ConfigurationError."""

    async def control(self, change: ControlChange) -> None:
        """Apply `change` whole, or raise ConfigurationError."""


class Recorder:
    """Stands before a tunnel and writes down, from `start` on, every change that it has taken."""

    def __init__(self, loop: asyncio.AbstractEventLoop, device: Recorded) -> None:
        self._loop = loop
        self._device = device
        self._state: StateFile | None = None
        self._hosts: dict[bytes, str] = {}
        """The endpoints given by name, by the peers' public keys."""
        self._snapshot_size = 0
        self._since: list[bytes] | None = None
        """What has changed while a new snapshot is being made."""
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        """Held by who changes something in slices."""
        self._is_whole = True
        self._is_finished = False

    def start(self, state: StateFile) -> None:
        """Write down everything as it is, and what changes from now on. Raises OSError."""
        device = self._device.get()
        state.replace(b"".join(snapshot(device, self._hosts_of())))
        self._snapshot_size = state.size
        self._state = state

    def get(self) -> DeviceState:
        """Return a consistent snapshot, made at once."""
        return self._device.get()

    def reading(self) -> AbstractAsyncContextManager[DeviceState]:
        """Give a consistent snapshot whose peers are made when they are looked at."""
        return self._device.reading()

    def has_peers(self, public_keys: Collection[bytes]) -> bool:
        """Whether each of these keys is a peer's."""
        return self._device.has_peers(public_keys)

    def status(self) -> DeviceStatus:
        """Return what the device is doing."""
        return self._device.status()

    def set(self, change: DeviceChange) -> None:
        """Apply `change` at once, or raise ConfigurationError; EAGAIN once all was handed over."""
        self._check_open()
        messages = [] if self._state is None else list(set_request(change))
        self._device.set(change)
        self._record_change(change, messages)

    async def apply(self, change: DeviceChange) -> None:
        """As `set`, but while the loop does other work."""
        async with self._turn:
            self._check_open()
            messages = []
            if self._state is not None:
                for message in set_request(change):
                    messages.append(message)
                    await asyncio.sleep(0)
            await self._device.apply(change)
            if self._state is not None and not messages:  # `start` has been called meanwhile
                messages += set_request(change)
            # At once: nobody else has changed anything since.
            self._record_change(change, messages)

    def _check_open(self) -> None:
        if self._is_finished:
            raise ConfigurationError(errno.EAGAIN, "the program is being replaced: try again")

    def _record_change(self, change: DeviceChange, messages: list[bytes]) -> None:
        """Write down a change that was applied, `messages` being the request for it in parts."""
        hosts = self._note_hosts(change)
        if self._state is None:
            return
        if change.listen_port == 0:
            # Whoever comes after us must have the port that we got.
            messages.append(self._port_message())
        if hosts:
            messages.append(control_request(ControlChange(endpoint_hosts=hosts)))
        self._record(b"".join(messages))

    def note_port(self) -> None:
        """Write down the port the device has now: a free one is found when the link goes up."""
        self._record(self._port_message())

    def _port_message(self) -> bytes:
        port = self._device.settings().listen_port
        return b"".join(set_request(DeviceChange(listen_port=port)))

    async def settle(self) -> None:
        """Wait until what is being changed is changed. What waits for its turn comes later."""
        async with self._turn:
            pass

    def close(self) -> None:
        """Write nothing more."""
        if self._task is not None:
            self._task.cancel()
        self._task = self._since = None

    def finish(self, state: StateFile, now_wall_ns: int) -> None:
        """Write down everything as it is now, with the endpoints as roamed, for who comes next.

        No change is taken any more: it would be lost. Raises OSError, and then nothing has changed.
        """
        self.close()
        device = self._device.get()
        state.replace(b"".join(snapshot(device, self._hosts_of())) + sessions(device, now_wall_ns))
        self._is_finished = True

    # -- writing -----------------------------------------------------------------------------------

    def _note_hosts(self, change: DeviceChange) -> tuple[tuple[bytes, str], ...]:
        """Remember and return the hosts of endpoints in a change; forget those it replaces."""
        if change.replace_peers:
            self._hosts.clear()
        found: dict[bytes, str] = {}
        for peer in change.peers:
            if peer.remove or peer.endpoint is not None:
                self._hosts.pop(peer.public_key, None)
                found.pop(peer.public_key, None)
            if peer.endpoint_host is not None and not peer.remove:
                found[peer.public_key] = peer.endpoint_host
        self._hosts.update(found)
        return tuple(found.items())

    def _hosts_of(self) -> tuple[tuple[bytes, str], ...]:
        """Return the hosts of the peers that are there."""
        return tuple(one for one in self._hosts.items() if self._device.has_peers((one[0],)))

    def _record(self, messages: bytes) -> None:
        if self._state is None:
            return
        if self._since is not None:
            self._since.append(messages)
        try:
            self._state.append(messages)
        except OSError as error:
            self._failed(error)
        if self._state.size > max(_GROWTH * self._snapshot_size, _SMALL_SIZE) or not self._is_whole:
            self._start_snapshot()

    def _start_snapshot(self) -> None:
        if self._task is None and self._state is not None:
            self._since = []
            self._task = self._loop.create_task(self._write_snapshot(self._state, self._since))

    async def _write_snapshot(self, state: StateFile, since: list[bytes]) -> None:
        """Replace the messages by a snapshot, made in slices: the loop has other things to do.

        `since` gets what has changed meanwhile.
        """
        parts = []
        async with self._device.reading() as device:
            since.clear()  # what came before our turn is in the snapshot
            hosts = self._hosts_of()
            for part in snapshot(device, hosts):
                parts.append(part)
                await asyncio.sleep(0)
        try:
            state.replace(b"".join(parts + since))
            self._is_whole = True
        except OSError as error:
            self._failed(error)
        self._snapshot_size = state.size
        self._since = self._task = None

    def _failed(self, error: OSError) -> None:
        if self._is_whole:
            logger.error("event=state_not_kept reason=%r", error.strerror)
        self._is_whole = False


# -- what the messages say -------------------------------------------------------------------------


def snapshot(state: DeviceState, hosts: tuple[tuple[bytes, str], ...]) -> Iterator[bytes]:
    """Yield in parts the messages that make any device what `state` shows.

    `hosts` are the peers whose endpoint is to be looked up again, by name.
    """
    device = DeviceChange(
        private_key=state.private_key,
        listen_port=state.listen_port,
        fwmark=state.fwmark,
        replace_peers=True,
    )
    yield b"".join(set_request(device))
    for first in range(0, len(state.peers), _PEERS_PER_PART):
        peers = state.peers[first : first + _PEERS_PER_PART]
        changes = itertools.chain.from_iterable(map(_as_changes, peers))
        while part := tuple(itertools.islice(changes, _PEERS_PER_PART)):
            yield from set_request(DeviceChange(peers=part))
    if hosts:
        yield control_request(ControlChange(endpoint_hosts=hosts))


def _as_changes(peer: PeerState) -> Iterator[PeerChange]:
    """Yield a change that makes the peer, and more that add what it has of very many prefixes."""
    yield PeerChange(
        peer.public_key,
        preshared_key=None if peer.preshared_key == NO_KEY else peer.preshared_key,
        endpoint=peer.endpoint,
        persistent_keepalive_seconds=peer.persistent_keepalive_seconds or None,
        allowed_ips=tuple(map(AllowedIpChange, peer.allowed_ips[:_PREFIXES_PER_CHANGE])),
    )
    for first in range(_PREFIXES_PER_CHANGE, len(peer.allowed_ips), _PREFIXES_PER_CHANGE):
        more = peer.allowed_ips[first : first + _PREFIXES_PER_CHANGE]
        yield PeerChange(peer.public_key, allowed_ips=tuple(map(AllowedIpChange, more)))


def sessions(state: DeviceState, now_wall_ns: int) -> bytes:
    """Return the message that names the peers which have a session at `now_wall_ns` (Unix time)."""
    oldest_ns = now_wall_ns - REJECT_AFTER_TIME_NS
    keys = [peer.public_key for peer in state.peers if peer.last_handshake_ns > oldest_ns]
    return _SESSIONS + b"".join(b"public_key=%s\n" % key.hex().encode() for key in keys) + b"\n"


async def restore(messages: bytes, device: Restored) -> tuple[bytes, ...]:
    """Make `device` what the messages say; return the peers that had a session (public keys).

    A message that is not understood, or that the device refuses, is left out and logged; the rest
    still counts.
    """
    had_session: tuple[bytes, ...] = ()
    for message in _split(messages):
        if message.startswith(_SESSIONS):
            had_session = tuple(_keys(message))
            continue
        try:
            await _apply(message, device)
        except WgdError as error:
            logger.error("event=state_refused reason=%r", str(error))  # noqa: TRY400 - enough said
    return had_session


def _split(messages: bytes) -> Iterable[bytes]:
    parts = (part.strip(b"\n") for part in messages.split(b"\n\n"))
    return (part + b"\n\n" for part in parts if part)


async def _apply(message: bytes, device: Restored) -> None:
    requests = Connection(socket.if_nametoindex).receive_data(message)
    for request in requests:
        match request:
            case SetRequest():
                await device.apply(request.change)
            case ControlRequest():
                await device.control(request.change)
            case BadRequest():
                raise WgdError(request.reason)
            case _:
                raise WgdError("not a message of a state")


def _keys(message: bytes) -> Iterator[bytes]:
    for line in message.splitlines():
        name, _, value = line.partition(b"=")
        if name == b"public_key":
            try:
                yield grammar.key(value)
            except ValueError:
                logger.error("event=state_refused reason='not a key'")  # noqa: TRY400 - enough said
