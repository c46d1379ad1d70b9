"""Taking resources away from a process, and giving them back."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_new_descriptors(pid: int = 0) -> Iterator[None]:
    """Let a process (0: this one) open nothing more while this lasts: EMFILE, for any number.

    Not even in place of what it closes meanwhile: so a library's spare descriptor does not help.
    """
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    try:
        if pid == 0:
            try:
                os.close(os.open("/", os.O_RDONLY))
            except OSError:
                pass
            else:
                raise AssertionError("a descriptor below 3 was free")
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
