"""A tunnel with what only its process knows: what the UAPI socket and the metrics serve."""

import dataclasses
import errno
import os
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from wgd import __version__
from wgd.configuration import ControlChange, DeviceChange, DeviceState, PeerChange
from wgd.errors import ConfigurationError
from wgd.status import DeviceStatus


class WatchedTunnel(Protocol):
    """What is needed of a tunnel."""

    def get(self) -> DeviceState:
        """Return a consistent snapshot, made at once."""

    def reading(self) -> AbstractAsyncContextManager[DeviceState]:
        """Give a consistent snapshot whose peers are made when they are looked at."""

    def has_peers(self, public_keys: Collection[bytes]) -> bool:
        """Whether each of these keys is a peer's."""

    def set(self, change: DeviceChange) -> None:
        """Apply `change` at once; raises ConfigurationError when none of it was applied."""

    async def apply(self, change: DeviceChange) -> None:
        """As `set`, but while the loop does other work."""

    def status(self) -> DeviceStatus:
        """Return all that the tunnel knows of what it is doing."""


class AdjustableLog(Protocol):
    """A log whose level can be changed: `wgd.logs.Logs`."""

    @property
    def level(self) -> str:
        """The name of the level in use."""

    def set_level(self, level: str) -> None:
        """Use the level of that name, one of `LOG_LEVELS`."""


class ManagedTunnel:
    """`tunnel`, called `interface`, with a status that is complete, and with `control`.

    Without `logs` (in a program that has its own log) the level cannot be changed.
    """

    def __init__(
        self, tunnel: WatchedTunnel, interface: str, logs: AdjustableLog | None = None
    ) -> None:
        self._tunnel = tunnel
        self._interface = interface
        self._logs = logs

    def get(self) -> DeviceState:
        """Return a consistent snapshot, made at once."""
        return self._tunnel.get()

    def reading(self) -> AbstractAsyncContextManager[DeviceState]:
        """Give a consistent snapshot whose peers are made when they are looked at."""
        return self._tunnel.reading()

    def has_peers(self, public_keys: Collection[bytes]) -> bool:
        """Whether each of these keys is a peer's."""
        return self._tunnel.has_peers(public_keys)

    def set(self, change: DeviceChange) -> None:
        """Apply `change` at once; raises ConfigurationError when none of it was applied."""
        self._tunnel.set(change)

    async def apply(self, change: DeviceChange) -> None:
        """As `set`, but while the loop does other work."""
        await self._tunnel.apply(change)

    def status(self) -> DeviceStatus:
        """Return the tunnel's status with interface, version, process id and log level."""
        return dataclasses.replace(
            self._tunnel.status(),
            interface=self._interface,
            version=__version__,
            pid=os.getpid(),
            log_level="" if self._logs is None else self._logs.level,
        )

    async def control(self, change: ControlChange) -> None:
        """Apply `change` whole, or raise ConfigurationError and change nothing.

        ENOENT: a public key is no peer's; EOPNOTSUPP: there is no log of ours. A log level is one
        of `LOG_LEVELS`: whoever made the change has seen to that.
        """
        if change.log_level is not None and self._logs is None:
            raise ConfigurationError(
                errno.EOPNOTSUPP, "the log belongs to the program this tunnel is in"
            )
        if change.endpoint_hosts:
            await self._tunnel.apply(await self._endpoint_hosts(dict(change.endpoint_hosts)))
        if change.log_level is not None and self._logs is not None:
            self._logs.set_level(change.log_level)

    async def _endpoint_hosts(self, hosts: dict[bytes, str]) -> DeviceChange:
        async with self._tunnel.reading():  # not in the middle of a change
            has_peers = self._tunnel.has_peers(hosts)
        if not has_peers:
            raise ConfigurationError(
                errno.ENOENT, "the public key of an endpoint_host must be a peer's"
            )
        peers = tuple(
            PeerChange(public_key, update_only=True, endpoint_host=host)
            for public_key, host in hosts.items()
        )
        return DeviceChange(peers=peers)
