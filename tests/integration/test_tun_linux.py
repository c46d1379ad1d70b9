"""The Linux TUN device: made, taken over by descriptor, moved, renamed, deleted, refused."""

import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytun

from tests.integration.conftest import MakeNamespace
from tests.testbed.namespaces import Namespace, run, unique_name
from wgd.errors import WgdError
from wgd.interface_name import check_interface_name
from wgd.tun.linux import LinuxTun

pytestmark = pytest.mark.netns

IFF_TUN, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x1, 0x2, 0x1000, 0x4000
TUNSETIFF, TUNSETVNETHDRSZ, TUNSETOFFLOAD = 0x400454CA, 0x400454D8, 0x400454D0
CHECKSUM, TSO4, TSO6, ECN, USO4, USO6 = 0x01, 0x02, 0x04, 0x08, 0x20, 0x40


@pytest.fixture
def tun(netns: Namespace) -> Iterator[LinuxTun]:
    """A fresh TUN device in a namespace of its own."""
    with netns.entered():
        created = LinuxTun.create(unique_name("t"))
    yield created
    created.close()


def open_raw(netns: Namespace, flags: int, vnet_header_size: int | None = None) -> tuple[int, str]:
    """Make a TUN or TAP interface as a parent process would; return descriptor and name."""
    name = unique_name("t")
    with netns.entered():
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    if vnet_header_size is not None:
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", vnet_header_size))
    return fd, name


def read_packet(tun: LinuxTun, version: int) -> bytes:
    """Return the next packet of an IP version; the kernel sends IPv6 ones of its own accord."""
    buffer = memoryview(bytearray(65535))
    while True:
        assert select.select([tun], [], [], 5)[0], "no packet within 5 s"
        length = tun.read_into(buffer)
        if buffer[0] >> 4 == version:
            return bytes(buffer[:length])


def exchange(netns: Namespace, tun: LinuxTun) -> None:
    """Send a datagram out through the interface and one back in, for both IP versions."""
    name = tun.current_name()
    netns.add_address(name, "10.9.0.1/24")
    netns.add_address(name, "fd09::1/64")
    netns.ip("link", "set", name, "up")
    for family, us, them, port_at in (
        (socket.AF_INET, "10.9.0.1", "10.9.0.2", 20),
        (socket.AF_INET6, "fd09::1", "fd09::2", 40),
    ):
        with netns.socket(family, socket.SOCK_DGRAM) as inside:
            inside.bind((us, 0))
            inside.settimeout(5)
            inside.sendto(b"there", (them, 4000))
            packet = read_packet(tun, 4 if family == socket.AF_INET else 6)
            assert packet[port_at + 8 :] == b"there"
            assert packet[port_at + 2 : port_at + 4] == struct.pack("!H", 4000)
            # Swapping addresses and ports leaves both checksums right: what comes is an answer.
            half = 4 if family == socket.AF_INET else 16
            first = port_at - 2 * half
            answer = (
                packet[:first]
                + packet[first + half : first + 2 * half]
                + packet[first : first + half]
                + packet[port_at + 2 : port_at + 4]
                + packet[port_at : port_at + 2]
                + packet[port_at + 4 :]
            )
            tun.write(memoryview(answer))
            data, sender = inside.recvfrom(100)
            assert (data, sender[:2]) == (b"there", (them, 4000))


def test_a_new_device_has_wireguards_mtu_and_a_private_nonblocking_descriptor(
    netns: Namespace, tun: LinuxTun
) -> None:
    assert "mtu 1420" in netns.ip("link", "show", tun.name).stdout
    assert tun.mtu() == 1420
    assert not os.get_inheritable(tun.fileno())
    with pytest.raises(BlockingIOError):
        tun.read_into(memoryview(bytearray(2000)))
    assert netns.ip("link", "show", tun.name).stdout.startswith(f"{tun.interface_index()}: ")


def test_a_burst_longer_than_the_kernels_default_queue_waits(
    netns: Namespace, tun: LinuxTun
) -> None:
    assert "qlen 2000" in netns.ip("link", "show", tun.name).stdout


def test_packets_go_out_and_in(netns: Namespace, tun: LinuxTun) -> None:
    exchange(netns, tun)


def test_the_interface_goes_with_the_descriptor(netns: Namespace, tun: LinuxTun) -> None:
    tun.close()
    tun.close()
    assert not netns.has_interface(tun.name)
    assert tun.is_gone()


@pytest.mark.parametrize("mtu", [68, 1280, 65535])
def test_the_mtu_may_be_as_large_as_a_packet(netns: Namespace, tun: LinuxTun, mtu: int) -> None:
    tun.set_mtu(mtu)
    assert tun.mtu() == mtu
    assert f"mtu {mtu} " in netns.ip("link", "show", tun.name).stdout


@pytest.mark.parametrize("mtu", [-1, 0, 65536, 2**31])
def test_an_mtu_out_of_range_is_refused_by_name(tun: LinuxTun, mtu: int) -> None:
    with pytest.raises(WgdError, match=str(mtu)):
        tun.set_mtu(mtu)
    assert tun.mtu() == 1420


def test_a_device_deleted_by_hand_is_gone(netns: Namespace, tun: LinuxTun) -> None:
    assert not tun.is_gone()
    netns.ip("link", "delete", tun.name)
    assert tun.is_gone()
    for use in (
        lambda: tun.read_into(memoryview(bytearray(100))),
        lambda: tun.write(memoryview(bytearray(100))),
        tun.network_namespace,
        tun.current_name,
        tun.mtu,
    ):
        with pytest.raises(OSError) as caught:
            use()
        assert caught.value.errno == errno.EBADFD


def test_a_renamed_device_tells_its_new_name(netns: Namespace, tun: LinuxTun) -> None:
    renamed = unique_name("r")
    netns.ip("link", "set", tun.name, "name", renamed)
    assert tun.current_name() == renamed
    assert tun.mtu() == 1420


def test_a_moved_device_is_asked_in_its_new_namespace(
    netns: Namespace, tun: LinuxTun, make_netns: MakeNamespace
) -> None:
    other = make_netns()
    netns.ip("link", "set", tun.name, "netns", other.name)
    namespace = tun.network_namespace()
    assert os.fstat(namespace).st_ino == other.path.stat().st_ino
    assert not os.get_inheritable(namespace)
    os.close(namespace)
    tun.set_mtu(1400)
    assert tun.mtu() == 1400
    assert "mtu 1400" in other.ip("link", "show", tun.name).stdout
    assert other.ip("link", "show", tun.name).stdout.startswith(f"{tun.interface_index()}: ")
    exchange(other, tun)


# -- for the native data plane ---------------------------------------------------------------------


def test_without_offloads_any_data_plane_can_use_it(netns: Namespace, tun: LinuxTun) -> None:
    assert not tun.needs_native
    assert (tun.queue_fds, tun.virtio_header_size) == ((tun.fileno(),), 0)
    assert not tun.has_packet_information
    assert not netns.has_tcp_segmentation(tun.name)


def test_offloads_are_switched_on_when_asked_for(netns: Namespace) -> None:
    with netns.entered():
        tun = LinuxTun.create(unique_name("t"), offload=True)
    assert tun.needs_native
    assert (tun.queue_fds, tun.virtio_header_size) == ((tun.fileno(),), 10)
    assert netns.has_tcp_segmentation(tun.name)
    assert tun.mtu() == 1420
    tun.close()
    assert not netns.has_interface(tun.name)


def refuse_offloads(monkeypatch: pytest.MonkeyPatch, refused: int) -> list[int]:
    """Let the kernel know no offload of these; return the list of what it will have been asked."""
    real = fcntl.ioctl
    asked: list[int] = []

    def ioctl(fd: int, request: int, argument: Any = 0) -> Any:
        if request == TUNSETOFFLOAD:
            asked.append(argument)
            if argument & refused:
                raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, request, argument)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    return asked


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        (0, CHECKSUM | TSO4 | TSO6 | ECN | USO4 | USO6),
        (USO4 | USO6, CHECKSUM | TSO4 | TSO6 | ECN),
        (USO4 | USO6 | ECN, CHECKSUM | TSO4 | TSO6),
        (USO4 | USO6 | ECN | TSO6, CHECKSUM),
        (USO4 | USO6 | ECN | TSO6 | CHECKSUM, 0),
    ],
)
def test_what_the_kernel_does_not_know_is_left_out(
    netns: Namespace, monkeypatch: pytest.MonkeyPatch, refused: int, left: int
) -> None:
    asked = refuse_offloads(monkeypatch, refused)
    with netns.entered():
        tun = LinuxTun.create(unique_name("t"), offload=True)
    monkeypatch.undo()
    assert asked[-1] == left
    assert tun.needs_native == (left != 0)
    assert ("tun_tso" in tun.segmentation, "tun_uso" in tun.segmentation) == (
        bool(left & TSO4),
        bool(left & USO4),
    )
    assert netns.has_tcp_segmentation(tun.name) == bool(left & TSO4)
    tun.close()


def test_a_kernel_without_virtio_headers_does_without(
    netns: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pytun.TunTapDevice

    def old_kernel(name: str, flags: int) -> Any:
        if flags & IFF_VNET_HDR:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(name, flags=flags)

    monkeypatch.setattr(pytun, "TunTapDevice", old_kernel)
    with netns.entered():
        tun = LinuxTun.create(unique_name("t"), offload=True)
    assert (tun.needs_native, tun.virtio_header_size) == (False, 0)
    exchange(netns, tun)
    tun.close()


@pytest.mark.parametrize("offload", [True, False])
def test_several_queues_are_several_descriptors_of_one_interface(
    netns: Namespace, offload: bool
) -> None:
    with netns.entered():
        tun = LinuxTun.create(unique_name("t"), queues=3, offload=offload)
    assert len(set(tun.queue_fds)) == 3
    assert tun.needs_native
    for fd in tun.queue_fds:
        assert fcntl.ioctl(fd, 0x800454D2, bytes(40))[:16].rstrip(b"\0") == tun.name.encode()
        assert (os.get_blocking(fd), os.get_inheritable(fd)) == (False, False)
    fds = tun.queue_fds
    tun.close()
    tun.close()
    assert not netns.has_interface(tun.name)
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_an_interface_that_is_there_is_not_shared_by_queues(netns: Namespace) -> None:
    name, open_files = unique_name("t"), len(list(Path("/proc/self/fd").iterdir()))
    for kind, queues, reason in (
        (["multi_queue"], 1, "a TUN of several queues"),
        (["multi_queue"], 2, "several workers need a new one"),
        ([], 2, "several workers need a new one"),
    ):
        netns.ip("tuntap", "add", "dev", name, "mode", "tun", *kind)
        with netns.entered(), pytest.raises(WgdError, match=f"'{name}': .*{reason}"):
            LinuxTun.create(name, queues=queues)
        netns.ip("link", "delete", name)
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


def test_offloads_that_a_predecessor_left_on_are_switched_off(netns: Namespace) -> None:
    name = unique_name("t")
    netns.ip("tuntap", "add", "dev", name, "mode", "tun")
    for offload in (True, False):
        with netns.entered():
            tun = LinuxTun.create(name, offload=offload)
        assert netns.has_tcp_segmentation(name) == offload
        tun.close()
    netns.ip("link", "delete", name)


@pytest.mark.parametrize("flags", [IFF_NO_PI | IFF_VNET_HDR, IFF_VNET_HDR, IFF_NO_PI, 0])
def test_a_descriptor_gets_offloads_if_it_has_the_headers_for_them(
    netns: Namespace, flags: int
) -> None:
    fd, name = open_raw(netns, IFF_TUN | flags, 12 if flags & IFF_VNET_HDR else None)
    tun = LinuxTun.from_fd(fd, offload=True)
    assert tun.queue_fds == (fd,)
    assert tun.virtio_header_size == (12 if flags & IFF_VNET_HDR else 0)
    assert tun.has_packet_information == (not flags & IFF_NO_PI)
    assert tun.needs_native == bool(flags & IFF_VNET_HDR)
    assert netns.has_tcp_segmentation(name) == bool(flags & IFF_VNET_HDR)
    tun.close()


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a b", "a:b", "a\tb", "sixteen-letters-", "ü" * 8, "a\0b"]
)
def test_a_bad_name_is_refused_on_one_line(name: str) -> None:
    with pytest.raises(WgdError, match="interface name") as caught:
        LinuxTun.create(name)
    assert "\n" not in str(caught.value)


def test_fifteen_bytes_are_a_name() -> None:
    check_interface_name("fifteen-letters")


def test_a_device_in_use_is_refused(netns: Namespace, tun: LinuxTun) -> None:
    with netns.entered(), pytest.raises(WgdError, match=f"'{tun.name}': another process"):
        LinuxTun.create(tun.name)


def test_a_name_of_another_kind_of_interface_is_refused(netns: Namespace) -> None:
    name = unique_name("d")
    netns.ip("link", "add", name, "type", "veth", "peer")
    with netns.entered(), pytest.raises(WgdError, match=f"'{name}': an interface of another kind"):
        LinuxTun.create(name)


CREATE = """
import os, sys
from wgd.errors import WgdError
from wgd.tun.linux import LinuxTun
if len(sys.argv) > 2:
    os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
try:
    LinuxTun.create(sys.argv[1])
except WgdError as error:
    print(error)
"""


def test_without_permission_the_cure_is_named(netns: Namespace) -> None:
    nobody = "65534"
    said = netns.run(sys.executable, "-c", CREATE, unique_name("t"), nobody)
    assert "not permitted" in said.stdout
    assert "CAP_NET_ADMIN" in said.stdout
    assert said.stdout.count("\n") == 1


def test_without_dev_net_tun_the_cure_is_named(netns: Namespace) -> None:
    hide = 'mount -t tmpfs none /dev/net && exec "$@"'
    said = netns.run(
        *("unshare", "-m", "sh", "-c", hide, "sh", sys.executable, "-c", CREATE, unique_name("t"))
    )
    assert "modprobe tun" in said.stdout
    assert "--device /dev/net/tun" in said.stdout
    assert said.stdout.count("\n") == 1


# -- descriptors from a parent (WG_TUN_FD) ---------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "vnet_header_size"),
    [
        (IFF_TUN | IFF_NO_PI, None),
        (IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, None),
        (IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, 12),
        (IFF_TUN, None),
        (IFF_TUN | IFF_VNET_HDR, 12),
    ],
    ids=["plain", "virtio", "virtio-12", "packet-information", "both"],
)
def test_a_descriptor_is_taken_over_whatever_headers_it_has(
    netns: Namespace, flags: int, vnet_header_size: int | None
) -> None:
    fd, name = open_raw(netns, flags, vnet_header_size)
    tun = LinuxTun.from_fd(fd)
    assert (tun.name, tun.fileno()) == (name, fd)
    assert (tun.mtu(), os.get_blocking(fd), os.get_inheritable(fd)) == (1420, False, False)
    exchange(netns, tun)
    tun.close()


def test_offloads_of_a_taken_over_descriptor_are_switched_off(netns: Namespace) -> None:
    fd, _name = open_raw(netns, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR)
    fcntl.ioctl(fd, TUNSETOFFLOAD, CHECKSUM | TSO4)  # as wireguard-go leaves it
    tun = LinuxTun.from_fd(fd)
    netns.add_address(tun.name, "10.9.0.1/24")
    netns.ip("link", "set", tun.name, "up")
    with netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("10.9.0.2", 9))
    packet = read_packet(tun, 4)
    words = struct.unpack("!4s4s4s", packet[12:20] + struct.pack("!xBH", 17, len(packet) - 20))
    total = sum(int.from_bytes(word[i : i + 2], "big") for word in words for i in (0, 2))
    datagram = packet[20:] + b"\0" * (len(packet) % 2)
    total += sum(int.from_bytes(datagram[i : i + 2], "big") for i in range(0, len(datagram), 2))
    assert total % 0xFFFF == 0, "the kernel left the checksum to us"
    tun.close()


def test_a_descriptor_whose_device_is_in_another_namespace_is_taken_over(
    netns: Namespace, make_netns: MakeNamespace
) -> None:
    other = make_netns()
    fd, name = open_raw(netns, IFF_TUN | IFF_NO_PI)
    netns.ip("link", "set", name, "netns", other.name)
    tun = LinuxTun.from_fd(fd)
    assert "mtu 1420" in other.ip("link", "show", name).stdout
    tun.close()


def test_descriptors_that_are_no_tun_are_refused_and_closed(netns: Namespace) -> None:
    tap, name = open_raw(netns, IFF_TAP | IFF_NO_PI)
    for fd, reason in (
        (tap, f"'{name}' .* TAP"),
        (os.open("/dev/net/tun", os.O_RDWR), "no TUN interface"),
        (os.open("/dev/null", os.O_RDWR), "not a TUN device"),
    ):
        with pytest.raises(WgdError, match=reason):
            LinuxTun.from_fd(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    with pytest.raises(WgdError, match="not a TUN device"):
        LinuxTun.from_fd(tap)


def test_a_child_process_does_not_inherit_the_device(tun: LinuxTun) -> None:
    listing = subprocess.run(
        ["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True, close_fds=False
    )
    assert "/dev/net/tun" not in listing.stdout


def test_no_namespace_of_the_test_process_was_changed(tun: LinuxTun) -> None:
    assert tun.mtu() == 1420  # asked in another namespace
    assert run("ip", "link", "show", tun.name, check=False).returncode != 0
    with pytest.raises(OSError, match="no interface"):
        socket.if_nametoindex(tun.name)
