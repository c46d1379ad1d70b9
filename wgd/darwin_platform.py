"""The macOS adapters, put together for one tunnel: see `wgd.platforms`."""

import asyncio
from collections.abc import Callable, Sequence

from wgd.addresses import Endpoint
from wgd.net import darwin_udp
from wgd.net.darwin_route_socket import DarwinLinkWatcher, NetworkWatcher
from wgd.tun.darwin import DarwinTun


class DarwinPlatform:
    """utun, sockets, link and network events on macOS. `open_tun` comes first."""

    _tun: DarwinTun

    def __init__(self) -> None:
        self._failures = darwin_udp.SendFailures()

    def open_tun(self, name: str, fd: int | None) -> DarwinTun:
        """Make the utun device `name`, or take over the one behind `fd`. Raises WgdError."""
        self._tun = DarwinTun.create(name) if fd is None else DarwinTun.from_fd(fd)
        return self._tun

    def restore_tun(self, fds: Sequence[int]) -> DarwinTun:
        """Take over the utun device of a wgd before us, as it is. Raises WgdError."""
        (fd,) = fds
        self._tun = DarwinTun.from_fd(fd)
        return self._tun

    def open_sockets(
        self,
        port: int,
        fwmark: int,  # noqa: ARG002 - macOS has no marks
    ) -> tuple[list[darwin_udp.DarwinUdpSocket], int]:
        """Open UDP sockets; see `wgd.tunnel.OpenSockets`."""
        return darwin_udp.open_sockets(port, self._failures)

    def source_is_valid(self, endpoint: Endpoint, fwmark: int) -> bool:
        """Judge a pinned source; see `wgd.tunnel.SourceIsValid`."""
        return darwin_udp.source_is_valid(endpoint, fwmark)

    def watch_link(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_link: Callable[[bool], None],
        on_mtu: Callable[[int], None],
        on_gone: Callable[[str], None],
    ) -> DarwinLinkWatcher:
        """Watch the utun device that was opened. Raises OSError."""
        return DarwinLinkWatcher(loop, self._tun, on_link=on_link, on_mtu=on_mtu, on_gone=on_gone)

    def watch_network(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_routes_change: Callable[[], None],  # noqa: ARG002 - new sockets have no pinned sources
        on_network_change: Callable[[], None],
        on_wake: Callable[[], None],  # noqa: ARG002 - sleep ends with a change of network
        on_clone: Callable[[], None],  # noqa: ARG002 - nobody tells
    ) -> NetworkWatcher:
        """Watch the network under the tunnel, and the sockets' failures. Raises OSError."""
        watcher = NetworkWatcher(loop, self._tun.interface_index(), on_network_change)
        self._failures.on_storm = watcher.suspect
        return watcher
