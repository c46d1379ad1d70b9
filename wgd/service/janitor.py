"""A tiny process that stays root to remove the socket files of a daemon that does not.

An unprivileged daemon cannot change root's directory, yet no dead socket may stay there, also after
`kill -9`. So before the daemon gives root up it forks this: it waits for the daemon's end, removes
the files it was told of, and ends.

The daemon may be broken into; then it must not move root's hand. The janitor takes one list of
files, while the daemon is still root; what comes later it does not look at. It removes a file only
if that is a socket and the same one, and it can do nothing else: of root's capabilities it has at
most the one that passes over a directory's permissions.
"""

import contextlib
import os
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import Final, NamedTuple

if sys.platform == "linux":
    from wgd.service import capabilities
    from wgd.service.capabilities import Capabilities, Capability

NAME: Final = "wgd-janitor"
"""What the process is called in /proc/PID/comm, and by `ps -c`."""

_FINISH_SECONDS: Final = 1.0
_SIZE_BYTES: Final = 4  # how long the list is, big-endian, comes before it
_CHUNK: Final = 65_536
_MANY_DESCRIPTORS: Final = 65_536  # where the system names no limit


class Janitor:
    """The daemon's side: `start`, `watch` once, and at an orderly end `finish`.

    The daemon's end by any other way, `kill -9` for one, is noticed by the janitor itself. An exec
    keeps it if its descriptor (`fileno`) is inherited; the new program takes it over by `adopt`.
    """

    def __init__(self, sock: socket.socket, *, pid: int | None, is_told: bool) -> None:
        self._socket = sock
        self._pid = pid
        self._is_told = is_told

    @classmethod
    def start(cls) -> "Janitor":
        """Fork it. Call this before there are threads or an event loop. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # What ends or stops the daemon's process group is not for the janitor: who would remove the
        # files? It is born with all signals blocked, as one may come before its first instruction.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    _serve(theirs.detach())
                    status = 0
                finally:
                    os._exit(status)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        return cls(ours, pid=pid, is_told=False)

    @classmethod
    def adopt(cls, fd: int) -> "Janitor":
        """Take over the janitor that this process had before an exec. Raises OSError."""
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        return cls(sock, pid=None, is_told=True)

    def fileno(self) -> int:
        """Return the descriptor by which it notices our end; -1 after `finish`."""
        return self._socket.fileno()

    def release(self) -> int:
        """Return the descriptor, which is the caller's from now on: for a successor to `adopt`."""
        return self._socket.detach()

    def watch(self, *paths: Path) -> None:
        """Have the socket files that are at these absolute paths now removed when we end.

        A file that is not there, or is replaced later, is left alone. Call it once, before the
        change of user, also without any paths: the first list is the only one that is taken. Raises
        RuntimeError for another, OSError when the janitor is gone.
        """
        if self._is_told:
            raise RuntimeError("the janitor has its list of files")
        self._is_told = True
        files = b""
        for path in paths:
            with contextlib.suppress(OSError):
                status = path.lstat()
                files += _File(os.fsencode(path), status.st_dev, status.st_ino).encode()
        self._socket.sendall(len(files).to_bytes(_SIZE_BYTES, "big") + files)

    def finish(self) -> None:
        """Have the files removed now, and wait for that, but not for ever. May be called again."""
        if self._socket.fileno() < 0:
            return
        with contextlib.suppress(OSError), self._socket:
            self._socket.settimeout(_FINISH_SECONDS)
            self._socket.shutdown(socket.SHUT_WR)
            self._socket.recv(1)  # it never writes: this is its end
            if self._pid is not None:
                os.waitpid(self._pid, 0)


class _File(NamedTuple):
    """A file as it was when the janitor was told of it."""

    path: bytes
    device: int
    inode: int

    def encode(self) -> bytes:
        return b"%d %d %s\0" % (self.device, self.inode, self.path)

    @classmethod
    def decode(cls, record: bytes) -> "_File":
        device, inode, path = record.split(b" ", 2)
        return cls(path, int(device), int(inode))

    def remove(self) -> None:
        """Unlink it if it is still the same socket. Raises OSError."""
        directory, name = os.path.split(self.path)
        # The directory is opened once, so that nobody can put another in its place in between.
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            is_same = (status.st_dev, status.st_ino) == (self.device, self.inode)
            if is_same and stat.S_ISSOCK(status.st_mode):
                os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)


# -- the other process -----------------------------------------------------------------------------


def _serve(fd: int) -> None:
    """Be the janitor: take the list from `fd`, wait for the end of file, remove them, return."""
    os.dup2(fd, 0)  # the only descriptor that stays
    maximum = os.sysconf("SC_OPEN_MAX")
    os.closerange(1, maximum if maximum > 0 else _MANY_DESCRIPTORS)
    os.chdir("/")
    if sys.platform == "linux":
        _keep_little()
    files = _receive()
    while os.read(0, _CHUNK):
        pass  # nothing else is listened to
    for file in files:
        with contextlib.suppress(OSError):
            file.remove()


def _receive() -> list[_File]:
    """Return the list of files; empty if the daemon ends before it has sent it."""
    size = int.from_bytes(_read(_SIZE_BYTES), "big")
    records = _read(size)
    if len(records) < size:
        return []
    return [_File.decode(record) for record in records.split(b"\0") if record]


def _read(size: int) -> bytes:
    """Read that many bytes, less only at the end of file."""
    received = b""
    while len(received) < size and (data := os.read(0, size - len(received))):
        received += data
    return received


if sys.platform == "linux":

    def _keep_little() -> None:
        """Give up all that it takes no root for; what cannot be given up stays."""
        with contextlib.suppress(OSError):
            capabilities.set_thread_name(NAME)
            capabilities.prctl(capabilities.PR_SET_NO_NEW_PRIVS, 1)
            permitted = capabilities.get_capabilities().permitted
            kept = permitted & capabilities.mask(Capability.DAC_OVERRIDE)
            capabilities.set_capabilities(Capabilities(kept, kept, inheritable=0))
