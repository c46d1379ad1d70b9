"""The TUN interface on Linux: made through `pytun`, or taken over from a parent by descriptor.

The device may be renamed and moved to another network namespace while we hold its descriptor; the
descriptor goes on working. So nothing but `name` (what it was called when we got it) is remembered:
name, namespace, index and MTU are asked of the kernel, in the namespace where the device now is.

A descriptor from a parent may put headers before each packet. In the order the kernel has them:

    packet information (4 bytes: flags, EtherType), unless made with IFF_NO_PI
    virtio-net header (10 bytes or more, all zero: no offload), if IFF_VNET_HDR
    the IP packet
"""

import contextlib
import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import TypeVar

if sys.platform != "linux":  # what follows is skipped by mypy elsewhere
    raise ImportError("this module is for Linux")

import pytun

from wgd.constants import DEFAULT_MTU, MAX_MTU
from wgd.errors import WgdError
from wgd.interface_name import check_interface_name
from wgd.net.namespaces import run_in_namespace
from wgd.net.netlink import has_packet_information

T = TypeVar("T")


# linux/if_tun.h and linux/sockios.h; the numbers are those of all but MIPS, PowerPC and SPARC.
IFF_TUN = 0x0001
IFF_VNET_HDR = 0x4000
TUNGETIFF = 0x800454D2
TUNSETOFFLOAD = 0x400454D0
TUNGETVNETHDRSZ = 0x800454D7
TUNGETDEVNETNS = 0x54E3
SIOCGIFMTU = 0x8921
SIOCSIFMTU = 0x8922
SIOCSIFTXQLEN = 0x8943

# Packets that wait for us to read them. With the kernel's 500 one busy TCP stream overflows the
# queue while we are not on a CPU, and a ping beside it is lost.
TX_QUEUE_LENGTH = 2000

PACKET_INFORMATION_IPV4 = struct.pack("!HH", 0, 0x0800)
PACKET_INFORMATION_IPV6 = struct.pack("!HH", 0, 0x86DD)

_IFREQ = struct.Struct("16s24x")
_IFREQ_FLAGS = struct.Struct("16sH22x")
_IFREQ_INT = struct.Struct("16si20x")


class LinuxTun:
    """One queue of a TUN device: the `Tun` of the data plane, and what the daemon asks of it.

    Reading and writing raise OSError: BlockingIOError when it is empty, EIO while the link is down
    and EBADFD once the device is deleted. Use `create` or `from_fd`; `close` gives it back.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self._fd = fd
        self._set_headers(b"", b"")

    def _set_headers(self, ipv4: bytes, ipv6: bytes) -> None:
        """Put these headers, of one size, before packets written; strip as much from those read."""
        self._header_size = len(ipv4)
        self._header_ipv4 = ipv4
        self._header_ipv6 = ipv6
        self._read_header = bytearray(self._header_size)

    @classmethod
    def create(cls, name: str) -> "LinuxTun":
        """Make the TUN interface `name` (or take over a persistent one) with the default MTU.

        Raises WgdError when the name cannot be had or TUN devices cannot be made here.
        """
        check_interface_name(name)
        try:
            device = pytun.TunTapDevice(name, flags=pytun.IFF_TUN | pytun.IFF_NO_PI)
        except OSError as error:  # pytun.Error is one
            raise WgdError(_explain_create(name, error)) from error
        # Our own duplicate is close-on-exec, which pytun's descriptor is not, and outlives it.
        fd = os.dup(device.fileno())
        real_name = str(device.name)
        device.close()
        return cls._prepare(cls(fd, real_name))

    @classmethod
    def from_fd(cls, fd: int) -> "LinuxTun":
        """Take over the TUN device behind `fd` (WG_TUN_FD) and set its MTU to the default.

        Segmentation offloads are switched off. Owns `fd` from now on, also when it fails.
        Raises WgdError when it is not the descriptor of a TUN device.
        """
        try:
            name, flags = _get_interface(fd)
            header_size = _get_vnet_header_size(fd) if flags & IFF_VNET_HDR else 0
        except OSError as error:
            _close_quietly(fd)
            if error.errno == errno.EBADFD:
                raise WgdError(
                    f"descriptor {fd} has no TUN interface: call TUNSETIFF on it first"
                ) from error
            raise WgdError(
                f"descriptor {fd} is not a TUN device ({error.strerror}): "
                "open /dev/net/tun and pass that"
            ) from error
        if not flags & IFF_TUN:
            _close_quietly(fd)
            raise WgdError(f"interface {name!r} of descriptor {fd} is a TAP device: pass a TUN")
        tun = cls(fd, name)
        try:
            # TUNGETIFF cannot tell: its IFF_NO_PI bit doubles as IFF_NOFILTER, which is always set.
            has_information = tun._where_it_is(lambda: has_packet_information(tun.current_name()))
        except OSError as error:
            tun.close()
            raise WgdError(f"cannot examine TUN interface {name!r}: {error.strerror}") from error
        zeros = bytes(header_size)
        tun._set_headers(
            (PACKET_INFORMATION_IPV4 if has_information else b"") + zeros,
            (PACKET_INFORMATION_IPV6 if has_information else b"") + zeros,
        )
        return cls._prepare(tun)

    @classmethod
    def _prepare(cls, tun: "LinuxTun") -> "LinuxTun":
        """Do what both kinds of birth need; closes the device when it fails."""
        try:
            os.set_blocking(tun.fileno(), False)
            os.set_inheritable(tun.fileno(), False)
            tun.set_mtu(DEFAULT_MTU)
            tun.set_tx_queue_length(TX_QUEUE_LENGTH)
        except OSError as error:
            tun.close()
            raise WgdError(
                f"cannot set up TUN interface {tun.name!r}: {error.strerror}"
                + (": run as root or with CAP_NET_ADMIN" if error.errno == errno.EPERM else "")
            ) from error
        return tun

    # -- packets -----------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor to wait on; -1 after `close`."""
        return self._fd

    def read_into(self, buffer: memoryview) -> int:
        """Read one IP packet (no link header) into `buffer` and return its length in bytes."""
        if not self._header_size:
            return os.readv(self._fd, (buffer,))
        return max(os.readv(self._fd, (self._read_header, buffer)) - self._header_size, 0)

    def write(self, packet: memoryview) -> None:
        """Write one IP packet (no link header)."""
        if not self._header_size:
            os.write(self._fd, packet)
            return
        is_ipv6 = len(packet) > 0 and packet[0] >> 4 == 6
        os.writev(self._fd, (self._header_ipv6 if is_ipv6 else self._header_ipv4, packet))

    def close(self) -> None:
        """Close the descriptor, once or more; an interface that is not persistent disappears."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    # -- the interface -----------------------------------------------------------------------------

    def current_name(self) -> str:
        """Return what the interface is called now. Raises OSError (EBADFD when it is deleted)."""
        return _get_interface(self._fd)[0]

    def is_gone(self) -> bool:
        """Return whether the interface was deleted, or this object closed."""
        try:
            _get_interface(self._fd)
        except (OSError, ValueError):
            return True
        return False

    def network_namespace(self) -> int:
        """Return a new descriptor of the network namespace the interface is in now.

        The caller closes it. Raises OSError: EBADFD when the interface is deleted, EPERM without
        CAP_NET_ADMIN, EINVAL before Linux 5.2.
        """
        fd = fcntl.ioctl(self._fd, TUNGETDEVNETNS)
        os.set_inheritable(fd, False)
        return fd

    def interface_index(self) -> int:
        """Return the index the interface has in its present namespace. Raises OSError."""
        return self._where_it_is(lambda: socket.if_nametoindex(self.current_name()))

    def mtu(self) -> int:
        """Return the MTU in bytes. Raises OSError."""

        def get() -> int:
            request = _IFREQ.pack(os.fsencode(self.current_name()))
            return int(_IFREQ_INT.unpack(_interface_ioctl(SIOCGIFMTU, request))[1])

        return self._where_it_is(get)

    def set_mtu(self, mtu: int) -> None:
        """Set the MTU in bytes. Raises WgdError when it is out of range, OSError otherwise."""
        if not 0 < mtu <= MAX_MTU:
            raise WgdError(f"MTU {mtu} is not in 1..{MAX_MTU}")

        def change() -> None:
            request = _IFREQ_INT.pack(os.fsencode(self.current_name()), mtu)
            _interface_ioctl(SIOCSIFMTU, request)

        self._where_it_is(change)

    def set_tx_queue_length(self, packets: int) -> None:
        """Set how many packets wait to be read before the kernel drops new ones. Raises OSError."""

        def change() -> None:
            request = _IFREQ_INT.pack(os.fsencode(self.current_name()), packets)
            _interface_ioctl(SIOCSIFTXQLEN, request)

        self._where_it_is(change)

    def _where_it_is(self, function: Callable[[], T]) -> T:
        """Call `function` in the interface's namespace: its name means nothing elsewhere."""
        try:
            namespace = self.network_namespace()
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL, errno.ENOTTY):
                raise
            return function()  # cannot be asked; it is ours unless somebody moved it
        try:
            return run_in_namespace(namespace, function)
        finally:
            os.close(namespace)


def _explain_create(name: str, error: OSError) -> str:
    """Say on one line what is wrong and how to mend it."""
    match error.errno:
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            cure = "/dev/net/tun is missing: modprobe tun, or in a container --device /dev/net/tun"
        case errno.EPERM | errno.EACCES:
            cure = "not permitted: run as root or with CAP_NET_ADMIN and access to /dev/net/tun"
        case errno.EBUSY:
            cure = "another process has that TUN interface open: end it or choose another name"
        case errno.EINVAL | errno.EEXIST:
            cure = "an interface of another kind has that name: delete it or choose another name"
        case _:
            cure = error.strerror or str(error)
    return f"cannot create TUN interface {name!r}: {cure}"


def _get_interface(fd: int) -> tuple[str, int]:
    """Return name and IFF_ flags of the interface behind a TUN descriptor. Raises OSError."""
    name, flags = _IFREQ_FLAGS.unpack(fcntl.ioctl(fd, TUNGETIFF, bytes(_IFREQ_FLAGS.size)))
    return os.fsdecode(name.rstrip(b"\0")), flags


def _get_vnet_header_size(fd: int) -> int:
    """Switch all offloads off, so that the header is always zero, and return its size in bytes."""
    fcntl.ioctl(fd, TUNSETOFFLOAD, 0)
    (size,) = struct.unpack("i", fcntl.ioctl(fd, TUNGETVNETHDRSZ, bytes(4)))
    return int(size)


def _interface_ioctl(request: int, argument: bytes) -> bytes:
    """Call an interface ioctl in the calling thread's network namespace. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        return fcntl.ioctl(any_socket.fileno(), request, argument)


def _close_quietly(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)
