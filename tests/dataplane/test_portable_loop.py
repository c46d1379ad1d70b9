"""The portable engine on an event loop: wake-ups, pauses, swapped sockets and an orderly end."""

import asyncio
import errno
from collections.abc import Callable

import pytest

from tests.dataplane.lab import OUR_ADDRESS, PORT, A, Lab, ipv4
from wgd.addresses import Endpoint
from wgd.dataplane.interface import NeedsHandshake, TunClosed
from wgd.dataplane.wakeup import Wakeup

OUT = ipv4("10.9.9.9", "10.2.0.1")
IN = ipv4("10.2.0.1", "10.9.9.9")


class Call:
    def __init__(self, delay: float, callback: Callable[[], object]) -> None:
        self.delay = delay
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeLoop:
    """Records what it was asked; a test plays the loop."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], object]] = {}
        self.calls: list[Call] = []

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        assert fd not in self.readers
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        del self.readers[fd]

    def call_later(self, delay: float, callback: Callable[[], object]) -> Call:
        self.calls.append(Call(delay, callback))
        return self.calls[-1]


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def loop(lab: Lab) -> FakeLoop:
    made = FakeLoop()
    lab.engine.start(made)
    return made


def test_start_and_stop(lab: Lab, loop: FakeLoop) -> None:
    assert set(loop.readers) == {lab.tun.fileno(), lab.socket.fileno(), lab.socket6.fileno()}
    lab.engine.stop()
    assert loop.readers == {}
    assert lab.engine.event_fd() == -1
    lab.engine.stop()
    lab.close()


def test_attaching_swaps_the_readers(lab: Lab, loop: FakeLoop) -> None:
    other = lab.host.bind(port=PORT + 1)
    lab.engine.attach_sockets([other])
    assert set(loop.readers) == {lab.tun.fileno(), other.fileno()}
    lab.engine.attach_sockets([other])  # the same once more
    assert set(loop.readers) == {lab.tun.fileno(), other.fileno()}
    lab.engine.attach_sockets([])
    assert set(loop.readers) == {lab.tun.fileno()}
    other.close()
    lab.close()


def test_a_socket_that_only_fails_is_paused(lab: Lab, loop: FakeLoop) -> None:
    far = lab.established()
    fd = lab.socket.fileno()
    for _ in range(9):
        lab.socket.receive_errors.append(errno.ENETDOWN)
        loop.readers[fd]()
    assert fd in loop.readers
    lab.at_a.send(far.seal(IN), Endpoint(OUR_ADDRESS, PORT))
    loop.readers[fd]()  # a datagram in between: start counting anew
    for _ in range(9):
        lab.socket.receive_errors.append(errno.ENETDOWN)
        loop.readers[fd]()
    assert loop.calls == []
    lab.socket.receive_errors.append(errno.ENETDOWN)
    loop.readers[fd]()
    assert fd not in loop.readers
    assert lab.socket6.fileno() in loop.readers
    (call,) = loop.calls
    assert call.delay == 0.1
    call.callback()
    lab.at_a.send(far.seal(IN), Endpoint(OUR_ADDRESS, PORT))
    loop.readers[fd]()
    assert len(lab.delivered()) == 2
    lab.close()


def test_stopping_during_a_pause(lab: Lab, loop: FakeLoop) -> None:
    fd = lab.socket.fileno()
    lab.socket.receive_errors.extend([errno.ENETDOWN] * 10)
    for _ in range(10):
        loop.readers[fd]()
    lab.engine.stop()
    assert loop.calls[0].is_cancelled
    assert loop.readers == {}
    lab.close()


def test_a_tun_that_is_gone_leaves_the_loop(lab: Lab, loop: FakeLoop) -> None:
    fd = lab.tun.fileno()
    lab.tun.close()
    loop.readers[fd]()
    assert fd not in loop.readers
    assert [type(event) for event in lab.engine.drain_events()] == [TunClosed]
    assert loop.calls == []
    lab.close()


def test_on_a_real_loop(lab: Lab) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        lab.engine.start(loop)
        loop.add_reader(lab.engine.event_fd(), woken.set)
        lab.tun.inject(OUT)
        await asyncio.wait_for(woken.wait(), 5)
        assert lab.engine.drain_events() == [NeedsHandshake(A)]
        loop.remove_reader(lab.engine.event_fd())

        arrived = asyncio.Event()
        loop.add_reader(lab.at_a.fileno(), arrived.set)
        far = lab.complete()
        await asyncio.wait_for(arrived.wait(), 5)
        far.open(lab.sent()[0])
        loop.remove_reader(lab.at_a.fileno())
        lab.engine.stop()

    asyncio.run(scenario())
    lab.close()


def test_a_wakeup_is_a_flag() -> None:
    wakeup = Wakeup()
    wakeup.clear()
    wakeup.set()
    wakeup.set()
    wakeup.clear()
    wakeup.clear()
    wakeup.set()
    wakeup.close()
    wakeup.close()
    wakeup.set()
    wakeup.clear()
    assert wakeup.fileno() == -1
