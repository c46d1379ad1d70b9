"""Run a function in another network namespace, without ever leaving ours.

A namespace belongs to a thread, and what a thread opens (a socket, an interface) stays in the
namespace it was opened in. So a short-lived helper thread enters the namespace, does the work and
ends; the calling thread never moves, and there is nothing to move back.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000


def is_own_namespace(namespace_fd: int) -> bool:
    """Return whether the calling thread is in the network namespace of this descriptor.

    False when it cannot be told (no /proc).
    """
    try:
        own = Path("/proc/thread-self/ns/net").stat()
    except OSError:
        return False
    return os.path.samestat(os.fstat(namespace_fd), own)


def run_in_namespace(namespace_fd: int, function: Callable[[], T]) -> T:
    """Call `function` in the network namespace of this descriptor and return what it returns.

    Blocks until the function is done. Raises what the function raises, and OSError when the
    namespace cannot be entered (another one than ours needs CAP_SYS_ADMIN).
    """
    if is_own_namespace(namespace_fd):
        return function()

    def enter_and_call() -> T:
        _enter(namespace_fd)
        return function()

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="wgd-netns") as helper:
        return helper.submit(enter_and_call).result()


def _enter(namespace_fd: int) -> None:
    """Move the calling thread. os.setns exists from Python 3.12 on only."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace_fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "network namespace")
