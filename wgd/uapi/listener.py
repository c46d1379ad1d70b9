"""The socket file of one interface: create it, take over a dead one, watch it, remove it.

With it goes, for a tunnel in a sandbox, the file that tells its tunnel's name.

Creating it, in steps: 1 see whether NAME.sock is there and alive; 2 bind under a temporary name;
3 listen; 4 give it the name NAME.sock. So the file is never there without somebody listening: `wg`
deletes a socket that refuses a connection. 5 write the name file, if there is to be one. What is
ours is told by device and inode, not by name.
"""

import asyncio
import contextlib
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
from wgd.uapi.name_file import NameFile, check_tunnel_name
from wgd.uapi.paths import connect_address

logger = logging.getLogger(__name__)

BACKLOG: Final = 1024
"""Connections waiting to be accepted. On BSD a full backlog looks like a dead socket, and `wg`
deletes those."""

_SUFFIX: Final = ".sock"
_TEMPORARY_DIGITS: Final = 4
_MAX_PID: Final = 2**22
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz-"


class FileWatch(Protocol):
    """A running watch of a file."""

    def close(self) -> None:
        """Stop watching; may be called again."""


class SocketFile:
    """A listening unix socket and the file that clients find it by.

    Whoever accepts on `sock` closes it. Call `remove` before, so that no client finds a dead file.
    Without `owns_file` the file is somebody else's, such as a systemd unit's, and is left to him.
    """

    def __init__(
        self,
        sock: socket.socket,
        path: Path,
        identity: tuple[int, int] | None,
        *,
        owns_file: bool = True,
    ) -> None:
        self.sock = sock
        self.path = path
        self.owns_file = owns_file
        self._identity = identity
        self._name_file: NameFile | None = None
        self._watch: FileWatch | None = None
        self._opened: int | None = None
        """The file itself, should its directory get out of our reach."""

    @classmethod
    def create(
        cls, directory: Path, interface_name: str, *, tunnel_name: str | None = None
    ) -> "SocketFile":
        """Listen on `directory`/`interface_name`.sock, readable and writable by the owner only.

        The directory is made when missing. With a `tunnel_name`, its NameFile comes and goes with
        the socket. Raises WgdError, and leaves no file behind: a bad name, a path too long, a
        directory others can write to, a socket in use, something there that is not a socket, or
        the system's refusal.
        """
        check_interface_name(interface_name)
        if tunnel_name is not None:
            check_tunnel_name(tunnel_name)
        if "\0" in os.fspath(directory):
            raise WgdError(f"{os.fspath(directory)!r} is not a directory: leave the NUL out")
        file = cls._listen(directory.absolute() / f"{interface_name}{_SUFFIX}", interface_name)
        if tunnel_name is not None:
            try:
                file.write_name_file(tunnel_name, interface_name)
            except BaseException:
                file.remove()
                file.sock.close()
                raise
        return file

    @classmethod
    def _listen(cls, path: Path, interface_name: str) -> "SocketFile":
        temporary = path.with_name(_temporary_name(interface_name))
        try:
            _make_directory(path.parent)
            _check_directory(path.parent)
            _check_free(path)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise _refused(path, error) from error
        try:
            _remove_leftovers(path.parent, interface_name)
            _bind_private(sock, temporary)
            identity = _identity(temporary)
            sock.listen(BACKLOG)
            sock.setblocking(False)
            _publish(temporary, path)
        except BaseException as error:
            sock.close()
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise _refused(path, error) from error
            raise
        return cls(sock, path, identity)

    @classmethod
    def from_fd(cls, fd: int, *, owns_file: bool = True) -> "SocketFile":
        """Adopt `fd`, a bound unix stream socket that somebody opened for us (WG_UAPI_FD, systemd).

        Raises WgdError when it is something else or its file is gone.
        """
        try:
            sock = socket.socket(fileno=fd)
        except OSError as error:
            raise WgdError(f"descriptor {fd} is not a socket: {error.strerror}") from error
        try:
            path = _path_of(sock)
            identity = _identity_if_seen(path)
            sock.listen(BACKLOG)
            sock.setblocking(False)
            sock.set_inheritable(False)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise WgdError(f"descriptor {fd} cannot be used: {error}") from error
            raise
        return cls(sock, path, identity, owns_file=owns_file)

    def write_name_file(self, tunnel_name: str, interface_name: str) -> None:
        """Put a NameFile beside the socket, which goes with it. Raises WgdError."""
        self._name_file = NameFile.create(self.path.parent, tunnel_name, interface_name)

    def is_ours(self) -> bool:
        """Whether the file at `path` is still the one that was put there."""
        try:
            return _identity(self.path) == self._identity
        except PermissionError:
            # We have given up root: what was opened before still tells whether it has a name.
            return self._opened is None or os.fstat(self._opened).st_nlink > 0
        except OSError:
            return False

    def watch(self, loop: asyncio.AbstractEventLoop, on_gone: Callable[[], None]) -> None:
        """Call `on_gone` once from `loop` when the file is deleted, renamed away or replaced.

        A change of mode or owner is none of these, and neither is `remove`. A file where we may not
        look is not watched. Raises WgdError.
        """
        if self._identity is None:
            logger.warning("event=uapi_socket_not_watched path=%s reason=%r", self.path, "no right")
            return

        def check() -> None:
            if self._watch is not None and not self.is_ours():
                self._stop_watching()
                on_gone()

        self._watch = watch_file(self.path, loop, check)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._opened = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        # It may have gone before the watch began.
        loop.call_soon(check)

    def remove(self) -> None:
        """Unlink the file and its name file, each if it is still ours, and stop watching.

        A daemon that has given up root may not be allowed to: then that is the janitor's.
        """
        self._stop_watching()
        if self._name_file is not None:
            self._name_file.remove()
        if self.owns_file and self.is_ours():
            with contextlib.suppress(PermissionError):
                self.path.unlink(missing_ok=True)

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None


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

        if os.access(path, os.R_OK) or not os.path.lexists(path):
            return InotifyWatch(path, loop, on_change)
        # Root's own, and we are not root: what happens in its directory may be seen.
        return InotifyWatch(path.parent, loop, on_change, entries=True)
    if sys.platform == "darwin":
        from wgd.uapi.kqueue import KqueueWatch

        return KqueueWatch(path, loop, on_change)
    logger.warning("event=uapi_socket_not_watched path=%s platform=%s", path, sys.platform)
    return _NoWatch()


def watch_entries(
    directory: Path, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]
) -> FileWatch:
    """Call `on_change` when something comes to be or ceases to be in `directory`.

    Raises WgdError or OSError if the directory cannot be watched. Where wgd knows no way, says so
    in the log and never calls.
    """
    if sys.platform == "linux":
        from wgd.uapi.inotify import InotifyWatch

        return InotifyWatch(directory, loop, on_change, entries=True)
    return watch_file(directory / "any", loop, on_change)  # kqueue watches the directory of a file


def _remove_leftovers(directory: Path, interface_name: str) -> None:
    """Remove the temporary files of those who were killed before their socket had its name."""
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            pid = _pid_in(path.name, interface_name)
            # One that is alive may not listen yet; our own process id, a predecessor had.
            if pid is None or (pid != os.getpid() and _is_running(pid)):
                continue
            with contextlib.suppress(WgdError, OSError):
                _check_free(path)
                path.unlink()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _pid_in(file_name: str, interface_name: str) -> int | None:
    """Return whose temporary name this is, None if it is not one of this interface."""
    digits = file_name.removeprefix(f"{interface_name}.")
    if len(digits) != _TEMPORARY_DIGITS or file_name != f"{interface_name}.{digits}":
        return None
    pid = 0
    for digit in digits:
        if digit not in _DIGITS:
            return None
        pid = pid * len(_DIGITS) + _DIGITS.index(digit)
    return pid if 0 < pid <= _MAX_PID else None


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
    return final if len(path.name) == len(final.name) and not _is_seen(path) else path


def _is_seen(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # it has its final name, unless somebody has killed us amid the start
        return False


def _check_directory(directory: Path) -> None:
    """Raise WgdError if others could put another socket in place of ours, and be told our keys.

    A link is followed: /var/run is one on macOS.
    """
    status = directory.stat()
    mode = stat.S_IMODE(status.st_mode)
    refusal = (
        f"directory {directory} belongs to user {status.st_uid} and has mode {mode:04o}, so others "
        "can replace the socket: "
    )
    if status.st_uid not in (0, os.geteuid()):
        # The sticky bit does not help: it lets the directory's owner do everything.
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise WgdError(f"{refusal}chown it to user {os.geteuid()}, or chmod go-w")
    elif mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise WgdError(f"{refusal}chmod o-w")


def _check_free(path: Path) -> None:
    """Raise WgdError unless nothing is at `path`, or a socket that nobody listens on."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise WgdError(f"{path} is there and is not a socket; move it away")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
        connect_address(path) as address,
    ):
        probe.setblocking(False)
        number = probe.connect_ex(address)
    if number in (errno.ECONNREFUSED, errno.ENOENT):
        return
    if number in (0, errno.EAGAIN, errno.EPROTOTYPE):  # EAGAIN: alive, with a full backlog
        raise WgdError(f"{path} is in use by another process; stop that one first")
    raise OSError(number, os.strerror(number))


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o755, parents=True)
    except FileExistsError:
        if not directory.is_dir():
            raise WgdError(f"{directory} is there and is not a directory; move it away") from None
    else:
        directory.chmod(0o755)  # whatever the umask: another user that we become must get there


def _publish(temporary: Path, path: Path) -> None:
    """Give the socket at `temporary` its name, in place of a dead one, but never of a live one.

    Somebody else may start with the same name at this very moment: linking fails if he was first.
    """
    _check_free(path)
    path.unlink(missing_ok=True)
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        raise WgdError(f"{path} is in use by another process; stop that one first") from None
    except OSError:  # a file system without hard links
        temporary.rename(path)
    else:
        temporary.unlink()


def _bind_private(sock: socket.socket, path: Path) -> None:
    """Bind with mode 0600 from the first moment on, whatever the umask."""
    with connect_address(path) as address:
        if sys.platform == "linux":
            os.fchmod(sock.fileno(), 0o600)
            sock.bind(address)
        else:
            umask = os.umask(0o177)
            try:
                sock.bind(address)
            finally:
                os.umask(umask)
    path.chmod(0o600)


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _identity_if_seen(path: Path) -> tuple[int, int] | None:
    """Return what `_identity` does; None where we may not look. Raises OSError."""
    try:
        return _identity(path)
    except PermissionError:
        return None


def _refused(path: Path, error: OSError) -> WgdError:
    return WgdError(f"cannot listen on {path}: {error.strerror or error}")
