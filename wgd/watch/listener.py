"""Where the status is served: addresses as people write them, and the listening sockets.

A unix socket is made and taken over as the UAPI socket is, but in a directory of its own: wgctrl
takes every socket beside the UAPI ones for an interface. Whoever may connect sees the peers, their
endpoints and their traffic; nobody can change anything.

Root puts its sockets only where nobody else can swap files. A daemon that systemd has started as
another user has a directory of its own below the run directory.
"""

import contextlib
import errno
import grp
import ipaddress
import logging
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Final

from wgd.errors import WgdError
from wgd.uapi.listener import SocketFile
from wgd.uapi.socket_policy import SYSTEM_DIRECTORY

logger = logging.getLogger(__name__)

RUN_DIRECTORY: Final = Path("/var/run/wgd" if sys.platform == "darwin" else "/run/wgd")
"""Where root's sockets of `--metrics unix` are, one an interface, and in directories of their own
those of other users. It is root's alone."""

BACKLOG: Final = 64

_FORMS: Final = "give HOST:PORT, [IPV6]:PORT, unix:PATH, or unix"
_OF_GROUP: Final = 0o660
_DIRECTORY: Final = 0o755
_PORTS: Final = range(1, 1 << 16)
_NO_FAMILY: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class StatusSocketFile(SocketFile):
    """A listening unix socket for those who may watch: root, or with a group also its members."""

    @classmethod
    def listen_at(cls, path: Path, group: str | None) -> SocketFile:
        """Listen on `path`; its directory is made when missing (0755).

        Raises WgdError, and leaves no file behind: no such group, a path too long, a directory
        others can write to (or, for root, one that is not root's), a socket in use, something there
        that is no socket, the system's refusal.
        """
        gid = None if group is None else _group_id(group)
        _check_directory(path.parent)
        _make_directory(path.parent)
        file = cls._listen(path, path.stem)
        try:
            if gid is not None:
                _give_to_group(path, gid)
        except OSError as error:
            file.remove()
            file.sock.close()
            raise WgdError(
                f"cannot give {path} to the group {group}: {error.strerror}; leave --metrics-group "
                "out, or run as root"
            ) from error
        return file


def open_sockets(
    opened: contextlib.AsyncExitStack, address: str, group: str | None, interface: str
) -> list[socket.socket]:
    """Listen on `address` and return the sockets; the files of unix sockets go with `opened`.

    Whoever accepts on a socket closes it. Raises WgdError, and then nothing is left open: an
    address that is none, one in use, a `group` for TCP.
    """
    if address == "unix" or address.startswith("unix:"):
        path = unix_path(address, interface)
        file = StatusSocketFile.listen_at(path, group)
        opened.callback(_remove, file)
        return [file.sock]
    if group is not None:
        raise WgdError(
            f"--metrics-group {group} is for a unix socket, and --metrics is {address}: leave the "
            "group out, or give --metrics unix"
        )
    return _open_tcp(address)


def unix_path(address: str, interface: str) -> Path:
    """Return the path of the socket that `unix` or `unix:PATH` means. Raises WgdError."""
    _, _, text = address.partition(":")
    if address == "unix":
        return _run_directory() / f"{interface}.sock"
    if not text or "\0" in text or text.endswith("/"):
        raise WgdError(f"--metrics {address!a} names no file: {_FORMS}")
    path = Path(os.path.abspath(text))  # noqa: PTH100 - a link stays what it is, ".." goes
    if path.parent.resolve() == SYSTEM_DIRECTORY.resolve():
        raise WgdError(
            f"--metrics {address}: programs take every socket in {SYSTEM_DIRECTORY} for an "
            f"interface; put it elsewhere, such as {RUN_DIRECTORY}"
        )
    return path


# -- TCP ---------------------------------------------------------------------------------------


def _open_tcp(address: str) -> list[socket.socket]:
    host, port = _split(address)
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:  # not even a name, for the latter
        raise WgdError(f"--metrics {address}: there is no host {host!a} ({error})") from error
    places = list(dict.fromkeys((family, place) for family, _, _, _, place in found))
    sockets: list[socket.socket] = []
    refusals: list[OSError] = []
    for family, place in places:
        try:
            sockets.append(_listen_tcp(family, place))
        except OSError as error:
            refusals.append(error)
    # A name that is ::1 too on a host without IPv6 is served where it can be.
    if not sockets or any(error.errno not in _NO_FAMILY for error in refusals):
        for sock in sockets:
            sock.close()
        raise WgdError(
            f"cannot listen on {address}: {os.strerror(refusals[0].errno or 0)}; choose an address "
            "of this host and a free port"
        )
    for sock in sockets:
        _warn_if_open(sock)
    return sockets


def _split(address: str) -> tuple[str, int]:
    """Return host ("" for every address of this host) and port of `HOST:PORT`."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        is_host = ":" in host
    else:
        is_host = ":" not in host
    is_port = port.isascii() and port.isdigit() and len(port) < 6 and int(port) in _PORTS
    if not (colon and is_host and is_port and host.isprintable()):
        raise WgdError(f"--metrics {address!a} is no address: {_FORMS}")
    return host, int(port)


def _listen_tcp(family: int, place: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _warn_if_open(sock: socket.socket) -> None:
    host, port = sock.getsockname()[:2]
    if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        logger.warning(
            "event=metrics_exposed address=%s port=%d reason=%r",
            host,
            port,
            "whoever reaches this address sees the peers: bind to 127.0.0.1 or a unix socket, or "
            "have a firewall",
        )


# -- unix --------------------------------------------------------------------------------------


def _run_directory() -> Path:
    """Return the run directory; for another user than root, the one that systemd made for it."""
    own = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(own) if own.startswith("/") and os.geteuid() != 0 else RUN_DIRECTORY


def _check_directory(directory: Path) -> None:
    """Raise WgdError if root would make a socket where another user can swap files.

    Of a directory that is still to be made, the nearest above it that is there counts.
    """
    if os.geteuid() != 0:
        return
    try:
        there = next(each for each in (directory, *directory.parents) if each.exists())
        status = there.stat()
    except OSError as error:
        raise WgdError(f"cannot listen in {directory}: {error.strerror}") from error
    mode = stat.S_IMODE(status.st_mode)
    is_shared = mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX
    if status.st_uid != 0 or is_shared:
        raise WgdError(
            f"directory {there} belongs to user {status.st_uid} and has mode {mode:04o}, so others "
            "can swap what root makes there: give another path, or chown it to root and chmod go-w"
        )


def _give_to_group(path: Path, gid: int) -> None:
    """Let a group use the socket at `path`, but no file that somebody has put in its place."""
    if sys.platform == "linux":
        opened = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISSOCK(os.fstat(opened).st_mode):
                raise FileNotFoundError(errno.ENOENT, "it was replaced")
            itself = f"/proc/self/fd/{opened}"
            os.chown(itself, -1, gid)
            Path(itself).chmod(_OF_GROUP)
        finally:
            os.close(opened)
    else:
        os.chown(path, -1, gid, follow_symlinks=False)
        os.chmod(path, _OF_GROUP, follow_symlinks=False)  # noqa: PTH101 - Path has no such option


def _make_directory(directory: Path) -> None:
    """Make a missing directory one that everybody may look into, whatever the umask."""
    try:
        directory.parent.mkdir(mode=_DIRECTORY, parents=True, exist_ok=True)
        directory.mkdir()
        directory.chmod(_DIRECTORY)
    except FileExistsError:
        pass  # what is wrong with it, if anything, is told when the socket is made
    except OSError as error:
        raise WgdError(f"cannot make {directory}: {error.strerror}; give another path") from error


def _group_id(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise WgdError(
            f"--metrics-group: there is no group {group!a}; make it with groupadd, or give another"
        ) from None


def _remove(file: SocketFile) -> None:
    """Remove the file; a daemon without the right to leaves it, and the next one takes it over."""
    try:
        file.remove()
    except OSError as error:
        logger.info("event=status_socket_left path=%s reason=%r", file.path, str(error))
