"""Starting the daemon of an interface, and ending it by taking its interface away."""

import contextlib
import errno
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

if sys.platform != "linux":  # what follows is skipped by mypy elsewhere
    raise ImportError("this module is for Linux")

from wgd.quick.children import die_with_parent
from wgd.quick.errors import QuickError
from wgd.quick.system import System
from wgd.uapi.paths import connect_address
from wgd.uapi.socket_policy import SYSTEM_DIRECTORY

END_TIMEOUT_SECONDS: Final = 10.0

# What is said to us, not to the daemon: it is configured by us, over a socket of its own.
_NOT_FOR_IT: Final = ("WGD_CONFIG", "WG_PROCESS_FOREGROUND", "WG_TUN_FD", "WG_UAPI_FD")
_UCRED: Final = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Daemon:
    """A wgd in the background that makes the interface; `uapi_directory` is empty for the usual."""

    kind: ClassVar[str] = "daemon"
    interface: str
    uapi_directory: str

    def do(self, system: System) -> None:
        """Start it; it can be configured on return."""
        command = [*_program(), self.interface]
        if self.uapi_directory:
            command += ["--uapi-dir", self.uapi_directory]
        system.say(f"wgd {' '.join(command[len(_program()) :])}")
        environment = {n: value for n, value in os.environ.items() if n not in _NOT_FOR_IT}
        try:
            # Its output is not collected: the daemon may keep it open for its log. What ends with
            # us is the command; the daemon ends when it finds nobody to report readiness to.
            started = subprocess.run(  # noqa: S603
                command, check=False, env=environment, preexec_fn=die_with_parent
            )
        except OSError as error:
            raise QuickError(f"cannot run {command[0]}: {error.strerror}") from None
        if started.returncode != 0:
            raise QuickError(f"wgd could not make {self.interface}; it said why above")

    def undo(self, system: System) -> None:
        """End it and wait for that, with what a killed one has left."""
        path = socket_path(self.interface, self.uapi_directory)
        with _process_at(path) as process:
            link = system.network.link(self.interface)
            if link is not None and link.kind == "tun":
                system.say(f"ip link delete dev {self.interface}")
                system.network.remove_link(link.index)
            elif process is not None:  # its interface is in another network namespace
                path.unlink(missing_ok=True)
            if process is not None and not _has_ended(process):
                raise QuickError(
                    f"the daemon of {self.interface} has not ended within "
                    f"{END_TIMEOUT_SECONDS:g} s: kill it, then take it down again"
                )
        remove_dead_socket(path)


def remove_dead_socket(path: Path) -> None:
    """Remove a socket that nobody listens on: its daemon was killed."""
    if not is_alive(path):
        path.unlink(missing_ok=True)


def socket_path(interface: str, uapi_directory: str) -> Path:
    """Return where the socket of an interface is."""
    return Path(uapi_directory or SYSTEM_DIRECTORY) / f"{interface}.sock"


def is_alive(path: Path) -> bool:
    """Whether somebody listens on a socket."""
    sock = _connect(path)
    if sock is not None:
        sock.close()
    return sock is not None


def _program() -> list[str]:
    """Return the command of the daemon: the `wgd` beside this interpreter, or on the PATH."""
    beside = Path(sys.executable).with_name("wgd")
    found = str(beside) if beside.exists() else shutil.which("wgd")
    return [found] if found is not None else [sys.executable, "-m", "wgd"]


def _connect(path: Path) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with connect_address(path) as address:
            sock.connect(address)
    except BlockingIOError:  # alive, with a full backlog
        return sock
    except OSError as error:
        sock.close()
        if error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
            raise
        return None
    return sock


@contextlib.contextmanager
def _process_at(path: Path) -> Iterator[int | None]:
    """Yield a descriptor of the process that listens on a socket, None if there is none."""
    descriptor = None
    if (sock := _connect(path)) is not None:
        with sock, contextlib.suppress(OSError):
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            pid = int(_UCRED.unpack(credentials)[0])
            if pid > 1:  # 1: a service manager that opened it; 0: in another process namespace
                descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _has_ended(process: int) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(END_TIMEOUT_SECONDS * 1000))
