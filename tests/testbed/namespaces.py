"""Network namespaces: commands, sockets and pings inside them."""

import ctypes
import fcntl
import itertools
import os
import re
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x4000_0000
_SIOCETHTOOL, _ETHTOOL_GTSO = 0x8946, 0x1E
_libc = ctypes.CDLL(None, use_errno=True)
_serial = itertools.count()


def unique_name(prefix: str) -> str:
    """Return prefix, our pid and a serial number: within the 15 bytes of an interface name."""
    return f"{prefix}{os.getpid()}x{next(_serial)}"


def run(
    *argv: str | Path,
    check: bool = True,
    timeout_seconds: float = 30,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; AssertionError with its output if it fails and `check` is set."""
    completed = subprocess.run(
        [str(word) for word in argv],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        input="" if stdin is None else stdin,
        env=env,
    )
    if check and completed.returncode != 0:
        command = " ".join(map(str, argv))
        output = completed.stdout + completed.stderr
        raise AssertionError(f"`{command}` exited {completed.returncode}: {output}")
    return completed


@dataclass(frozen=True)
class Ping:
    """What a run of ping(8) saw."""

    sent: int
    received: int
    output: str

    @property
    def is_lossless(self) -> bool:
        """Whether every request was answered, with the payload that was sent."""
        return self.sent == self.received > 0 and "wrong" not in self.output


class Namespace:
    """One network namespace, known by name to `ip netns`; `delete` undoes everything in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/var/run/netns") / name
        run("ip", "netns", "add", name)
        self._inode = self.path.stat().st_ino
        self.ip("link", "set", "lo", "up")

    def command(self, *argv: str | Path) -> list[str]:
        """Return the command line that runs `argv` in this namespace (same pid: it execs)."""
        return ["ip", "netns", "exec", self.name, *(str(word) for word in argv)]

    def run(
        self,
        *argv: str | Path,
        check: bool = True,
        timeout_seconds: float = 30,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in this namespace; see `run`."""
        return run(
            *self.command(*argv), check=check, timeout_seconds=timeout_seconds, stdin=stdin, env=env
        )

    def ip(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `ip` on this namespace."""
        return run("ip", "-n", self.name, *arguments, check=check)

    def add_address(self, interface: str, address: str) -> None:
        """Give `address/length` to an interface, usable at once (no duplicate detection)."""
        nodad = ["nodad"] if ":" in address else []
        self.ip("address", "add", address, "dev", interface, *nodad)

    def has_interface(self, interface: str) -> bool:
        """Whether an interface of that name exists here."""
        return self.ip("link", "show", "dev", interface, check=False).returncode == 0

    def has_tcp_segmentation(self, interface: str) -> bool:
        """Whether an interface is given TCP packets of more than its MTU (`ethtool -k`, tso)."""
        value = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_GTSO, 0), 8)
        request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(value))
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            fcntl.ioctl(asked.fileno(), _SIOCETHTOOL, request)
        return bool(struct.unpack("II", value.raw)[1])

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread make sockets and read /proc/thread-self/net in the namespace."""
        with Path("/proc/thread-self/ns/net").open("rb") as before, self.path.open("rb") as inside:
            _setns(inside.fileno())
            try:
                yield
            finally:
                _setns(before.fileno())

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """Return a new socket that lives in this namespace, wherever its user runs."""
        with self.entered():
            return socket.socket(family, kind)

    def sysctl(self, key: str, value: str) -> None:
        """Set a `net.` sysctl of this namespace; `key` with slashes, as below /proc/sys."""
        with self.entered():
            (Path("/proc/sys") / key).write_text(value)

    def udp_ports(self) -> set[int]:
        """Return the local ports of all UDP sockets here."""
        with self.entered():
            tables = [Path("/proc/thread-self/net") / name for name in ("udp", "udp6")]
            rows = [row for table in tables for row in table.read_text().splitlines()[1:]]
        return {int(row.split()[1].rpartition(":")[2], 16) for row in rows}

    def pids(self) -> list[int]:
        """Return the processes that run in this namespace."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                inode = (process / "ns/net").stat().st_ino
            except OSError:  # gone in the meantime, or a zombie
                continue
            if inode == self._inode and int(process.name) != os.getpid():
                found.append(int(process.name))
        return found

    def ping(
        self,
        destination: str,
        *options: str,
        count: int = 3,
        interval_seconds: float = 1,
        wait_seconds: float = 3,
    ) -> Ping:
        """Ping from this namespace; without any answer it takes `wait_seconds`.

        Once there was an answer, the last one may take as long as the interval, or twice the
        longest before it. So by default all leave at once: none is lost to a machine that is busy.
        """
        at_once = ("-l", str(count)) if interval_seconds >= 1 else ()
        output = self.run(
            *("ping", "-n", "-c", str(count), *at_once, "-i", str(interval_seconds)),
            *("-W", str(wait_seconds), *options, destination),
            check=False,
        )
        text = output.stdout + output.stderr
        counts = re.search(r"(\d+) packets transmitted, (\d+) received", text)
        if counts is None:
            return Ping(0, 0, text)
        return Ping(int(counts[1]), int(counts[2]), text)

    def delete(self) -> None:
        """Kill what still runs in the namespace and remove it with its interfaces."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run("ip", "netns", "delete", self.name)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"setns: {os.strerror(errno)}")
