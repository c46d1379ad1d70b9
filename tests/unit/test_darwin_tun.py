"""Proves what the macOS TUN adapter says to the kernel, byte for byte; the kernel is a fake."""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from wgd.errors import WgdError
from wgd.tun.darwin import DarwinTun, parse_unit

IPV4_PACKET = bytes.fromhex("45000014000000004011000001020304") + b"four"
IPV6_PACKET = b"\x60" + bytes(39)


class Kernel:
    """One utun control: its socket is one end of a pair, the other end plays the network stack."""

    def __init__(self) -> None:
        self.ours, self.stack = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.stack.settimeout(5)
        self.opened: list[tuple[int, int, int]] = []
        self.connected: list[tuple[int, int]] = []
        self.ioctls: list[tuple[int, bytes]] = []
        self.closed = False
        self.connect_error: OSError | None = None
        self.ioctl_errors: dict[int, OSError] = {}
        self.flags = 0x8051
        self.mtu = 1500
        self.name = b"utun7\0"

    def ioctl(self, _fd: int, request: int, argument: bytes) -> bytes:
        self.ioctls.append((request, argument))
        if error := self.ioctl_errors.get(request):
            raise error
        match request:
            case 0xC0644E03:
                return struct.pack("=I", 9) + argument[4:]
            case 0xC0206911:
                return argument[:16] + struct.pack("=H", self.flags) + bytes(14)
            case 0xC0206933:
                return argument[:16] + struct.pack("=i", self.mtu) + bytes(12)
            case 0x80206934:
                self.mtu = struct.unpack_from("=i", argument, 16)[0]
                return argument
        raise AssertionError(hex(request))


class ControlSocket:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def __enter__(self) -> "ControlSocket":
        return self

    def __exit__(self, *_: object) -> None:
        """A socket that was only opened for an ioctl."""

    def fileno(self) -> int:
        return self._kernel.ours.fileno()

    def connect(self, address: tuple[int, int]) -> None:
        self._kernel.connected.append(address)
        if self._kernel.connect_error is not None:
            raise self._kernel.connect_error

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (2, 2)
        assert size >= 16
        if not self._kernel.name:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        return self._kernel.name

    def close(self) -> None:
        self._kernel.closed = True


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    fake = Kernel()

    def open_socket(family: int, kind: int, protocol: int = 0, fileno: int = -1) -> ControlSocket:
        fake.opened.append((family, kind, protocol))
        if fileno == 99:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return ControlSocket(fake)

    monkeypatch.setattr(socket, "socket", open_socket)
    monkeypatch.setattr(fcntl, "ioctl", fake.ioctl)
    yield fake
    fake.ours.close()
    fake.stack.close()


@pytest.mark.parametrize(
    ("name", "unit"),
    [("utun", 0), ("utun0", 1), ("utun7", 8), ("utun10", 11), ("utun123456", 123457)],
)
def test_the_unit_is_the_number_and_one(name: str, unit: int) -> None:
    assert parse_unit(name) == unit


@pytest.mark.parametrize(
    "name",
    ["wg0", "utun-1", "utun01", "utun7 ", "utun7\n", "Utun7", "tun0", "utunx", "utun٣", ""],
)
def test_any_other_name_is_refused(kernel: Kernel, name: str) -> None:
    with pytest.raises(WgdError, match=r"not possible on macOS: use utun .* utun7"):
        DarwinTun.create(name)
    assert kernel.opened == []


def test_a_device_is_made_through_the_kernel_control(kernel: Kernel) -> None:
    tun = DarwinTun.create("utun")
    assert kernel.opened[0] == (32, socket.SOCK_DGRAM, 2)
    request, argument = kernel.ioctls[0]
    assert request == 0xC0644E03
    assert argument == bytes(4) + b"com.apple.net.utun_control".ljust(96, b"\0")
    assert kernel.connected == [(9, 0)]
    assert tun.name == "utun7"
    assert kernel.ioctls[1:] == [
        (0x80206934, b"utun7".ljust(16, b"\0") + struct.pack("=i", 1420) + bytes(12))
    ]
    assert not os.get_blocking(tun.fileno())
    assert not os.get_inheritable(tun.fileno())


def test_a_number_is_asked_for_by_its_unit(kernel: Kernel) -> None:
    DarwinTun.create("utun7")
    assert kernel.connected == [(9, 8)]


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EPERM, "run as root"),
        (errno.EBUSY, "that number is in use: choose another, or utun"),
        (errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_a_refusal_says_what_to_do_and_leaves_nothing_open(
    kernel: Kernel, number: int, cure: str
) -> None:
    kernel.connect_error = OSError(number, os.strerror(number))
    with pytest.raises(WgdError, match=f"utun7.*{cure}"):
        DarwinTun.create("utun7")
    assert kernel.closed


def test_a_device_that_cannot_be_set_up_is_closed(kernel: Kernel) -> None:
    kernel.ioctl_errors[0x80206934] = PermissionError(errno.EPERM, "Operation not permitted")
    with pytest.raises(WgdError, match=r"cannot set up utun interface 'utun7'.*run as root"):
        DarwinTun.create("utun7")
    assert kernel.closed


def test_packets_carry_their_address_family(kernel: Kernel) -> None:
    tun = DarwinTun.create("utun7")
    tun.write(memoryview(IPV4_PACKET))
    assert kernel.stack.recv(100) == b"\x00\x00\x00\x02" + IPV4_PACKET
    tun.write(memoryview(IPV6_PACKET))
    assert kernel.stack.recv(100) == b"\x00\x00\x00\x1e" + IPV6_PACKET

    buffer = bytearray(100)
    kernel.stack.send(b"\x00\x00\x00\x02" + IPV4_PACKET)
    assert tun.read_into(memoryview(buffer)) == 20
    assert buffer[:20] == IPV4_PACKET
    kernel.stack.send(b"\x00\x00\x00\x1e" + IPV6_PACKET)
    assert tun.read_into(memoryview(buffer)) == 40
    assert buffer[:40] == IPV6_PACKET
    kernel.stack.send(b"\x00\x00")  # never seen, but a length must not be negative
    assert tun.read_into(memoryview(buffer)) == 0
    with pytest.raises(BlockingIOError):
        tun.read_into(memoryview(buffer))


def test_state_and_mtu_are_asked_of_the_kernel(kernel: Kernel) -> None:
    tun = DarwinTun.create("utun7")
    assert tun.mtu() == 1420
    tun.set_mtu(1280)
    assert tun.mtu() == 1280
    assert tun.is_up()
    kernel.flags = 0x8050
    assert not tun.is_up()
    for mtu in (0, 65536):
        with pytest.raises(WgdError, match=r"is not in 1\.\.65535"):
            tun.set_mtu(mtu)


def test_a_descriptor_is_taken_over(kernel: Kernel) -> None:
    tun = DarwinTun.from_fd(5)
    assert tun.name == "utun7"
    assert kernel.connected == []
    assert kernel.mtu == 1420
    tun.close()
    tun.close()
    assert kernel.closed
    assert tun.fileno() == -1


def test_a_descriptor_of_something_else_is_refused(kernel: Kernel) -> None:
    kernel.name = b""
    with pytest.raises(WgdError, match="descriptor 5 is not a utun device"):
        DarwinTun.from_fd(5)
    assert kernel.closed


def test_a_descriptor_that_is_no_socket_is_refused_and_closed(kernel: Kernel) -> None:
    spare, other = os.pipe()
    os.dup2(spare, 99)
    with pytest.raises(WgdError, match="descriptor 99 is not a socket"):
        DarwinTun.from_fd(99)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(99)
    os.close(spare)
    os.close(other)
