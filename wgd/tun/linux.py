"""The TUN interface on Linux: made through `pytun`, or taken over from a parent by descriptor.

The device may be renamed and moved to another network namespace while we hold its descriptor; the
descriptor goes on working. So nothing but `name` (what it was called when we got it) is remembered:
name, namespace, index and MTU are asked of the kernel, in the namespace where the device now is.

There may be headers before each packet. In the order the kernel has them:

    packet information (4 bytes: flags, EtherType), unless made with IFF_NO_PI
    virtio-net header (10 bytes or more; all zero without offloads), if IFF_VNET_HDR
    the IP packet

With offloads on, a packet may be up to 64 KiB of one flow that the virtio-net header tells how to
cut, and its checksum may be left to us: that is for the native data plane alone.

A device of several queues keeps a flow on one: on the one that the flow's other direction was last
written to, and until there is such a one on that which a hash gives. So a flow may change its queue
once, when its first answer comes.
"""

import contextlib
import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

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
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO6 = 0x04
TUN_F_TSO_ECN = 0x08
TUN_F_USO4 = 0x20
TUN_F_USO6 = 0x40
TUNGETIFF = 0x800454D2
TUNSETOFFLOAD = 0x400454D0
TUNGETVNETHDRSZ = 0x800454D7
TUNGETDEVNETNS = 0x54E3
SIOCGIFMTU = 0x8921
SIOCSIFMTU = 0x8922
SIOCSIFTXQLEN = 0x8943

# From all we can use down to none; what a kernel does not know it refuses whole. UDP segmentation
# (USO) came with Linux 6.2.
_TCP_OFFLOADS: Final = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
_OFFLOADS: Final = (
    _TCP_OFFLOADS | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6,
    _TCP_OFFLOADS | TUN_F_TSO_ECN,
    _TCP_OFFLOADS,
    TUN_F_CSUM,
    0,
)

# Packets that wait for us to read them. With the kernel's 500 one busy TCP stream overflows the
# queue while we are not on a CPU, and a ping beside it is lost.
TX_QUEUE_LENGTH = 2000

PACKET_INFORMATION_IPV4 = struct.pack("!HH", 0, 0x0800)
PACKET_INFORMATION_IPV6 = struct.pack("!HH", 0, 0x86DD)

_IFREQ = struct.Struct("16s24x")
_IFREQ_FLAGS = struct.Struct("16sH22x")
_IFREQ_INT = struct.Struct("16si20x")


class LinuxTun:
    """A TUN device: the `Tun` of the data plane, what the native one starts on (`QueuedTun`), and
    what the daemon asks of it.

    Reading and writing, on the first queue, raise OSError: BlockingIOError when it is empty, EIO
    while the link is down and EBADFD once the device is deleted. Use `create` or `from_fd`; `close`
    gives it back.
    """

    def __init__(self, queue_fds: Sequence[int], name: str) -> None:
        self.name = name
        self.queue_fds = tuple(queue_fds)
        self._fd = self.queue_fds[0]
        self._has_offloads = False
        self.segmentation: tuple[str, ...] = ()
        """What the kernel leaves to us to cut: of "tun_tso" (TCP) and "tun_uso" (UDP)."""
        self._set_headers(has_packet_information=False, virtio_header_size=0)

    def _set_headers(self, *, has_packet_information: bool, virtio_header_size: int) -> None:
        """Put these headers before packets written; strip as much from those read."""
        self.has_packet_information = has_packet_information
        self.virtio_header_size = virtio_header_size
        zeros = bytes(virtio_header_size)
        self._header_ipv4 = (PACKET_INFORMATION_IPV4 if has_packet_information else b"") + zeros
        self._header_ipv6 = (PACKET_INFORMATION_IPV6 if has_packet_information else b"") + zeros
        self._header_size = len(self._header_ipv4)
        self._read_header = bytearray(self._header_size)

    @property
    def needs_native(self) -> bool:
        """Whether only the native data plane can use it: it has offloads or several queues."""
        return self._has_offloads or len(self.queue_fds) > 1

    @classmethod
    def create(cls, name: str, *, queues: int = 1, offload: bool = False) -> "LinuxTun":
        """Make the TUN interface `name` with the default MTU.

        With one queue, a persistent interface is taken over if nobody has it open. `offload`
        switches on what this kernel can; it may be nothing. Raises WgdError when the name cannot be
        had or TUN devices cannot be made here.
        """
        check_interface_name(name)
        flags = pytun.IFF_TUN | pytun.IFF_NO_PI
        try:
            try:
                fds, real_name = _open_queues(name, flags | IFF_VNET_HDR * offload, queues)
            except OSError as error:
                if not (offload and error.errno == errno.EINVAL):
                    raise
                # An old kernel without these headers, or it will fail again.
                fds, real_name = _open_queues(name, flags, queues)
                offload = False
        except OSError as error:  # pytun.Error is one
            raise WgdError(_explain_create(name, queues, error)) from error
        tun = cls(fds, real_name)
        tun._prepare(has_virtio_header=offload, offload=offload)
        return tun

    @classmethod
    def from_fd(cls, fd: int, *, offload: bool = False) -> "LinuxTun":
        """Take over the TUN device behind `fd` (WG_TUN_FD) and set its MTU to the default.

        Offloads are switched off, or with `offload` on if it has virtio-net headers. Owns `fd` from
        now on, also when it fails. Raises WgdError when it is not the descriptor of a TUN device.
        """
        return cls._adopt((fd,), offload=offload, is_restored=False)

    @classmethod
    def restore(cls, fds: Sequence[int], *, offload: bool = False) -> "LinuxTun":
        """Take over the TUN device that a wgd before us had open as `fds`, one a queue, as it is.

        Its MTU and the length of its queue stay. Otherwise as `from_fd`.
        """
        return cls._adopt(fds, offload=offload, is_restored=True)

    @classmethod
    def _adopt(cls, fds: Sequence[int], *, offload: bool, is_restored: bool) -> "LinuxTun":
        try:
            name, flags = _check_queues(fds)
        except WgdError:
            _close_quietly(*fds)
            raise
        tun = cls(fds, name)
        try:
            # TUNGETIFF cannot tell: its IFF_NO_PI bit doubles as IFF_NOFILTER, which is always set.
            has_information = tun._where_it_is(lambda: has_packet_information(tun.current_name()))
        except OSError as error:
            tun.close()
            raise WgdError(f"cannot examine TUN interface {name!r}: {error.strerror}") from error
        tun._prepare(
            has_virtio_header=bool(flags & IFF_VNET_HDR),
            offload=offload,
            has_packet_information=has_information,
            is_restored=is_restored,
        )
        return tun

    def _prepare(
        self,
        *,
        has_virtio_header: bool,
        offload: bool,
        has_packet_information: bool = False,
        is_restored: bool = False,
    ) -> None:
        """Do what both kinds of birth need; closes the device and raises WgdError when it fails."""
        try:
            for fd in self.queue_fds:
                os.set_blocking(fd, False)
                os.set_inheritable(fd, False)
            self._set_headers(
                has_packet_information=has_packet_information,
                virtio_header_size=_get_virtio_header_size(self._fd) if has_virtio_header else 0,
            )
            # Off also where they were never on: who had a persistent device before may have.
            wanted = _OFFLOADS if offload and has_virtio_header else (0,)
            offloads = _switch_offloads(self._fd, wanted)
            self._has_offloads = offloads != 0
            self.segmentation = tuple(
                name
                for name, flag in (("tun_tso", TUN_F_TSO4), ("tun_uso", TUN_F_USO4))
                if offloads & flag
            )
            if not is_restored:
                self.set_mtu(DEFAULT_MTU)
                self.set_tx_queue_length(TX_QUEUE_LENGTH)
        except OSError as error:
            self.close()
            raise WgdError(
                f"cannot set up TUN interface {self.name!r}: {error.strerror}"
                + (": run as root or with CAP_NET_ADMIN" if error.errno == errno.EPERM else "")
            ) from error

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
        """Close the descriptors, once or more; an interface that is not persistent disappears."""
        fds, self.queue_fds, self._fd = self.queue_fds, (), -1
        for fd in fds:
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


def _open_queues(name: str, flags: int, queues: int) -> tuple[list[int], str]:
    """Make the interface with this many queues; return their descriptors and its real name.

    Raises OSError (EBUSY: others have it open, or several queues are wanted of one that exists).
    """
    # Any number of processes may open a device of several queues: only a new one is ours alone.
    first = flags | (pytun.IFF_MULTI_QUEUE | pytun.IFF_TUN_EXCL if queues > 1 else 0)
    fds: list[int] = []
    try:
        real_name = _open_queue(name, first, fds)
        for _ in range(queues - 1):
            _open_queue(real_name, flags | pytun.IFF_MULTI_QUEUE, fds)
    except OSError:
        _close_quietly(*fds)
        raise
    return fds, real_name


def _open_queue(name: str, flags: int, fds: list[int]) -> str:
    """Add the descriptor of a new queue to `fds`; return the real name. Raises OSError."""
    device = pytun.TunTapDevice(name, flags=flags)
    # Our own duplicate is close-on-exec, which pytun's descriptor is not, and outlives it.
    fds.append(os.dup(device.fileno()))
    real_name = str(device.name)
    device.close()
    return real_name


def _explain_create(name: str, queues: int, error: OSError) -> str:
    """Say on one line what is wrong and how to mend it."""
    match error.errno:
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            cure = "/dev/net/tun is missing: modprobe tun, or in a container --device /dev/net/tun"
        case errno.EPERM | errno.EACCES:
            cure = "not permitted: run as root or with CAP_NET_ADMIN and access to /dev/net/tun"
        case errno.EBUSY if queues > 1:
            cure = "it exists, but several workers need a new one: end it or choose another name"
        case errno.EBUSY:
            cure = "another process has that TUN interface open: end it or choose another name"
        case errno.EINVAL | errno.EEXIST:
            cure = (
                "an interface of another kind, or a TUN of several queues, has that name: "
                "delete it or choose another name"
            )
        case _:
            cure = error.strerror or str(error)
    return f"cannot create TUN interface {name!r}: {cure}"


def _check_queues(fds: Sequence[int]) -> tuple[str, int]:
    """Return name and IFF_ flags of the one TUN interface behind descriptors. Raises WgdError."""
    found = {_examine(fd) for fd in fds}
    if len(found) != 1:
        names = ", ".join(sorted(name for name, _ in found))
        raise WgdError(f"descriptors {list(fds)} are of several interfaces: {names}")
    return found.pop()


def _examine(fd: int) -> tuple[str, int]:
    try:
        name, flags = _get_interface(fd)
    except OSError as error:
        if error.errno == errno.EBADFD:
            raise WgdError(
                f"descriptor {fd} has no TUN interface: call TUNSETIFF on it first"
            ) from error
        raise WgdError(
            f"descriptor {fd} is not a TUN device ({error.strerror}): "
            "open /dev/net/tun and pass that"
        ) from error
    if not flags & IFF_TUN:
        raise WgdError(f"interface {name!r} of descriptor {fd} is a TAP device: pass a TUN")
    return name, flags


def is_deleted(fd: int) -> bool:
    """Whether `fd` is of a TUN device whose interface was deleted."""
    try:
        _get_interface(fd)
    except OSError as error:
        return error.errno == errno.EBADFD
    return False


def _get_interface(fd: int) -> tuple[str, int]:
    """Return name and IFF_ flags of the interface behind a TUN descriptor. Raises OSError."""
    name, flags = _IFREQ_FLAGS.unpack(fcntl.ioctl(fd, TUNGETIFF, bytes(_IFREQ_FLAGS.size)))
    return os.fsdecode(name.rstrip(b"\0")), flags


def _switch_offloads(fd: int, wanted: Sequence[int]) -> int:
    """Switch on the first of these sets (TUN_F_) that the kernel takes, and off what is not in it.

    Returns that set. Raises OSError when it takes none.
    """
    for number, offloads in enumerate(wanted, start=1):
        try:
            fcntl.ioctl(fd, TUNSETOFFLOAD, offloads)
        except OSError as error:
            if error.errno != errno.EINVAL or number == len(wanted):
                raise
        else:
            return offloads
    return 0


def _get_virtio_header_size(fd: int) -> int:
    """Return how many bytes each packet's virtio-net header has. Raises OSError."""
    (size,) = struct.unpack("i", fcntl.ioctl(fd, TUNGETVNETHDRSZ, bytes(4)))
    return int(size)


def _interface_ioctl(request: int, argument: bytes) -> bytes:
    """Call an interface ioctl in the calling thread's network namespace. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        return fcntl.ioctl(any_socket.fileno(), request, argument)


def _close_quietly(*fds: int) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
