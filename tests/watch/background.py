"""A status server in a thread of its own, for clients that block."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

from wgd.status import DeviceStatus
from wgd.watch.server import serve_metrics


@contextlib.contextmanager
def served_in_background(
    address: str, status: Callable[[], DeviceStatus], group: str | None = None
) -> Iterator[None]:
    """Serve `status` on `address` inside the block."""
    is_ready = threading.Event()
    stops: list[Callable[[], object]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))
        async with contextlib.AsyncExitStack() as opened:
            await serve_metrics(opened, address, group, "wg7", status)
            is_ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert is_ready.wait(10), "the server did not start"
        yield
    finally:
        stops[0]()
        thread.join(10)
