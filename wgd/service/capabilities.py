"""What Linux lets a thread do: its capabilities and a few of its attributes, through libc.

capabilities(7), capget(2), prctl(2). All of it belongs to the calling thread, and threads that it
makes later inherit it. The packages for this are unmaintained, or need a compiler and the headers
of libcap; what is used here are three functions that every libc has.
"""

import contextlib
import ctypes
import os
import sys
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

if sys.platform != "linux":  # what follows is skipped by mypy elsewhere
    raise ImportError("this module is for Linux")


class Capability(IntEnum):
    """The capabilities that wgd knows by name (linux/capability.h)."""

    DAC_OVERRIDE = 1
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_BROADCAST = 11
    NET_ADMIN = 12


class SecureBits(IntFlag):
    """What user id 0 still means to a thread (linux/securebits.h); `_LOCKED` ones stay for good."""

    NOROOT = 1 << 0
    NOROOT_LOCKED = 1 << 1
    NO_SETUID_FIXUP = 1 << 2
    NO_SETUID_FIXUP_LOCKED = 1 << 3
    KEEP_CAPS = 1 << 4
    KEEP_CAPS_LOCKED = 1 << 5


class Capabilities(NamedTuple):
    """The sets of a thread, each with bit N for capability N."""

    effective: int
    permitted: int
    inheritable: int


PR_SET_DUMPABLE: Final = 4
PR_GET_KEEPCAPS: Final = 7
PR_SET_KEEPCAPS: Final = 8
PR_SET_NAME: Final = 15
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_GET_SECUREBITS: Final = 27
PR_SET_SECUREBITS: Final = 28
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_IS_SET: Final = 1
PR_CAP_AMBIENT_RAISE: Final = 2
PR_CAP_AMBIENT_LOWER: Final = 3

_VERSION_3: Final = 0x20080522
_MAX_CAPABILITIES: Final = 64  # bits in the two words of a set; the kernel has about forty


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    """One word (32 capabilities) of each set."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, *arguments: int) -> int:
    """Call prctl(2) and return its value. Raises OSError."""
    # All five at full width: the kernel refuses some options if an unused one is not zero.
    words = [*arguments, 0, 0, 0, 0][:4]
    return _checked(_libc.prctl(ctypes.c_int(option), *map(ctypes.c_ulong, words)))


def set_thread_name(name: str) -> None:
    """Name the calling thread; of the first thread this is what `ps` calls the process."""
    text = ctypes.create_string_buffer(name.encode())
    prctl(PR_SET_NAME, ctypes.addressof(text))


def mask(*capabilities: Capability) -> int:
    """Return the set of these."""
    return sum(1 << capability for capability in capabilities)


def names(capabilities: int) -> str:
    """Return a set in words, `net_admin,net_broadcast`, `none` if it is empty."""
    known = {int(capability): capability.name.lower() for capability in Capability}
    numbers = [number for number in range(_MAX_CAPABILITIES) if capabilities >> number & 1]
    return ",".join(known.get(number, str(number)) for number in numbers) or "none"


def get_capabilities() -> Capabilities:
    """Return the sets of the calling thread. Raises OSError."""
    data = (_Data * 2)()
    _checked(_libc.capget(ctypes.byref(_Header(_VERSION_3, 0)), data))
    low, high = data
    return Capabilities(
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def set_capabilities(sets: Capabilities) -> None:
    """Give the calling thread these sets; permitted can only shrink. Raises OSError (EPERM)."""
    words = [[word & 0xFFFFFFFF for word in sets], [word >> 32 for word in sets]]
    data = (_Data * 2)(*(_Data(*each) for each in words))
    _checked(_libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), data))


def get_ambient() -> int:
    """Return the set that exec passes on without privileges of the file's. Empty before 4.3."""
    ambient = 0
    with contextlib.suppress(OSError):  # EINVAL behind the last one the kernel knows
        for number in range(_MAX_CAPABILITIES):
            ambient |= prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, number) << number
    return ambient


def set_ambient(capabilities: int) -> None:
    """Make that set this one, which must be permitted and inheritable. Raises OSError."""
    present = get_ambient()
    for number in range(_MAX_CAPABILITIES):
        wanted = capabilities >> number & 1
        if wanted != present >> number & 1:
            action = PR_CAP_AMBIENT_RAISE if wanted else PR_CAP_AMBIENT_LOWER
            prctl(PR_CAP_AMBIENT, action, number)


def get_bounding() -> int:
    """Return the set beyond which no exec ever gives anything."""
    bounding = 0
    with contextlib.suppress(OSError):  # EINVAL behind the last one the kernel knows
        for number in range(_MAX_CAPABILITIES):
            bounding |= prctl(PR_CAPBSET_READ, number) << number
    return bounding


def reduce_bounding(capabilities: int) -> None:
    """Take all but these out of that set, for good. Raises OSError: EPERM without CAP_SETPCAP."""
    present = get_bounding()
    for number in range(_MAX_CAPABILITIES):
        if present >> number & 1 and not capabilities >> number & 1:
            prctl(PR_CAPBSET_DROP, number)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
