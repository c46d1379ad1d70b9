"""The configuration of a running tunnel in a descriptor, for the program that comes after us.

It lives in memory only (a memfd): keys are in it. A service manager keeps a copy of the descriptor,
so it outlives a crash; an upgrade hands it over. What it holds is what a client would have to say
on the UAPI socket to configure the tunnel anew:

    bytes 0..15   magic, and where the messages begin
    messages      a whole snapshot first, then every change since, each ended by a blank line

A change is one write at the end, after it was applied and before its client is answered. A message
that was cut off has no end, and does not count. When the changes have outgrown the snapshot, a new
one is written behind them with a gap, then the beginning is moved in one write, and what is before
it is given back. So whenever the daemon is killed, what is there is whole.

`wgd.service.recorder` says what the messages are.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import sys
from typing import Final

from wgd.errors import WgdError

_HEADER: Final = struct.Struct("=8sQ")
_MAGIC: Final = b"wgd st 1"
_END: Final = b"\n\n"
_F_GET_SEALS: Final = 1034  # linux/fcntl.h; Python has it from 3.12 on
_PUNCH_HOLE: Final = 0x01 | 0x02  # linux/falloc.h: and keep the size


class StateFile:
    """Messages in a memfd. Its methods raise OSError when there is no memory."""

    def __init__(self, fd: int, begin: int, end: int) -> None:
        self._fd = fd
        self._begin = begin
        self._end = end

    @classmethod
    def create(cls) -> "StateFile":
        """Make an empty one."""
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        fd = os.memfd_create("wgd-state", os.MFD_CLOEXEC)
        os.pwrite(fd, _HEADER.pack(_MAGIC, _HEADER.size), 0)
        return cls(fd, _HEADER.size, _HEADER.size)

    @classmethod
    def adopt(cls, fd: int) -> "StateFile":
        """Use one that a wgd before us has made. Raises WgdError if it is something else."""
        try:
            fcntl.fcntl(fd, _F_GET_SEALS)  # which only a memfd has
            header = os.pread(fd, _HEADER.size, 0)
            size = os.fstat(fd).st_size
        except OSError as error:
            raise WgdError(f"descriptor {fd} is not a memfd: {error.strerror}") from error
        magic, begin = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0)
        if magic != _MAGIC or not _HEADER.size <= begin <= size:
            raise WgdError(f"descriptor {fd} does not hold the state of a wgd")
        state = cls(fd, begin, begin)
        # What comes next goes behind the last whole message.
        state._end = begin + len(_whole(os.pread(fd, size - begin, begin)))
        os.ftruncate(fd, state._end)
        return state

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    @property
    def size(self) -> int:
        """Bytes of all messages."""
        return self._end - self._begin

    def read(self) -> bytes:
        """Return all messages."""
        return os.pread(self._fd, self.size, self._begin)

    def append(self, messages: bytes) -> None:
        """Add whole messages."""
        self._write(messages, self._end)
        self._end += len(messages)

    def replace(self, messages: bytes) -> None:
        """Forget all messages in favour of these; at no moment are there neither."""
        begin = (
            self._end // mmap.PAGESIZE + 1
        ) * mmap.PAGESIZE  # never without a gap, see `_whole`
        self._write(messages, begin)
        os.pwrite(self._fd, _HEADER.pack(_MAGIC, begin), 0)
        self._begin, self._end = begin, begin + len(messages)
        # What is before it goes: whole pages to the system, the rest of the header's in zeros.
        os.pwrite(self._fd, bytes(mmap.PAGESIZE - _HEADER.size), _HEADER.size)
        if begin > mmap.PAGESIZE:
            _punch_hole(self._fd, mmap.PAGESIZE, begin - mmap.PAGESIZE)

    def _write(self, messages: bytes, offset: int) -> None:
        """Write behind the end, all or nothing: a part could be taken for messages later."""
        written = 0
        try:
            written = os.pwrite(self._fd, messages, offset)
        finally:
            if written != len(messages):
                os.ftruncate(self._fd, self._end)
        if written != len(messages):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _whole(messages: bytes) -> bytes:
    """Return `messages` up to the end of the last whole one.

    A gap, of zeros, separates them from others that were to replace them: those do not count.
    """
    messages = messages.partition(b"\0")[0]
    end = messages.rfind(_END)
    return messages[: end + len(_END)] if end >= 0 else b""


def _punch_hole(fd: int, offset: int, size: int) -> None:
    """Give the memory of a part of the file back to the system; later reads give zeros."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.fallocate64(fd, _PUNCH_HOLE, ctypes.c_int64(offset), ctypes.c_int64(size))
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
