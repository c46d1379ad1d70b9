"""The memory TUN and network behave like the real ones, and do exactly what a test chooses."""

import errno
import select

import pytest

from wgd.addresses import Endpoint, Source
from wgd.clock import VirtualClock
from wgd.net.memory import MemoryNetwork, MemorySocket, Transit
from wgd.tun.memory import MemoryTun

MILLISECOND = 1_000_000
TO_BOB = Endpoint("192.0.2.2", 2000)


def received(socket: MemorySocket) -> list[bytes]:
    buffer = memoryview(bytearray(100))
    datagrams: list[bytes] = []
    while True:
        try:
            length, *_ = socket.receive_into(buffer)
        except BlockingIOError:
            return datagrams
        datagrams.append(bytes(buffer[:length]))


class World:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.network = MemoryNetwork(self.clock)
        self.alice_host = self.network.host("alice", "192.0.2.1", "2001:db8::1")
        self.alice = self.alice_host.bind(port=1000)
        self.bob = self.network.host("bob", "192.0.2.2").bind(port=2000)


@pytest.fixture
def world() -> World:
    return World()


def test_a_datagram_carries_both_addresses(world: World) -> None:
    world.alice.send(b"hello", TO_BOB)
    buffer = memoryview(bytearray(100))
    length, _, sender, _ = world.bob.receive_into(buffer)
    assert bytes(buffer[:length]) == b"hello"
    assert sender == Endpoint("192.0.2.1", 1000, 0, Source("192.0.2.2", 1))
    world.bob.send(b"yes", sender)
    assert received(world.alice) == [b"yes"]


def test_fates(world: World) -> None:
    fates = iter([(), (0, 0), (20 * MILLISECOND,), (10 * MILLISECOND,), (0,)])
    seen: list[Transit] = []

    def fate(transit: Transit) -> tuple[int, ...]:
        seen.append(transit)
        return next(fates)

    world.network.fate = fate
    for datagram in (b"lost", b"twice", b"slow", b"less slow", b"plain"):
        world.alice.send(datagram, TO_BOB)
    assert received(world.bob) == [b"twice", b"twice", b"plain"]
    assert world.network.next_deadline() == world.clock.boot_ns() + 10 * MILLISECOND
    world.network.deliver()
    assert received(world.bob) == []
    world.clock.advance(20 * MILLISECOND)
    world.network.deliver()
    assert received(world.bob) == [b"less slow", b"slow"]
    assert world.network.next_deadline() is None
    assert seen[0] == Transit(Endpoint("192.0.2.1", 1000), TO_BOB, b"lost")


@pytest.mark.parametrize(
    ("endpoint", "size", "number"),
    [
        (TO_BOB, 65_508, errno.EMSGSIZE),
        (Endpoint("192.0.2.2", 2000, 0, Source("192.0.2.9", 1)), 1, errno.EADDRNOTAVAIL),
        (Endpoint("2001:db8::2", 2000), 1, errno.EAFNOSUPPORT),
    ],
)
def test_send_errors(world: World, endpoint: Endpoint, size: int, number: int) -> None:
    with pytest.raises(OSError) as caught:
        world.alice.send(bytes(size), endpoint)
    assert caught.value.errno == number


def test_a_host_may_move(world: World) -> None:
    world.alice_host.addresses = ()
    with pytest.raises(OSError) as caught:
        world.alice.send(b"x", TO_BOB)
    assert caught.value.errno == errno.ENETUNREACH
    world.bob.send(b"lost", Endpoint("192.0.2.1", 1000))
    world.alice_host.addresses = ("198.51.100.1",)
    world.bob.send(b"found", Endpoint("198.51.100.1", 1000))
    assert received(world.alice) == [b"found"]


def test_ports(world: World) -> None:
    with pytest.raises(OSError) as caught:
        world.alice_host.bind(port=1000)
    assert caught.value.errno == errno.EADDRINUSE
    first, second = world.alice_host.bind(), world.alice_host.bind()
    assert first.port != second.port
    world.alice_host.bind(port=1000, is_ipv6=True)
    world.alice.close()
    world.alice.close()
    world.alice_host.bind(port=1000)


def test_a_long_datagram_is_seen_as_length_zero(world: World) -> None:
    world.alice.send(bytes(101), TO_BOB)
    assert world.bob.receive_into(memoryview(bytearray(100)))[0] == 0


def test_queues_are_bounded(world: World) -> None:
    for number in range(5000):
        world.alice.send(number.to_bytes(2, "big"), TO_BOB)
    datagrams = received(world.bob)
    assert 0 < len(datagrams) < 5000
    assert datagrams[0] == bytes(2)  # the newest are lost, as in a kernel


def test_descriptors_follow_the_queue(world: World) -> None:
    def readable(fd: int) -> bool:
        return bool(select.select([fd], [], [], 0)[0])

    world.alice.send(b"before", TO_BOB)
    assert readable(world.bob.fileno())
    received(world.bob)
    assert not readable(world.bob.fileno())
    world.alice.send(b"after", TO_BOB)
    assert readable(world.bob.fileno())
    world.bob.close()

    tun = MemoryTun()
    assert not readable(tun.fileno())
    tun.inject(b"packet")
    assert readable(tun.fileno())
    assert tun.read_into(memoryview(bytearray(100))) == 6
    assert not readable(tun.fileno())
    tun.close()
    assert readable(tun.fileno())
    tun.release()


def test_tun_queues_are_bounded() -> None:
    tun = MemoryTun(queue_limit=2)
    assert [tun.inject(b"x") for _ in range(3)] == [True, True, False]
    tun.write(memoryview(b"1"))
    tun.write(memoryview(b"2"))
    with pytest.raises(OSError) as caught:
        tun.write(memoryview(b"3"))
    assert caught.value.errno == errno.ENOBUFS
    assert tun.take() == [b"1", b"2"]
    assert tun.take() == []


def test_tun_states() -> None:
    tun = MemoryTun()
    with pytest.raises(BlockingIOError):
        tun.read_into(memoryview(bytearray(10)))
    tun.is_up = False
    with pytest.raises(OSError) as caught:
        tun.write(memoryview(b"x"))
    assert caught.value.errno == errno.EIO
    tun.close()
    with pytest.raises(OSError) as caught:
        tun.write(memoryview(b"x"))
    assert caught.value.errno == errno.EBADFD
