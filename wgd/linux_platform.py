"""The Linux adapters, put together for one tunnel: see `wgd.platforms`."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence

if sys.platform != "linux":  # what follows is skipped by mypy elsewhere
    raise ImportError("this module is for Linux")

from wgd.addresses import Endpoint
from wgd.dataplane.choice import Choice
from wgd.errors import WgdError
from wgd.net import routes, udp
from wgd.net.clone import CloneWatcher
from wgd.net.link import LinkWatcher
from wgd.net.routes import RouteWatcher
from wgd.net.wake import WakeWatcher
from wgd.tun.linux import LinuxTun


class LinuxPlatform:
    """TUN, sockets, link and route events on Linux. `open_tun` comes first."""

    _tun: LinuxTun

    def __init__(self, choice: Choice) -> None:
        self._choice = choice

    def open_tun(self, name: str, fd: int | None) -> LinuxTun:
        """Make the TUN device `name`, or take over the one behind `fd`. Raises WgdError."""
        workers = self._choice.workers
        offload = self._choice.is_native and self._choice.offload
        if fd is None:
            self._tun = LinuxTun.create(name, queues=workers, offload=offload)
        elif workers == 1:
            self._tun = LinuxTun.from_fd(fd, offload=offload)
        else:
            raise WgdError(f"a descriptor is one queue, {workers} workers are too many: ask for 1")
        return self._tun

    def restore_tun(self, fds: Sequence[int]) -> LinuxTun:
        """Take over the TUN device of a wgd before us, as it is. Raises WgdError."""
        offload = self._choice.is_native and self._choice.offload
        self._tun = LinuxTun.restore(fds, offload=offload)
        return self._tun

    def open_sockets(self, port: int, fwmark: int) -> tuple[list[udp.UdpSocket], int]:
        """Open UDP sockets; see `wgd.tunnel.OpenSockets`."""
        return udp.open_sockets(
            port, fwmark, workers=self._choice.workers, offload=self._choice.offload
        )

    def source_is_valid(self, endpoint: Endpoint, fwmark: int) -> bool:
        """Judge a pinned source; see `wgd.tunnel.SourceIsValid`."""
        return routes.source_is_valid(endpoint, fwmark)

    def watch_link(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_link: Callable[[bool], None],
        on_mtu: Callable[[int], None],
        on_gone: Callable[[str], None],
    ) -> LinkWatcher:
        """Watch the TUN device that was opened. Raises OSError."""
        return LinkWatcher(loop, self._tun, on_link=on_link, on_mtu=on_mtu, on_gone=on_gone)

    def watch_network(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_routes_change: Callable[[], None],
        on_network_change: Callable[[], None],  # noqa: ARG002 - UDP sockets survive all changes
        on_wake: Callable[[], None],
        on_clone: Callable[[], None],
    ) -> contextlib.ExitStack:
        """Watch the network under the tunnel, the system's sleep and copies. Raises OSError."""
        with contextlib.ExitStack() as watchers:
            watchers.callback(RouteWatcher(loop, on_routes_change).close)
            watchers.callback(WakeWatcher(loop, on_wake).close)
            watchers.callback(CloneWatcher(loop, on_clone).close)
            return watchers.pop_all()
