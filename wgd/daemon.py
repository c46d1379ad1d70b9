"""One process: start, readiness, signals and the orderly end. Only this file knows every adapter.

The order is wireguard-go's: the TUN device, then the UAPI socket, then ready. It ends when it is
told to (SIGINT, SIGTERM, and in the foreground SIGHUP) or when what it serves is gone: the TUN
device, or its own socket file.
Whatever was opened is given back in the reverse order, also when the start fails half-way.
"""

import asyncio
import contextlib
import logging
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from wgd.background import Ready
from wgd.clock import SystemClock
from wgd.dataplane.portable import PortableDataPlane
from wgd.errors import WgdError
from wgd.net.link import LinkWatcher
from wgd.net.routes import RouteWatcher, source_is_valid
from wgd.net.udp import open_sockets
from wgd.tun.linux import LinuxTun
from wgd.tunnel import Tunnel
from wgd.uapi.listener import SocketFile
from wgd.uapi.server import UapiServer

logger = logging.getLogger(__name__)

SOCKET_DIRECTORY: Final = Path("/var/run/wireguard")


@dataclass(frozen=True, slots=True)
class Options:
    """What the daemon is asked to do; a descriptor that is given is used instead of a new one."""

    interface: str
    tun_fd: int | None = None
    uapi_fd: int | None = None


def serve(options: Options, ready: Ready) -> None:
    """Run the interface until it ends; raises WgdError if it cannot start."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options, ready))


async def _serve(options: Options, ready: Ready) -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str] = loop.create_future()

    def end(reason: str) -> None:
        if not ended.done():
            ended.set_result(reason)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and the background have it
            loop.add_signal_handler(number, end, number.name)

    async with contextlib.AsyncExitStack() as opened:
        tun = opened.enter_context(contextlib.closing(_open_tun(options)))
        clock = SystemClock()
        dataplane = PortableDataPlane(tun, clock)
        dataplane.start(loop)
        opened.callback(dataplane.stop)
        tunnel = Tunnel(
            loop,
            dataplane,
            clock=clock,
            open_sockets=open_sockets,
            source_is_valid=source_is_valid,
            on_gone=end,
        )
        opened.callback(tunnel.close)

        server = UapiServer(tunnel)
        opened.push_async_callback(server.close)
        socket_file = _open_socket(options, tun.name)
        opened.callback(socket_file.remove)
        socket_file.watch(loop, lambda: end("the UAPI socket was removed or replaced"))
        await server.start(socket_file.sock)

        # Listens from here on; what is slow to load it loads when the loop runs, after `ready`.
        link = LinkWatcher(
            loop, tun, on_link=tunnel.link_changed, on_mtu=tunnel.mtu_changed, on_gone=end
        )
        opened.callback(link.close)
        routes = RouteWatcher(loop, tunnel.routes_changed)
        opened.callback(routes.close)

        logger.info("event=ready")
        ready()
        logger.info("event=ending reason=%r", await ended)


def _open_tun(options: Options) -> LinuxTun:
    if options.tun_fd is not None:
        try:
            return LinuxTun.from_fd(options.tun_fd)
        except WgdError as error:
            raise WgdError(f"WG_TUN_FD: {error}") from error
    return LinuxTun.create(options.interface)


def _open_socket(options: Options, name: str) -> SocketFile:
    if options.uapi_fd is not None:
        try:
            return SocketFile.from_fd(options.uapi_fd)
        except WgdError as error:
            raise WgdError(f"WG_UAPI_FD: {error}") from error
    return SocketFile.create(SOCKET_DIRECTORY, name)
