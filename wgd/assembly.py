"""A tunnel put together from its parts: what the daemon and an embedding program have in common.

    open_tunnel     engine on the TUN, tunnel on the engine
    follow_system   link and network events to the tunnel

What is opened goes to an exit stack, so that all of it is given back in the reverse order: the
engine stops before the TUN is closed.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from wgd.clock import SystemClock
from wgd.dataplane.choice import Choice
from wgd.dataplane.interface import Tun
from wgd.noise.handshake import KeyLog
from wgd.platforms import Platform
from wgd.tunnel import Tunnel


def open_tunnel(
    opened: AsyncExitStack,
    platform: Platform,
    choice: Choice,
    tun: Tun,
    on_gone: Callable[[str], None],
    *,
    key_log: KeyLog | None = None,
) -> Tunnel:
    """Start the chosen engine on `tun` and return a tunnel at work. Raises OSError."""
    loop = asyncio.get_running_loop()
    clock = SystemClock()
    engine = choice.make_engine(tun, clock)
    opened.callback(engine.stop)
    engine.start(loop)
    tunnel = Tunnel(
        loop,
        engine,
        clock=clock,
        open_sockets=platform.open_sockets,
        source_is_valid=platform.source_is_valid,
        on_gone=on_gone,
        dataplane_name="native" if choice.is_native else "portable",
        workers=choice.workers,
        key_log=key_log,
    )
    opened.callback(tunnel.close)
    return tunnel


def follow_system(
    opened: AsyncExitStack,
    platform: Platform,
    tunnel: Tunnel,
    on_gone: Callable[[str], None],
    *,
    after_link: Callable[[bool], None] = lambda _is_up: None,
) -> None:
    """Let the tunnel know what happens to its interface and to the network. Raises OSError.

    `after_link` is told whether the link is up when the tunnel has taken it in.
    """
    loop = asyncio.get_running_loop()

    def on_link(is_up: bool) -> None:
        tunnel.link_changed(is_up)
        after_link(is_up)

    link = platform.watch_link(loop, on_link=on_link, on_mtu=tunnel.mtu_changed, on_gone=on_gone)
    opened.callback(link.close)
    network = platform.watch_network(
        loop,
        on_routes_change=tunnel.routes_changed,
        on_network_change=tunnel.rebind,
        on_wake=tunnel.woke_up,
        on_clone=tunnel.cloned,
    )
    opened.callback(network.close)
