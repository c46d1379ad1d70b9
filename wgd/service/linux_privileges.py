"""What Linux has to give privileges up; `wgd.service.privileges` says when and in which order."""

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

if sys.platform != "linux":  # what follows is skipped by mypy elsewhere
    raise ImportError("this module is for Linux")

from wgd.service import capabilities
from wgd.service.capabilities import Capabilities, Capability, SecureBits

KEPT: Final = capabilities.mask(
    Capability.NET_ADMIN,  # the TUN device, fwmark, buffers beyond the system's limit, netlink
    Capability.NET_BIND_SERVICE,  # a new listen port below 1024
    Capability.NET_BROADCAST,  # following the interface into another network namespace
)
"""The capabilities that the daemon goes on with, where it has them."""

# sys/mman.h; PowerPC, SPARC and Alpha have other numbers, and refuse these.
_MCL_CURRENT: Final = 1
_MCL_FUTURE: Final = 2
_MCL_ONFAULT: Final = 4  # Linux 4.4

_ROOT_MEANS_NOTHING: Final = (
    SecureBits.NOROOT
    | SecureBits.NOROOT_LOCKED
    | SecureBits.NO_SETUID_FIXUP
    | SecureBits.NO_SETUID_FIXUP_LOCKED
    | SecureBits.KEEP_CAPS_LOCKED
)


def forbid_tracing() -> None:
    """Let no other process of the same user read our memory; nor is there a core dump then.

    Raises OSError.
    """
    capabilities.prctl(capabilities.PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """Make set-user-id bits and file capabilities mean nothing to this thread. Raises OSError."""
    capabilities.prctl(capabilities.PR_SET_NO_NEW_PRIVS, 1)


def lock_memory() -> None:
    """Keep every page out of the swap space from its first use on. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def become(uid: int, gid: int, groups: Sequence[int]) -> None:
    """Change the user and the groups of all threads, and keep what is permitted to this one.

    The other threads have no capability then. Raises OSError.
    """
    capabilities.prctl(capabilities.PR_SET_KEEPCAPS, 1)
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def give_up_rest() -> None:
    """Leave the calling thread only what it has of KEPT, now and after an exec. Raises OSError."""
    present = capabilities.get_capabilities()
    kept = present.permitted & KEPT
    setpcap = present.permitted & capabilities.mask(Capability.SETPCAP)
    passed_on = kept & (capabilities.get_bounding() | present.inheritable)
    capabilities.set_capabilities(Capabilities(kept | setpcap, kept | setpcap, passed_on))
    if setpcap:
        # Without it, in some containers, it is no_new_privileges that keeps the rest away.
        capabilities.reduce_bounding(kept)
        bits = capabilities.prctl(capabilities.PR_GET_SECUREBITS) & ~SecureBits.KEEP_CAPS
        capabilities.prctl(capabilities.PR_SET_SECUREBITS, bits | _ROOT_MEANS_NOTHING)
        capabilities.set_capabilities(Capabilities(kept, kept, passed_on))
    capabilities.set_ambient(passed_on)


def threads_with_more(uid: int, gid: int, groups: Sequence[int]) -> list[str]:
    """Return the threads that are, or may do, more than this and KEPT, as the kernel says.

    Where there is no /proc, the calling thread alone is looked at.
    """
    wrong = []
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3:
        wrong.append("the calling thread")
    for status in sorted(Path("/proc/self/task").glob("*/status")):
        try:
            lines = status.read_text().splitlines()
        except OSError:  # it has ended
            continue
        fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        if (
            set(map(int, fields["Uid"])) != {uid}
            or set(map(int, fields["Gid"])) != {gid}
            or not set(map(int, fields["Groups"])) <= {gid, *groups}
            or (int(fields["CapPrm"][0], 16) | int(fields["CapInh"][0], 16)) & ~KEPT
        ):
            wrong.append(f"thread {status.parent.name}")
    return wrong


def permitted_in_words() -> str:
    """Return the names of the calling thread's capabilities, `none` if it has none."""
    return capabilities.names(capabilities.get_capabilities().permitted)
