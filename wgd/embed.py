"""A tunnel inside another program: a Network Extension, a test, anything that owns a TUN.

Nothing is daemonised, no signal is touched and nothing is global: a process may have several
tunnels, each on the running asyncio loop. The host owns the TUN and its addresses and routes.

    tunnel = await EmbeddedTunnel.start(tun, change)        # or start_from_fd(fd, change)
    tunnel.set(another_change); tunnel.get(); tunnel.status()
    await tunnel.stop()

docs/embedding.md has an example that runs.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection

from wgd.assembly import follow_system, open_tunnel
from wgd.configuration import DeviceChange, DeviceState
from wgd.constants import DEFAULT_MTU
from wgd.dataplane.choice import DataPlaneOptions, choose, choose_for
from wgd.dataplane.interface import Tun
from wgd.managed import ManagedTunnel
from wgd.platforms import this_platform
from wgd.status import DeviceStatus
from wgd.uapi.service import UapiService
from wgd.uapi.socket_policy import SocketPlace

logger = logging.getLogger(__name__)


class EmbeddedTunnel:
    """A running tunnel. Use `start` or `start_from_fd`; its methods belong to the loop's thread."""

    def __init__(self, tunnel: ManagedTunnel, opened: contextlib.AsyncExitStack) -> None:
        self._tunnel = tunnel
        self._opened = opened

    @classmethod
    async def start(
        cls,
        tun: Tun,
        change: DeviceChange,
        *,
        mtu: int = DEFAULT_MTU,
        on_gone: Callable[[str], None] | None = None,
        uapi_place: SocketPlace | None = None,
        interface_name: str = "wgd",
        tunnel_name: str | None = None,
    ) -> "EmbeddedTunnel":
        """Start a tunnel on `tun`, which is up, has this MTU (bytes) and stays the caller's.

        The portable data plane moves its packets, or for a `LinuxTun` made with offloads or several
        queues the native one.
        `on_gone` is called with a reason when the TUN has disappeared; `stop` is still due. With a
        `uapi_place` (see `wgd.uapi.socket_policy.choose_place`) there is a UAPI socket
        `interface_name`.sock whenever that can be made, and beside it a file `tunnel_name`.name.

        Raises ConfigurationError, and leaves nothing behind, if `change` cannot be applied.
        """
        async with contextlib.AsyncExitStack() as opened:
            choice = choose_for(tun)
            platform = this_platform(choice)
            tunnel = open_tunnel(opened, platform, choice, tun, on_gone or _log_gone)
            tunnel.mtu_changed(mtu)
            tunnel.set(change)
            tunnel.link_changed(True)
            managed = ManagedTunnel(tunnel, interface_name)
            if uapi_place is not None:
                await _serve(opened, managed, uapi_place, interface_name, tunnel_name)
            return cls(managed, opened.pop_all())

    @classmethod
    async def start_from_fd(
        cls,
        fd: int,
        change: DeviceChange,
        *,
        on_gone: Callable[[str], None] | None = None,
        uapi_place: SocketPlace | None = None,
        tunnel_name: str | None = None,
    ) -> "EmbeddedTunnel":
        """Start a tunnel on the TUN (utun) device behind `fd`, and follow its link and MTU.

        The native data plane moves its packets wherever it is installed.
        Owns `fd` from now on. The rest is as with `start`; also raises WgdError for a descriptor
        that is no TUN device, and OSError if the system's events cannot be had.
        """
        choice = choose(DataPlaneOptions())
        platform = this_platform(choice)
        on_gone = on_gone or _log_gone
        async with contextlib.AsyncExitStack() as opened:
            tun = opened.enter_context(contextlib.closing(platform.open_tun("utun", fd)))
            tunnel = open_tunnel(opened, platform, choice, tun, on_gone)
            tunnel.set(change)
            follow_system(opened, platform, tunnel, on_gone)
            managed = ManagedTunnel(tunnel, tun.name)
            if uapi_place is not None:
                await _serve(opened, managed, uapi_place, tun.name, tunnel_name)
            return cls(managed, opened.pop_all())

    def get(self) -> DeviceState:
        """Return a consistent snapshot."""
        return self._tunnel.get()

    def has_peers(self, public_keys: Collection[bytes]) -> bool:
        """Whether each of these keys is a peer's."""
        return self._tunnel.has_peers(public_keys)

    def status(self) -> DeviceStatus:
        """Return what the tunnel is doing and what has failed, without any secret."""
        return self._tunnel.status()

    def set(self, change: DeviceChange) -> None:
        """Apply a change whole, or raise ConfigurationError and change nothing."""
        self._tunnel.set(change)

    async def apply(self, change: DeviceChange) -> None:
        """As `set`, but while the loop does other work: for changes of thousands of peers."""
        await self._tunnel.apply(change)

    async def stop(self) -> None:
        """End the sessions and give everything back; once or more."""
        await self._opened.aclose()


async def _serve(
    opened: contextlib.AsyncExitStack,
    tunnel: ManagedTunnel,
    place: SocketPlace,
    interface_name: str,
    tunnel_name: str | None,
) -> None:
    service = UapiService(asyncio.get_running_loop(), tunnel, place, interface_name, tunnel_name)
    opened.push_async_callback(service.close)
    await service.start()


def _log_gone(reason: str) -> None:
    logger.error("event=tun_gone reason=%r", reason)
