"""What the owner of a tunnel learns of the data plane's reports: the end by a call, else a line."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from wgd.clock import SystemClock
from wgd.dataplane.interface import NeedsHandshake, OffloadOff, PeerId, Report, TunClosed
from wgd.dataplane.portable import PortableDataPlane
from wgd.dataplane.wakeup import Wakeup
from wgd.net.memory import MemorySocket
from wgd.tun.memory import MemoryTun
from wgd.tunnel import Tunnel


class Reporting(PortableDataPlane):
    """Reports what a test wants it to."""

    def __init__(self, reports: Sequence[Report]) -> None:
        super().__init__(MemoryTun(), SystemClock())
        self._reports = list(reports)
        self.is_waiting = Wakeup()
        self.is_waiting.set()

    def event_fd(self) -> int:
        return self.is_waiting.fileno()

    def drain_events(self) -> list[Report]:  # type: ignore[override] # more than it has itself
        self.is_waiting.clear()
        reports, self._reports = self._reports, []
        return reports


def no_sockets(port: int, _fwmark: int) -> tuple[list[MemorySocket], int]:
    return [], port


def test_a_switched_off_offload_is_a_line_and_the_end_of_the_tun_a_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> str:
        loop = asyncio.get_running_loop()
        gone: asyncio.Future[str] = loop.create_future()
        dataplane = Reporting(
            [
                NeedsHandshake(PeerId(1)),  # of a peer that was removed: nothing
                OffloadOff("udp_gso", "Input/output error to 192.0.2.1:51820"),
                TunClosed("gone"),
            ]
        )
        tunnel = Tunnel(
            loop,
            dataplane,
            clock=SystemClock(),
            open_sockets=no_sockets,
            source_is_valid=lambda _endpoint, _fwmark: True,
            on_gone=gone.set_result,
        )
        async with asyncio.timeout(5):
            reason = await gone
        tunnel.close()
        dataplane.stop()
        dataplane.is_waiting.close()
        return reason

    with caplog.at_level(logging.INFO):
        assert asyncio.run(scenario()) == "gone"
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "event=offload_off name=udp_gso reason='Input/output error to 192.0.2.1:51820'"
    ]
