"""Proves which messages of a macOS route socket count as a change, from byte-exact frames."""

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from wgd.net import darwin_route_socket
from wgd.net.darwin_route_socket import (
    DarwinLinkWatcher,
    NetworkWatcher,
    RouteMessage,
    decode,
)

OWN, WIFI, AIRDROP = 20, 6, 9
NAMES = {OWN: "utun7", WIFI: "en0", AIRDROP: "awdl0"}
UP_AND_RUNNING = 0x8863  # UP BROADCAST SMART RUNNING SIMPLEX MULTICAST, as ifconfig shows en0
NO_CARRIER = 0x8823


# -- frames, field by field as in bsd/net/if.h and bsd/net/route.h ---------------------------------


def if_msghdr(index: int, flags: int, mtu: int = 1500, version: int = 5) -> bytes:
    data = struct.pack("=8B", 6, 14, 0, 6, 0, 0, 0, 0)  # type, typelen, …, hdrlen, …
    data += struct.pack("=III", mtu, 0, 1_000_000_000)  # mtu, metric, baudrate
    data += bytes(13 * 4 + 8 + 4 * 4)  # counters, time of last change, hardware assist
    frame = struct.pack("=HBBiiH2x", 112, version, 0xE, 0x10, flags, index) + data
    assert len(frame) == 112
    return frame


def ifa_msghdr(kind: int, index: int) -> bytes:
    addresses = bytes.fromhex("1002000000000000000000000000000000")[:16]
    return struct.pack("=HBBiiH2xi", 36, 5, kind, 0x20, 0, index, 0) + addresses


def rt_msghdr(
    kind: int, index: int, flags: int, present: int, addresses: bytes, error: int = 0
) -> bytes:
    return (
        struct.pack("=HBBH2xii", 92 + len(addresses), 5, kind, index, flags, present)
        + struct.pack("=iiiiI", 321, 1, error, 0, 0)  # pid, seq, errno, use, inits
        + bytes(14 * 4)  # rt_metrics
        + addresses
    )


def sockaddr_in(text: str) -> bytes:
    return bytes([16, 2, 0, 0]) + socket.inet_pton(socket.AF_INET, text) + bytes(8)


def sockaddr_in6(text: str) -> bytes:
    return bytes([28, 30]) + bytes(6) + socket.inet_pton(socket.AF_INET6, text) + bytes(4)


GATEWAY = sockaddr_in("192.168.1.1")
NO_MASK = bytes(4)  # a socket address of length 0 takes four bytes
HALF_MASK = bytes([5, 0, 0, 0, 0x80, 0, 0, 0])  # 128.0.0.0, cut after its last byte that is not 0
DEFAULT = sockaddr_in("0.0.0.0") + GATEWAY + NO_MASK
DEFAULT_IPV6 = sockaddr_in6("::") + sockaddr_in6("fe80::1") + NO_MASK
HALF = sockaddr_in("0.0.0.0") + GATEWAY + HALF_MASK
HALF_IPV6 = sockaddr_in6("::") + sockaddr_in6("fe80::1") + bytes([9]) + bytes(7) + b"\x80\0\0\0"
NET = sockaddr_in("10.0.0.0") + GATEWAY + bytes([5, 0, 0, 0, 255, 0, 0, 0])
UP_GATEWAY = 0x3
HOST = 0x4


# -- decode ----------------------------------------------------------------------------------------


def test_the_golden_frame_of_an_interface() -> None:
    frame = bytes.fromhex(
        "7000 05 0e 10000000 63880000 0600 0000"
        "060e000600000000 dc050000 00000000 00ca9a3b" + "00" * 76
    )
    assert frame == if_msghdr(6, 0x8863)
    assert list(decode(frame)) == [RouteMessage(0xE, 6, 0x8863)]


def test_the_golden_frame_of_a_default_route() -> None:
    frame = bytes.fromhex(
        "8000 05 01 0600 0000 03000000 07000000 41010000 01000000 00000000 00000000 00000000"
        + "00" * 56
        + "10020000 00000000 0000000000000000"
        "10020000 c0a80101 0000000000000000"
        "00000000"
    )
    assert frame == rt_msghdr(1, 6, UP_GATEWAY, 0x7, DEFAULT)
    assert list(decode(frame)) == [RouteMessage(1, 6, 0, is_default=True)]


@pytest.mark.parametrize(
    ("flags", "present", "addresses", "is_default"),
    [
        (UP_GATEWAY, 0x7, DEFAULT, True),
        (UP_GATEWAY, 0x7, DEFAULT_IPV6, True),
        (UP_GATEWAY, 0x3, DEFAULT[:32], True),
        (UP_GATEWAY | 0x1000000, 0x7, DEFAULT, True),  # RTF_IFSCOPE
        (UP_GATEWAY, 0x37, DEFAULT + b"\x14\x12" + bytes(18) + GATEWAY, True),  # IFP, IFA
        (UP_GATEWAY, 0x7, HALF, False),
        (UP_GATEWAY, 0x7, HALF_IPV6, False),
        (UP_GATEWAY, 0x7, NET, False),
        (UP_GATEWAY | HOST, 0x3, sockaddr_in("0.0.0.0") + GATEWAY, False),
        (UP_GATEWAY | HOST, 0x3, sockaddr_in("203.0.113.5") + GATEWAY, False),
        (UP_GATEWAY, 0x2, GATEWAY, False),  # says no destination
    ],
)
def test_what_a_default_route_is(
    flags: int, present: int, addresses: bytes, is_default: bool
) -> None:
    for kind in (1, 2, 3):
        (message,) = decode(rt_msghdr(kind, 6, flags, present, addresses))
        assert message == RouteMessage(kind, 6, 0, is_default=is_default)


def test_several_messages_in_one_read_and_what_is_not_understood() -> None:
    frames = (
        ifa_msghdr(0xC, 6)
        + if_msghdr(6, 0x8863, version=4)
        + struct.pack("=HBB", 8, 5, 0x7F)
        + bytes(4)
        + ifa_msghdr(0xD, 7)
        + rt_msghdr(1, 6, UP_GATEWAY, 0x7, DEFAULT, error=17)  # a request that was refused
        + rt_msghdr(4, 6, UP_GATEWAY, 0x7, DEFAULT)  # RTM_GET
    )
    assert list(decode(frames)) == [RouteMessage(0xC, 6), RouteMessage(0xD, 7)]


@pytest.mark.parametrize(
    "frame",
    [if_msghdr(6, 0x8863), ifa_msghdr(0xC, 6), rt_msghdr(1, 6, UP_GATEWAY, 0x7, DEFAULT)],
)
def test_cut_and_lying_frames_never_raise(frame: bytes) -> None:
    for size in range(len(frame)):
        assert list(decode(frame[:size])) == []
        for lie in (0, 1, 3, 4, 5, size):
            list(decode(struct.pack("=H", lie) + frame[2:size]))
    for position in range(4, len(frame)):
        for value in (0, 1, 0x7F, 0xFF):
            list(decode(frame[:position] + bytes([value]) + frame[position + 1 :]))


# -- the watchers ----------------------------------------------------------------------------------


class Machine:
    """A route socket whose kernel end the test holds, a utun, and time that only tests move."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_up, self.device_mtu = True, 1420
        self.error: OSError | None = None
        self.kernel: list[socket.socket] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def open_socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        assert (family, kind, protocol) == (17, socket.SOCK_RAW, 0)
        ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.kernel.append(kernel)
        return ours

    def say(self, *frames: bytes) -> None:
        for frame in frames:
            self.kernel[0].send(frame)
        self.turn()

    def turn(self) -> None:
        """Let the loop handle what waits."""
        for _ in range(3):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def interface_index(self) -> int:
        return OWN

    def is_up_now(self) -> bool:
        return self.is_up

    def mtu(self) -> int:
        if self.error is not None:
            raise self.error
        return self.device_mtu


class Utun:
    def __init__(self, machine: Machine) -> None:
        self.interface_index = machine.interface_index
        self.is_up = machine.is_up_now
        self.mtu = machine.mtu


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    loop = asyncio.new_event_loop()
    machine = Machine(loop)
    real_socket = socket.socket

    def open_socket(*arguments: int, **named: int) -> socket.socket:
        if arguments and arguments[0] == 17:
            return machine.open_socket(*arguments)
        return real_socket(*arguments, **named)

    def name(index: int) -> str:
        if index not in NAMES:
            raise OSError(errno.ENXIO, "no such interface")
        return NAMES[index]

    monkeypatch.setattr(darwin_route_socket, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(socket, "socket", open_socket)
    monkeypatch.setattr(socket, "if_indextoname", name)
    yield machine
    loop.close()
    for end in machine.kernel:
        end.close()


class Link:
    def __init__(self, machine: Machine) -> None:
        self.seen: list[object] = []
        self.watcher = DarwinLinkWatcher(
            machine.loop,
            Utun(machine),
            on_link=self.seen.append,
            on_mtu=self.seen.append,
            on_gone=self.seen.append,
        )


def test_the_link_is_reported_as_found_and_then_on_changes_only(machine: Machine) -> None:
    link = Link(machine)
    machine.turn()
    assert link.seen == [1420, True]
    machine.say(if_msghdr(OWN, 0x8051, 1420))
    assert link.seen == [1420, True]
    machine.is_up = False
    machine.say(if_msghdr(WIFI, NO_CARRIER), ifa_msghdr(0xC, OWN))
    assert link.seen == [1420, True]
    machine.say(if_msghdr(OWN, 0x8050, 1420))
    machine.device_mtu = 1280
    machine.say(if_msghdr(OWN, 0x8050, 1280))
    assert link.seen == [1420, True, False, 1280]
    link.watcher.close()
    link.watcher.close()


def test_a_utun_that_is_gone_is_reported_last(machine: Machine) -> None:
    link = Link(machine)
    machine.turn()
    machine.error = OSError(errno.ENXIO, "Device not configured")
    machine.say(if_msghdr(OWN, 0), if_msghdr(OWN, 0))
    assert link.seen[2:] == ["the utun interface is gone"]


def test_nothing_is_reported_after_close(machine: Machine) -> None:
    link = Link(machine)
    link.watcher.close()
    machine.turn()
    assert link.seen == []


class Network:
    def __init__(self, machine: Machine) -> None:
        self.changes = 0
        self.watcher = NetworkWatcher(machine.loop, OWN, self.changed)

    def changed(self) -> None:
        self.changes += 1


@pytest.mark.parametrize(
    "frame",
    [
        ifa_msghdr(0xC, WIFI),
        ifa_msghdr(0xD, WIFI),
        ifa_msghdr(0xD, 77),  # of an interface that is no more
        if_msghdr(WIFI, NO_CARRIER),
        rt_msghdr(1, WIFI, UP_GATEWAY, 0x7, DEFAULT),
        rt_msghdr(2, WIFI, UP_GATEWAY, 0x7, DEFAULT_IPV6),
        rt_msghdr(3, WIFI, UP_GATEWAY, 0x7, DEFAULT),
    ],
)
def test_what_changes_the_network(machine: Machine, frame: bytes) -> None:
    network = Network(machine)
    machine.say(frame)
    assert network.changes == 1
    network.watcher.close()


@pytest.mark.parametrize(
    "frame",
    [
        ifa_msghdr(0xC, OWN),  # what wg-quick does: an address, routes through the tunnel
        if_msghdr(OWN, 0x8051),
        rt_msghdr(1, OWN, UP_GATEWAY, 0x7, DEFAULT),
        rt_msghdr(1, OWN, UP_GATEWAY, 0x7, HALF),
        rt_msghdr(1, WIFI, UP_GATEWAY | HOST, 0x3, sockaddr_in("203.0.113.5") + GATEWAY),
        rt_msghdr(1, WIFI, UP_GATEWAY, 0x7, NET),
        ifa_msghdr(0xC, AIRDROP),
        if_msghdr(AIRDROP, UP_AND_RUNNING),
    ],
)
def test_what_does_not_change_the_network(machine: Machine, frame: bytes) -> None:
    network = Network(machine)
    machine.say(frame)
    assert network.changes == 0
    network.watcher.close()


def test_an_interface_counts_when_it_goes_up_or_down(machine: Machine) -> None:
    network = Network(machine)
    counts = []
    for flags in (UP_AND_RUNNING, UP_AND_RUNNING | 0x100, NO_CARRIER, NO_CARRIER, UP_AND_RUNNING):
        machine.say(if_msghdr(WIFI, flags))
        counts.append(network.changes)
    assert counts == [1, 1, 2, 2, 3]
    network.watcher.close()


def test_many_messages_are_one_change(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(darwin_route_socket, "SETTLE_SECONDS", 0.05)
    network = Network(machine)
    machine.say(ifa_msghdr(0xD, WIFI), rt_msghdr(2, WIFI, UP_GATEWAY, 0x7, DEFAULT))
    machine.say(ifa_msghdr(0xC, WIFI), rt_msghdr(1, WIFI, UP_GATEWAY, 0x7, DEFAULT))
    assert network.changes == 0
    machine.loop.call_later(0.06, machine.loop.stop)
    machine.loop.run_forever()
    assert network.changes == 1
    network.watcher.close()


def test_failing_sends_count_once_in_ten_seconds(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(machine)
    network.watcher.suspect()
    assert network.changes == 0  # never amid sending
    machine.turn()
    assert network.changes == 1
    start = machine.loop.time()
    now = start
    monkeypatch.setattr(machine.loop, "time", lambda: now)
    for seconds, expected in ((9.0, 1), (10.1, 2), (15.0, 2)):
        now = start + seconds
        network.watcher.suspect()
        machine.turn()
        assert network.changes == expected, seconds
    network.watcher.close()


def test_close_forgets_a_change_that_was_to_be_reported(machine: Machine) -> None:
    network = Network(machine)
    network.watcher.suspect()
    network.watcher.close()
    network.watcher.close()
    machine.turn()
    assert network.changes == 0
