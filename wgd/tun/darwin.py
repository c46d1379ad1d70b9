"""The TUN interface on macOS: a utun device, made through a kernel control, or taken over.

There is no device node. A datagram socket of the system family, connected to the control
`com.apple.net.utun_control`, *is* the interface: its unit gives the name, a datagram is a packet,
and when its last descriptor is closed the interface is gone. It cannot be renamed, deleted by
others or moved. Each packet carries its address family in front, as four big-endian bytes.

With the standard library alone: its `connect` knows control addresses. `pytun-pmd3` could make the
device too, but looks for a free number by trying (so it cannot tell "in use" from "not permitted"),
runs `ifconfig` for every MTU, takes over no descriptor and copies each packet. It would save the
fifteen lines of `_connect`.

Numbers and structures are those of xnu: bsd/sys/kern_control.h, bsd/net/if_utun.h, bsd/net/if.h.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
import struct
from typing import Final

from wgd.constants import DEFAULT_MTU, MAX_MTU
from wgd.errors import WgdError

UTUN_CONTROL_NAME: Final = b"com.apple.net.utun_control"

# Given as numbers: `socket` has the first two on macOS only, and tests run elsewhere.
PF_SYSTEM: Final = 32
SYSPROTO_CONTROL: Final = 2
UTUN_OPT_IFNAME: Final = 2
CTLIOCGINFO: Final = 0xC0644E03
SIOCGIFFLAGS: Final = 0xC0206911
SIOCGIFMTU: Final = 0xC0206933
SIOCSIFMTU: Final = 0x80206934
IFF_UP: Final = 0x1

HEADER_SIZE: Final = 4
HEADER_IPV4: Final = struct.pack("!I", 2)  # AF_INET
HEADER_IPV6: Final = struct.pack("!I", 30)  # AF_INET6, which is 30 on macOS only

_IFNAMSIZ: Final = 16
_CTL_INFO: Final = struct.Struct("=I96s")  # id, name
_IFREQ_INT: Final = struct.Struct("=16si12x")
_IFREQ_FLAGS: Final = struct.Struct("=16sH14x")

_NAME: Final = re.compile(r"utun(0|[1-9][0-9]{0,8})?", re.ASCII)


class DarwinTun:
    """A utun device: the `Tun` of the data plane, and what the daemon asks of it.

    Reading raises BlockingIOError when it is empty. Use `create` or `from_fd`; `close` deletes the
    interface, unless somebody else has the descriptor too.
    """

    def __init__(self, control: socket.socket, name: str) -> None:
        self.name = name
        self._control = control
        self._fd = control.fileno()
        self._read_header = bytearray(HEADER_SIZE)

    @classmethod
    def create(cls, name: str) -> "DarwinTun":
        """Make the utun interface `name`, or for `utun` one with a free number; MTU: the default.

        The interface is up from the start. Raises WgdError when the name cannot be had or utun
        devices cannot be made here.
        """
        unit = parse_unit(name)
        try:
            control = socket.socket(PF_SYSTEM, socket.SOCK_DGRAM, SYSPROTO_CONTROL)
        except OSError as error:
            raise WgdError(_explain_create(name, error)) from error
        try:
            real_name = _connect(control, unit)
        except OSError as error:
            control.close()
            raise WgdError(_explain_create(name, error)) from error
        return cls._prepare(cls(control, real_name))

    @classmethod
    def from_fd(cls, fd: int) -> "DarwinTun":
        """Take over the utun device behind `fd` (WG_TUN_FD) and set its MTU to the default.

        Owns `fd` from now on, also when it fails. Raises WgdError when it is not a utun device.
        """
        try:
            # Told, not asked: not every Python can ask for the kind of such a socket.
            control = socket.socket(PF_SYSTEM, socket.SOCK_DGRAM, SYSPROTO_CONTROL, fd)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise WgdError(f"descriptor {fd} is not a socket: {error.strerror}") from error
        try:
            name = _get_name(control)
        except OSError as error:
            control.close()
            raise WgdError(
                f"descriptor {fd} is not a utun device ({error.strerror}): connect it to the "
                f"kernel control {UTUN_CONTROL_NAME.decode()} first"
            ) from error
        return cls._prepare(cls(control, name))

    @classmethod
    def _prepare(cls, tun: "DarwinTun") -> "DarwinTun":
        """Do what both kinds of birth need; closes the device when it fails."""
        try:
            os.set_blocking(tun.fileno(), False)
            os.set_inheritable(tun.fileno(), False)
            tun.set_mtu(DEFAULT_MTU)
        except OSError as error:
            tun.close()
            raise WgdError(
                f"cannot set up utun interface {tun.name!r}: {error.strerror}"
                + (": run as root" if error.errno == errno.EPERM else "")
            ) from error
        return tun

    # -- packets -----------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor to wait on; -1 after `close`."""
        return self._fd

    def read_into(self, buffer: memoryview) -> int:
        """Read one IP packet (no link header) into `buffer` and return its length in bytes."""
        return max(os.readv(self._fd, (self._read_header, buffer)) - HEADER_SIZE, 0)

    def write(self, packet: memoryview) -> None:
        """Write one IP packet (no link header)."""
        is_ipv6 = len(packet) > 0 and packet[0] >> 4 == 6
        os.writev(self._fd, (HEADER_IPV6 if is_ipv6 else HEADER_IPV4, packet))

    def close(self) -> None:
        """Close the descriptor, once or more; the interface and its routes disappear."""
        self._fd = -1
        self._control.close()

    # -- the interface -----------------------------------------------------------------------------

    def interface_index(self) -> int:
        """Return the index of the interface. Raises OSError."""
        return socket.if_nametoindex(self.name)

    def is_up(self) -> bool:
        """Return whether the interface is administratively up. Raises OSError (ENXIO: gone)."""
        request = _IFREQ_FLAGS.pack(self.name.encode(), 0)
        return bool(_IFREQ_FLAGS.unpack(_interface_ioctl(SIOCGIFFLAGS, request))[1] & IFF_UP)

    def mtu(self) -> int:
        """Return the MTU in bytes. Raises OSError (ENXIO: the interface is gone)."""
        request = _IFREQ_INT.pack(self.name.encode(), 0)
        return int(_IFREQ_INT.unpack(_interface_ioctl(SIOCGIFMTU, request))[1])

    def set_mtu(self, mtu: int) -> None:
        """Set the MTU in bytes. Raises WgdError when it is out of range, OSError otherwise."""
        if not 0 < mtu <= MAX_MTU:
            raise WgdError(f"MTU {mtu} is not in 1..{MAX_MTU}")
        _interface_ioctl(SIOCSIFMTU, _IFREQ_INT.pack(self.name.encode(), mtu))


def parse_unit(name: str) -> int:
    """Return the unit of the kernel control that makes the interface `name`; 0: any free one.

    Raises WgdError for a name that macOS cannot give.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise WgdError(
            f"interface name {name!r} is not possible on macOS: use utun for any free number, or "
            "utun and a number, such as utun7"
        )
    return int(match[1]) + 1 if match[1] else 0


def _connect(control: socket.socket, unit: int) -> str:
    """Make the interface of `unit` and return its name. Raises OSError."""
    answer = fcntl.ioctl(control.fileno(), CTLIOCGINFO, _CTL_INFO.pack(0, UTUN_CONTROL_NAME))
    control_id, _name = _CTL_INFO.unpack(answer)
    control.connect((control_id, unit))
    return _get_name(control)


def _get_name(control: socket.socket) -> str:
    """Return the name of the interface behind a connected control. Raises OSError."""
    return control.getsockopt(SYSPROTO_CONTROL, UTUN_OPT_IFNAME, _IFNAMSIZ).rstrip(b"\0").decode()


def _interface_ioctl(request: int, argument: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return fcntl.ioctl(any_socket.fileno(), request, argument)


def _explain_create(name: str, error: OSError) -> str:
    """Say on one line what is wrong and how to mend it."""
    match error.errno:
        case errno.EPERM | errno.EACCES:
            cure = "not permitted: run as root"
        case errno.EBUSY:
            cure = "that number is in use: choose another, or utun for any free one"
        case errno.ENOENT | errno.EPROTONOSUPPORT | errno.EAFNOSUPPORT:
            cure = "this system has no utun devices"
        case _:
            cure = error.strerror or str(error)
    return f"cannot create utun interface {name!r}: {cure}"
