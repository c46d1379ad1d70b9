"""One process: start, readiness, signals and the orderly end. `platforms` knows the adapters.

The order is wireguard-go's: the TUN device, then the UAPI socket, then ready. It ends when it is
told to (SIGINT, SIGTERM, and in the foreground SIGHUP) or when what it serves is gone: the TUN
device, or its own socket file.
Whatever was opened is given back in the reverse order, also when the start fails half-way.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import uvloop

from wgd.assembly import follow_system, open_tunnel
from wgd.background import Ready
from wgd.dataplane.choice import DataPlaneOptions, choose
from wgd.errors import WgdError
from wgd.platforms import Platform, SystemTun, this_platform
from wgd.tun.name_file import write_name_file
from wgd.tunnel import Tunnel
from wgd.uapi.listener import SocketFile
from wgd.uapi.server import UapiServer
from wgd.uapi.service import UapiService
from wgd.uapi.socket_policy import SocketPlace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What the daemon is asked to do; a descriptor that is given is used instead of a new one.

    `uapi_place` is where the UAPI socket goes, None for nowhere.
    """

    interface: str
    uapi_place: SocketPlace | None
    tun_fd: int | None = None
    uapi_fd: int | None = None
    dataplane: DataPlaneOptions = field(default_factory=DataPlaneOptions)


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
        choice = choose(options.dataplane)
        platform = this_platform(choice)
        tun = opened.enter_context(contextlib.closing(_open_tun(platform, options)))
        tunnel = open_tunnel(opened, platform, choice, tun, end)

        await _serve_uapi(opened, options, tunnel, tun.name, end)
        write_name_file(options.interface, tun.name)

        # Listens from here on; what is slow to load it loads when the loop runs, after `ready`.
        follow_system(opened, platform, tunnel, end)

        logger.info("event=ready")
        ready()
        logger.info("event=ending reason=%r", await ended)


def _open_tun(platform: Platform, options: Options) -> SystemTun:
    try:
        return platform.open_tun(options.interface, options.tun_fd)
    except WgdError as error:
        if options.tun_fd is not None:
            raise WgdError(f"WG_TUN_FD: {error}") from error
        raise


async def _serve_uapi(
    opened: contextlib.AsyncExitStack,
    options: Options,
    tunnel: Tunnel,
    name: str,
    end: Callable[[str], None],
) -> None:
    """Serve the UAPI socket, if there shall be one, until `opened` is closed.

    Its failure or loss is the daemon's end, but not in the sandbox: a tunnel there is somebody's
    way out, and goes on without.
    """
    loop = asyncio.get_running_loop()
    place = options.uapi_place
    if options.uapi_fd is None:
        if place is None:
            return
        if place.is_sandbox:
            service = UapiService(loop, tunnel, place, name)
            opened.push_async_callback(service.close)
            await service.start()
            return
    server = UapiServer(tunnel)
    opened.push_async_callback(server.close)
    socket_file = _open_socket(options, name)
    opened.callback(socket_file.remove)
    socket_file.watch(loop, lambda: end("the UAPI socket was removed or replaced"))
    await server.start(socket_file.sock)


def _open_socket(options: Options, name: str) -> SocketFile:
    if options.uapi_fd is not None:
        try:
            return SocketFile.from_fd(options.uapi_fd)
        except WgdError as error:
            raise WgdError(f"WG_UAPI_FD: {error}") from error
    assert options.uapi_place is not None  # noqa: S101 - the caller has looked
    return SocketFile.create(options.uapi_place.directory, name)
