"""What a tunnel needs of an operating system, and which system this is: the one place that asks.

Linux and macOS each have a module with one class. Only that of this system is imported: it brings
libraries (pytun, pyroute2) and calls (eventfd, netlink) that the other does not have.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from wgd.addresses import Endpoint
from wgd.dataplane.choice import Choice
from wgd.dataplane.interface import Tun
from wgd.errors import WgdError
from wgd.tunnel import TunnelSocket


class SystemTun(Tun, Protocol):
    """A TUN device of this system."""

    name: str
    """What it was called when we got it."""

    def close(self) -> None:
        """Give it back; once or more."""


class Watcher(Protocol):
    """Something that reports changes until it is closed."""

    def close(self) -> None:
        """Stop reporting; once or more."""


class Platform(Protocol):
    """One operating system, for one tunnel."""

    def open_tun(self, name: str, fd: int | None) -> SystemTun:
        """Make the TUN device `name`, or take over the one behind `fd`. Raises WgdError."""

    def restore_tun(self, fds: Sequence[int]) -> SystemTun:
        """Take over the TUN device of a wgd before us, one descriptor a queue, as it is.

        Raises WgdError.
        """

    def open_sockets(self, port: int, fwmark: int) -> tuple[Sequence[TunnelSocket], int]:
        """Open UDP sockets; see `wgd.tunnel.OpenSockets`."""

    def source_is_valid(self, endpoint: Endpoint, fwmark: int) -> bool:
        """Judge a pinned source; see `wgd.tunnel.SourceIsValid`."""

    def watch_link(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_link: Callable[[bool], None],
        on_mtu: Callable[[int], None],
        on_gone: Callable[[str], None],
    ) -> Watcher:
        """Watch the TUN device that was opened. Raises OSError."""

    def watch_network(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_routes_change: Callable[[], None],
        on_network_change: Callable[[], None],
        on_wake: Callable[[], None],
        on_clone: Callable[[], None],
    ) -> Watcher:
        """Watch the network under the tunnel, the system's sleep and copies. Raises OSError.

        `on_routes_change` asks for a look at the pinned sources, `on_network_change` for new
        sockets; a system whose sockets survive everything never calls the latter. `on_wake` says
        that the system was suspended, or its clock set, `on_clone` that this virtual machine may
        have become a copy of another.
        """


def this_platform(choice: Choice) -> Platform:
    """Return the platform of this system, which opens what the chosen engine needs.

    Raises WgdError where wgd does not run.
    """
    if sys.platform == "linux":
        from wgd.linux_platform import LinuxPlatform

        return LinuxPlatform(choice)
    if sys.platform == "darwin":
        from wgd.darwin_platform import DarwinPlatform

        return DarwinPlatform()
    raise WgdError(f"wgd does not run on {sys.platform}: use Linux or macOS")
