"""A service manager's end of sd_notify(3): what a daemon says, and the descriptors it has kept."""

import ctypes
import fcntl
import os
import platform
import socket
import tempfile
import time
from pathlib import Path

from tests.testbed import Daemon, Namespace, Testbed, daemon_command

Message = dict[str, str]

_HIGH = 200  # out of the way of the numbers that a start takes
_KCMP = {"x86_64": 312, "aarch64": 272}[platform.machine()]
_libc = ctypes.CDLL(None)


def _is_same(left: int, right: int) -> bool:
    """Whether two descriptors are of one open file: how systemd tells what it has already."""
    pid = os.getpid()
    return int(_libc.syscall(_KCMP, pid, pid, 0, left, right)) == 0


class FakeManager:
    """Hears what a daemon says and keeps what it stores; a context manager.

    With `address` "@name" its socket is an abstract one.
    """

    def __init__(self, address: str | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="wgd-notify-")
        self.address = address or f"{self._directory.name}/notify"
        self.said: list[Message] = []
        self.store: list[tuple[str, int]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address.replace("@", "\0", 1))

    def __enter__(self) -> "FakeManager":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.forget()
        self._socket.close()
        self._directory.cleanup()

    # -- hearing -----------------------------------------------------------------------------------

    def hear(self, timeout_seconds: float) -> Message | None:
        """Return the next message, None if there is none in time."""
        self._socket.settimeout(max(timeout_seconds, 0.001))
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, 4096, 16)
        except TimeoutError:
            return None
        message = dict(line.split("=", 1) for line in data.decode().splitlines())
        self.said.append(message)
        if "FDSTORE" in message:
            self._keep(message.get("FDNAME", "stored"), fds)
        else:
            assert fds == []
        if "FDSTOREREMOVE" in message:
            self.forget(message["FDNAME"])
        return message

    def wait_for(self, key: str, value: str = "1", timeout_seconds: float = 15) -> Message:
        """Hear messages until one says this."""
        deadline = time.monotonic() + timeout_seconds
        while (left := deadline - time.monotonic()) > 0:
            message = self.hear(left)
            if message is not None and message.get(key) == value:
                return message
        raise AssertionError(f"no {key}={value} in {timeout_seconds} s, but {self.said}")

    def hear_all(self) -> list[Message]:
        """Hear what was said already; return everything ever said."""
        while self.hear(0.001) is not None:
            pass
        return self.said

    # -- keeping -----------------------------------------------------------------------------------

    def _keep(self, name: str, fds: list[int]) -> None:
        for fd in fds:
            if any(_is_same(fd, known) for _, known in self.store):
                os.close(fd)
            else:
                high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)
                os.close(fd)
                self.store.append((name, high))

    def names(self) -> list[str]:
        """Return the names of what is kept, sorted."""
        self.hear_all()
        return sorted(name for name, _ in self.store)

    def forget(self, name: str | None = None) -> None:
        """Close what is kept under this name, or everything."""
        for known, fd in self.store:
            if name in (None, known):
                os.close(fd)
        self.store = [one for one in self.store if name not in (None, one[0])]

    # -- starting ----------------------------------------------------------------------------------

    def start(
        self,
        testbed: Testbed,
        namespace: Namespace,
        interface: str,
        *options: str,
        **environment: str,
    ) -> Daemon:
        """Start a daemon in the foreground, with what is kept, and wait until it is ready."""
        daemon = self.launch(testbed, namespace, interface, *options, **environment)
        try:
            self.wait_for("READY")
        except AssertionError as error:
            raise AssertionError(f"{error}: {daemon.program.output}") from None
        return daemon

    def launch(
        self,
        testbed: Testbed,
        namespace: Namespace,
        interface: str,
        *options: str,
        **environment: str,
    ) -> Daemon:
        """Start a daemon in the foreground, with what is kept."""
        program = testbed.run_program(
            namespace,
            *("-f", *options, interface),
            command=handing(self.store, *daemon_command()),
            environment={"NOTIFY_SOCKET": self.address, "LOG_LEVEL": "verbose", **environment},
            pass_fds=[fd for _, fd in self.store],
        )
        return Daemon(namespace, interface, program)


def handing(named: list[tuple[str, int]], *command: str | Path) -> list[str]:
    """Return the command line that runs `command` with descriptors as systemd hands them over."""
    script = "".join(f"exec {number}<&{fd} {fd}<&-; " for number, (_, fd) in enumerate(named, 3))
    names = ":".join(name for name, _ in named)
    variables = f"LISTEN_PID=$$ LISTEN_FDS={len(named)} LISTEN_FDNAMES={names} " if named else ""
    return ["bash", "-c", f'{script}{variables}exec "$@"', "bash", *map(str, command)]
