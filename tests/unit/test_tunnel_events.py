"""What a tunnel makes of its data plane: of its reports, and of sockets that it cannot take."""

import asyncio
import errno
import logging
from collections.abc import Sequence

import pytest

from wgd.clock import SystemClock
from wgd.configuration import DeviceChange
from wgd.dataplane.interface import (
    DatagramSocket,
    HandshakeMessage,
    NeedsHandshake,
    OffloadOff,
    PeerId,
    Report,
    TunClosed,
)
from wgd.dataplane.portable import PortableDataPlane
from wgd.dataplane.wakeup import Wakeup
from wgd.errors import ConfigurationError
from wgd.net.memory import MemoryNetwork, MemorySocket
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

    def drain_events(self) -> list[Report]:
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


class WithoutDescriptors(PortableDataPlane):
    """Takes no sockets while `is_full`."""

    is_full = False

    def attach_sockets(self, sockets: Sequence[DatagramSocket]) -> None:
        if self.is_full:
            raise OSError(errno.EMFILE, "Too many open files")
        super().attach_sockets(sockets)


class MarkedSocket(MemorySocket):
    """A socket with a mark."""

    mark = 0

    def set_fwmark(self, mark: int) -> None:
        self.mark = mark


def test_sockets_that_the_data_plane_cannot_take_change_nothing() -> None:
    async def scenario() -> None:
        host = MemoryNetwork(SystemClock()).host("us", "192.0.2.1")
        opened: list[MarkedSocket] = []

        def open_sockets(port: int, _fwmark: int) -> tuple[list[MarkedSocket], int]:
            host.sockets[False, port] = sock = MarkedSocket(
                MemoryNetwork(SystemClock()), host, port, is_ipv6=False
            )
            opened.append(sock)
            return [sock], port

        dataplane = WithoutDescriptors(MemoryTun(), SystemClock())
        tunnel = Tunnel(
            asyncio.get_running_loop(),
            dataplane,
            clock=SystemClock(),
            open_sockets=open_sockets,
            source_is_valid=lambda _endpoint, _fwmark: True,
            on_gone=lambda _reason: None,
        )
        tunnel.set(DeviceChange(listen_port=1000))
        tunnel.link_changed(True)
        dataplane.is_full = True
        for change in (DeviceChange(listen_port=2000), DeviceChange(fwmark=7)):
            with pytest.raises(ConfigurationError, match="Too many open files"):
                tunnel.set(change)
        assert (tunnel.get().listen_port, tunnel.get().fwmark) == (1000, 0)
        assert set(host.sockets) == {(False, 1000)}  # the other one was closed
        assert opened[0].mark == 0
        dataplane.is_full = False
        tunnel.close()
        dataplane.stop()

    asyncio.run(scenario())


class Busy(Reporting):
    """Reports more in every turn of the loop than is handled in one."""

    def __init__(self, turns: int) -> None:
        super().__init__([])
        self.turns_left = turns
        self.taken: list[int] = []

    def drain_events(self) -> list[Report]:
        if self.turns_left == 0:
            self.is_waiting.clear()
            return []
        self.turns_left -= 1
        return [NeedsHandshake(PeerId(1))] * 500

    def take_handshakes(self, limit: int) -> list[HandshakeMessage]:
        self.taken.append(limit)
        return []


def test_what_is_handled_in_a_turn_of_the_loop_does_not_grow_with_what_waits() -> None:
    async def scenario() -> list[int]:
        dataplane = Busy(turns=30)
        tunnel = Tunnel(
            asyncio.get_running_loop(),
            dataplane,
            clock=SystemClock(),
            open_sockets=no_sockets,
            source_is_valid=lambda _endpoint, _fwmark: True,
            on_gone=lambda _reason: None,
        )
        counts = []
        while dataplane.turns_left or tunnel._events:
            dataplane.taken.clear()
            await asyncio.sleep(0)
            counts.append(len(dataplane.taken))
        tunnel.close()
        dataplane.stop()
        dataplane.is_waiting.close()
        return counts

    assert max(asyncio.run(scenario())) == 1
