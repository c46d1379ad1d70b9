"""Taking resources away, descriptors or room on a disk, and giving them back."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.testbed.namespaces import run


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
        with suppress(ProcessLookupError):  # it may have ended
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_room_in_files(size: int) -> Iterator[None]:
    """Let this process write no file beyond `size` bytes: short writes, then EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Disk:
    """A file system of 256 KiB in memory, at `path`, that can be filled; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def __enter__(self) -> "Disk":
        self.path.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=256k,mode=755", "tmpfs", self.path)
        return self

    def __exit__(self, *_exception: object) -> None:
        run("umount", "--lazy", self.path)

    def fill(self) -> None:
        """Leave no room for a byte: ENOSPC."""
        with self._filler.open("ab", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(4096))
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    return

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink()
