"""The socket file of one interface: create it, take over a dead one, watch it, remove it.

Creating it, in steps: 1 see whether NAME.sock is there and alive; 2 bind under a temporary name;
3 listen; 4 rename onto NAME.sock. So the file is never there without somebody listening: `wg`
deletes a socket that refuses a connection. What is ours is told by device and inode, not by name.
"""

import asyncio
import errno
import logging
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from wgd.errors import WgdError
from wgd.interface_name import check_interface_name

logger = logging.getLogger(__name__)

BACKLOG: Final = 1024
"""Connections waiting to be accepted. On BSD a full backlog looks like a dead socket, and `wg`
deletes those."""

SUN_PATH_SIZE: Final = 108 if sys.platform == "linux" else 104
"""Bytes of `sun_path`, the terminating NUL included."""

_SUFFIX: Final = ".sock"
_TEMPORARY_DIGITS: Final = 4
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz-"


class FileWatch(Protocol):
    """A running watch of a file."""

    def close(self) -> None:
        """Stop watching; may be called again."""


class SocketFile:
    """A listening unix socket and the file that clients find it by.

    Whoever accepts on `sock` closes it. Call `remove` before, so that no client finds a dead file.
    """

    def __init__(self, sock: socket.socket, path: Path, identity: tuple[int, int]) -> None:
        self.sock = sock
        self.path = path
        self._identity = identity
        self._watch: FileWatch | None = None

    @classmethod
    def create(cls, directory: Path, interface_name: str) -> "SocketFile":
        """Listen on `directory`/`interface_name`.sock, readable and writable by the owner only.

        The directory is made when missing. Raises WgdError: a bad name, a path too long, a socket
        in use, something there that is not a socket, or the system's refusal.
        """
        check_interface_name(interface_name)
        path = directory.absolute() / f"{interface_name}{_SUFFIX}"
        temporary = path.with_name(_temporary_name(interface_name))
        _check_length(path)
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _check_free(path)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise _refused(path, error) from error
        try:
            # Only a predecessor with our process id can have left it.
            temporary.unlink(missing_ok=True)
            _bind_private(sock, temporary)
            identity = _identity(temporary)
            sock.listen(BACKLOG)
            sock.setblocking(False)
            temporary.rename(path)
        except BaseException as error:
            sock.close()
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise _refused(path, error) from error
            raise
        return cls(sock, path, identity)

    @classmethod
    def from_fd(cls, fd: int) -> "SocketFile":
        """Adopt `fd`, a bound unix stream socket that somebody opened for us (WG_UAPI_FD).

        Raises WgdError when it is something else or its file is gone.
        """
        try:
            sock = socket.socket(fileno=fd)
        except OSError as error:
            raise WgdError(f"descriptor {fd} is not a socket: {error.strerror}") from error
        try:
            path = _path_of(sock)
            identity = _identity(path)
            sock.listen(BACKLOG)
            sock.setblocking(False)
            sock.set_inheritable(False)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise WgdError(f"descriptor {fd} cannot be used: {error}") from error
            raise
        return cls(sock, path, identity)

    def is_ours(self) -> bool:
        """Whether the file at `path` is still the one that was put there."""
        try:
            return _identity(self.path) == self._identity
        except OSError:
            return False

    def watch(self, loop: asyncio.AbstractEventLoop, on_gone: Callable[[], None]) -> None:
        """Call `on_gone` once from `loop` when the file is deleted, renamed away or replaced.

        A change of mode or owner is none of these, and neither is `remove`. Raises WgdError.
        """

        def check() -> None:
            if self._watch is not None and not self.is_ours():
                self._stop_watching()
                on_gone()

        self._watch = watch_file(self.path, loop, check)
        # It may have gone before the watch began.
        loop.call_soon(check)

    def remove(self) -> None:
        """Unlink the file if it is still ours, and stop watching it."""
        self._stop_watching()
        if self.is_ours():
            self.path.unlink(missing_ok=True)

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


class _NoWatch:
    def close(self) -> None:
        pass


def watch_file(
    path: Path, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]
) -> FileWatch:
    """Call `on_change` when `path` may have been deleted, renamed or replaced: this system's way.

    Where wgd knows none, says so in the log and never calls.
    """
    if sys.platform == "linux":
        from wgd.uapi.inotify import InotifyWatch

        return InotifyWatch(path, loop, on_change)
    logger.warning("event=uapi_socket_not_watched path=%s platform=%s", path, sys.platform)
    return _NoWatch()


def _temporary_name(interface_name: str) -> str:
    """Return a name of this process, as long as the final one: it must fit where that fits.

    It does not end in `.sock`, so `wg` does not look at it, and a process id has 22 bits, so its
    first digit is never an `s`.
    """
    number = os.getpid()
    digits = ""
    for _ in range(_TEMPORARY_DIGITS):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return f"{interface_name}.{digits}"


def _path_of(sock: socket.socket) -> Path:
    """Return where clients find `sock`.

    After a rename it still tells the old name: of a socket that another wgd opened, the temporary
    one. Raises WgdError if it has no file.
    """
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise WgdError(f"descriptor {sock.fileno()} is not a unix stream socket")
    name = sock.getsockname()
    if not isinstance(name, str) or not name:
        raise WgdError(f"descriptor {sock.fileno()} is not bound to a file")
    path = Path(name).absolute()
    final = path.with_suffix(_SUFFIX)
    return final if len(path.name) == len(final.name) and not path.exists() else path


def _check_length(path: Path) -> None:
    size = len(os.fsencode(path)) + 1
    if size > SUN_PATH_SIZE:
        raise WgdError(
            f"socket path {path} is {size - 1} bytes long, and this system allows "
            f"{SUN_PATH_SIZE - 1}; use a shorter directory"
        )


def _check_free(path: Path) -> None:
    """Raise WgdError unless nothing is at `path`, or a socket that nobody listens on."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise WgdError(f"{path} is there and is not a socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        number = probe.connect_ex(os.fspath(path))
    if number in (errno.ECONNREFUSED, errno.ENOENT):
        return
    if number in (0, errno.EAGAIN, errno.EPROTOTYPE):  # EAGAIN: alive, with a full backlog
        raise WgdError(f"{path} is in use by another process; stop that one first")
    raise OSError(number, os.strerror(number))


def _bind_private(sock: socket.socket, path: Path) -> None:
    """Bind with mode 0600 from the first moment on, whatever the umask."""
    if sys.platform == "linux":
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(os.fspath(path))
    else:
        umask = os.umask(0o177)
        try:
            sock.bind(os.fspath(path))
        finally:
            os.umask(umask)
    path.chmod(0o600)


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _refused(path: Path, error: OSError) -> WgdError:
    return WgdError(f"cannot listen on {path}: {error.strerror or error}")
