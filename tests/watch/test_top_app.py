"""`top` on a screen of 80 columns, driven by textual's pilot: what is there is what people see."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Coroutine
from typing import Any

from textual.pilot import Pilot

from tests.watch.statuses import NOW_NS, SECOND_NS, device, key, peer
from wgd.ctl.top.app import TopApp
from wgd.ctl.top.sources import Reading
from wgd.ctl.top.table import PeerTable
from wgd.diagnosis import IN_WORDS, Failure, FailureReason
from wgd.status import DeviceStatus

NEVER = 3600.0


class Machine:
    """Devices whose traffic grows by a given rate with each look, a second apart."""

    def __init__(self, *devices: DeviceStatus) -> None:
        self.devices = list(devices)
        self.problems: tuple[str, ...] = ()
        self.looks = 0

    def read(self) -> Reading:
        self.looks += 1
        reading = Reading(tuple(self.devices), self.problems)
        self.devices = [
            dataclasses.replace(
                device,
                now_ns=device.now_ns + SECOND_NS,
                peers=tuple(
                    dataclasses.replace(peer, received_bytes=peer.received_bytes + 1024 * (n + 1))
                    for n, peer in enumerate(device.peers)
                ),
            )
            for device in self.devices
        ]
        return reading


Screen = Callable[[], list[str]]
Test = Callable[[Pilot[None], Screen], Coroutine[Any, Any, None]]


def on_screen(machine: Machine, test: Test, *, size: tuple[int, int] = (80, 24)) -> None:
    """Run `test` with keys to press and a way to see the lines of the screen."""

    async def run() -> None:
        app = TopApp(machine.read, NEVER)
        async with asyncio.timeout(30), app.run_test(size=size) as pilot:

            def lines() -> list[str]:
                strips = app.screen._compositor.render_strips()
                return ["".join(segment.text for segment in strip) for strip in strips]

            await look(pilot, machine, times=1)
            await test(pilot, lines)

    asyncio.run(run())


async def look(pilot: Pilot[None], machine: Machine, times: int = 2) -> None:
    """Wait until it has looked so often."""
    app = pilot.app
    assert isinstance(app, TopApp)
    while machine.looks < times:
        app._changed.set()
        await asyncio.sleep(0.01)
    await pilot.pause(0.1)


def short(seed: int) -> str:
    return key(seed)[:8]


def rows(lines: list[str]) -> list[str]:
    """Return the peers in the table, by their short keys."""
    start = next(n for n, line in enumerate(lines) if "TRAFFIC" in line) + 1
    end = next(n for n, line in enumerate(lines) if line.startswith(("peer  ", "no peer")))
    return [line.split()[0] for line in lines[start:end] if line.strip()]


def test_eighty_columns_show_everything() -> None:
    machine = Machine(device(peer(1), peer(2, has_session=False, unanswered_initiations=4)))

    async def test(pilot: Pilot[None], screen: Screen) -> None:
        await look(pilot, machine)
        lines = screen()
        text = "\n".join(lines)
        assert len(lines) == 24
        assert {len(line) for line in lines} == {80}
        assert "wg7" in lines[0]
        assert "1 of 2 up" in lines[0]
        assert "rx 3.00 KiB/s" in lines[0]
        assert "handshakes 10" in lines[0]
        assert rows(lines) == [short(2), short(1)], "the most traffic comes first"
        assert "2.00 KiB" in next(line for line in lines if line.startswith(short(2)))
        assert "unanswered 4" in text
        assert "192.0.2.2:51820" in text
        assert "41s" in text
        assert "█" in text
        assert "q quit" in lines[-1]
        assert "help" in lines[-1]

    on_screen(machine, test)


def test_sorting_and_reversing() -> None:
    machine = Machine(device(*(peer(n, sent_bytes=0) for n in range(5))))

    async def test(pilot: Pilot[None], screen: Screen) -> None:
        await look(pilot, machine)
        assert rows(screen()) == [short(n) for n in (4, 3, 2, 1, 0)]
        await pilot.press("r")
        await pilot.pause()
        assert rows(screen()) == [short(n) for n in range(5)]
        await pilot.press("r", "S", "S", "S")  # back from RX/s to PEER
        await pilot.pause()
        assert rows(screen()) == sorted(short(n) for n in range(5))
        assert any("PEER▾" in line for line in screen())

    on_screen(machine, test)


def test_filtering_and_showing_all_again() -> None:
    machine = Machine(device(*map(peer, range(5))))

    async def test(pilot: Pilot[None], screen: Screen) -> None:
        await pilot.press("slash", *"192.0.2.4:", "enter")
        await pilot.pause()
        assert rows(screen()) == [short(3)]
        assert "1 with '192.0.2.4:'" in screen()[-1]
        await pilot.press("slash", *"xyz", "escape")
        await pilot.pause()
        assert len(rows(screen())) == 5

    on_screen(machine, test)


def test_the_selection_follows_its_peer_and_says_what_failed() -> None:
    failure = Failure(FailureReason.NOT_ANSWERED, 3, NOW_NS, "192.0.2.1:51820")
    machine = Machine(device(peer(0, failures=(failure,)), peer(1)))

    async def test(pilot: Pilot[None], screen: Screen) -> None:
        await look(pilot, machine)
        assert key(1) in "\n".join(screen())
        await pilot.press("down")
        await pilot.pause()
        assert key(0) in "\n".join(screen())
        await pilot.press("r")
        await pilot.pause()
        text = "\n".join(screen())
        assert key(0) in text, "the peer stays selected wherever its row goes"
        assert IN_WORDS[FailureReason.NOT_ANSWERED] in text
        assert "3 times" in text
        assert key(1) not in text

    on_screen(machine, test)


def test_one_interface_after_the_other() -> None:
    other = dataclasses.replace(device(peer(9)), interface="wg8", version="")
    machine = Machine(device(peer(1)), other)

    async def test(pilot: Pilot[None], screen: Screen) -> None:
        lines = screen()
        assert lines[0].startswith("wg7")
        assert lines[1].startswith("wg8")
        assert "counters only" in lines[1]
        assert "IFACE" in lines[2]
        await pilot.press("i", "i")
        await pilot.pause()
        assert screen()[0].startswith("wg8")
        assert rows(screen()) == [short(9)]
        await pilot.press("i")
        await pilot.pause()
        assert "IFACE" in screen()[2]

    on_screen(machine, test)


def test_pause_looks_no_more() -> None:
    machine = Machine(device(peer(1)))

    async def test(pilot: Pilot[None], screen: Screen) -> None:
        await pilot.press("p")
        await pilot.pause()
        assert "PAUSED" in screen()[-1]
        looks = machine.looks
        app = pilot.app
        assert isinstance(app, TopApp)
        app._changed.set()
        await pilot.pause(0.1)
        assert machine.looks == looks
        await pilot.press("p")
        await look(pilot, machine, looks + 1)
        assert "PAUSED" not in screen()[-1]

    on_screen(machine, test)


def test_help_comes_and_goes() -> None:
    async def test(pilot: Pilot[None], screen: Screen) -> None:
        await pilot.press("question_mark")
        await pilot.pause()
        assert "turn the order round" in "\n".join(screen())
        await pilot.press("x")
        await pilot.pause()
        assert "turn the order round" not in "\n".join(screen())

    on_screen(Machine(device(peer(1))), test)


def test_q_leaves() -> None:
    async def test(pilot: Pilot[None], screen: Screen) -> None:
        await pilot.press("q")
        await pilot.pause()
        assert not pilot.app.is_running

    on_screen(Machine(device(peer(1))), test)


def test_what_cannot_be_read_is_said_and_hides_no_other() -> None:
    machine = Machine(device(peer(1)))
    machine.problems = ("cannot ask wg9: run this as root\x1b[31m",)

    async def test(pilot: Pilot[None], screen: Screen) -> None:
        lines = screen()
        assert lines[1].startswith("cannot ask wg9: run this as root?")
        assert rows(lines) == [short(1)]

    on_screen(machine, test)


def test_no_interface_at_all() -> None:
    async def test(pilot: Pilot[None], screen: Screen) -> None:
        assert "no interface" in screen()[0]
        await pilot.press("down", "end", "i", "s", "pagedown")

    on_screen(Machine(), test)


def test_a_peer_that_goes_while_selected() -> None:
    machine = Machine(device(peer(1), peer(2)))

    async def test(pilot: Pilot[None], screen: Screen) -> None:
        await pilot.press("end")
        await pilot.pause()
        machine.devices = [dataclasses.replace(machine.devices[0], peers=())]
        await look(pilot, machine)
        assert rows(screen()) == []
        assert "no peer" in "\n".join(screen())

    on_screen(machine, test)


def test_a_narrow_terminal_keeps_peer_and_rates() -> None:
    async def test(pilot: Pilot[None], screen: Screen) -> None:
        text = "\n".join(screen())
        assert short(1) in text
        assert "RX/s" in text

    on_screen(Machine(device(peer(1))), test, size=(50, 12))


def test_a_thousand_peers_stay_fluid(measured: Callable[[str], None]) -> None:
    machine = Machine(device(*map(peer, range(1000))))

    async def test(pilot: Pilot[None], screen: Screen) -> None:
        app = pilot.app
        assert isinstance(app, TopApp)
        await look(pilot, machine)
        reading = machine.read()
        started = time.perf_counter()
        app._model.update(reading.statuses)
        app._show()
        look_seconds = time.perf_counter() - started
        started = time.perf_counter()
        for _ in range(20):
            await pilot.press("down")
        key_seconds = (time.perf_counter() - started) / 20
        measured(
            f"top with 1,000 peers: {look_seconds * 1e3:.0f} ms a look, "
            f"{key_seconds * 1e3:.0f} ms a key (the pilot's own waiting included)"
        )
        await pilot.press("end")
        await pilot.pause()
        assert app.query_one(PeerTable).selected is not None
        assert len(rows(screen())) > 10
        assert look_seconds < 0.5

    on_screen(machine, test)
