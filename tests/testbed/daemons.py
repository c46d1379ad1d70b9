"""Daemons under test: started as a user would, found again in the background, always ended."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.testbed.namespaces import Namespace, run
from tests.testbed.uapi import SOCKET_DIRECTORY, DeviceView, uapi_get
from tests.testbed.waiting import wait_until

OTHER_DAEMON = os.environ.get("WGD_TEST_DAEMON")

_END_SECONDS = 5
_JANITOR = "wgd-janitor"
_MARKER = "WGD_TESTBED_MARKER"
_CONTRACT_VARIABLES = (
    "WG_TUN_FD",
    "WG_UAPI_FD",
    "WG_PROCESS_FOREGROUND",
    "WG_TUN_NAME_FILE",
    "LOG_LEVEL",
    "NOTIFY_SOCKET",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)


def daemon_command() -> list[str]:
    """Return the daemon under test: $WGD_TEST_DAEMON, or the `wgd` beside this interpreter."""
    if OTHER_DAEMON:
        return shlex.split(OTHER_DAEMON)
    beside = Path(sys.executable).with_name("wgd")
    found = str(beside) if beside.exists() else shutil.which("wgd")
    if found is None:
        pytest.fail(f"no wgd at {beside} nor on PATH: install it with `pip install -e .`")
    return [found]


def only_wgd(promise: str) -> pytest.MarkDecorator:
    """Mark a test of something wgd promises beyond wireguard-go's contract."""
    return pytest.mark.skipif(OTHER_DAEMON is not None, reason=f"only wgd promises: {promise}")


@dataclass(frozen=True)
class Launch:
    """How a run of the program ended, for the caller that started it."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float


def _is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie, which has closed its files."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


class Program:
    """One start of the daemon's program; its output goes to files, as pipes would tie us to it."""

    def __init__(
        self,
        namespace: Namespace,
        command: Iterable[str | Path],
        marker: str,
        output_directory: Path,
        environment: Mapping[str, str],
        pass_fds: Iterable[int] = (),
    ) -> None:
        self._namespace = namespace
        self._marker = f"{_MARKER}={marker}".encode()
        self._stdout = output_directory / f"{marker}.stdout"
        self._stderr = output_directory / f"{marker}.stderr"
        inherited = {k: v for k, v in os.environ.items() if k not in _CONTRACT_VARIABLES}
        self._seen: set[int] = set()
        self._started = time.monotonic()
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                namespace.command(*command),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**inherited, **environment, _MARKER: marker},
                pass_fds=tuple(pass_fds),
            )

    def launched(self, timeout_seconds: float = 15) -> Launch:
        """Wait until the process we started returns; in the background the daemon may go on."""
        try:
            returncode = self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {timeout_seconds} s: {self.output}") from None
        seconds = time.monotonic() - self._started
        return Launch(returncode, self.stdout, self.stderr, seconds)

    @property
    def stdout(self) -> str:
        """What was written to stdout so far, by parent and daemon."""
        return self._stdout.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What was written to stderr so far, by parent and daemon."""
        return self._stderr.read_text(errors="replace")

    @property
    def output(self) -> str:
        """Everything that was written so far."""
        return self.stdout + self.stderr

    def wait_for_output(self, text: str) -> None:
        """Wait until it has written `text`: its log may come after what it tells of."""
        wait_until(lambda: text in self.output, 15, what=f"{text!r} is written")

    def pids(self) -> list[int]:
        """Return the processes of this start that still run."""
        found = []
        for pid in self._namespace.pids():
            with contextlib.suppress(OSError):
                if self._marker in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(pid)
        self._seen.update(found)
        return found

    def is_running(self) -> bool:
        """Whether anything of this start still runs or has files open; reaps what we started."""
        self.process.poll()
        self.pids()
        self._seen = {pid for pid in self._seen if _is_alive(pid)}
        return bool(self._seen)

    def kill(self) -> None:
        """End it politely, then with force."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not self.is_running(), 3, what="the daemon's end")
        self.process.wait(3)


class Daemon:
    """One running daemon: its interface, its socket, and `wg` on it."""

    def __init__(self, namespace: Namespace, interface: str, program: Program) -> None:
        self.namespace = namespace
        self.interface = interface
        self.program = program
        self.socket_path = SOCKET_DIRECTORY / f"{interface}.sock"
        self.launch: Launch | None = None

    @property
    def pid(self) -> int:
        """The daemon's process; the janitor of one that has given up root does not count."""
        pids = [pid for pid in self.program.pids() if _name(pid) != _JANITOR]
        assert len(pids) == 1, f"expected one process, there are {pids}"
        return pids[0]

    def is_running(self) -> bool:
        """Whether the daemon still runs."""
        return self.program.is_running()

    def wait_for_end(self) -> None:
        """Wait until the daemon has ended of itself."""
        wait_until(lambda: not self.is_running(), _END_SECONDS, what="the daemon's end")

    def signal(self, number: signal.Signals) -> None:
        """Send the daemon a signal."""
        os.kill(self.pid, number)

    def wg(self, action: str, *arguments: str | Path, check: bool = True, stdin: str = "") -> str:
        """Run `wg ACTION INTERFACE ARGUMENTS…` and return its stdout."""
        completed = run(
            *("wg", action, self.interface, *arguments),
            check=check,
            stdin=stdin,
            timeout_seconds=120,  # 65,536 peers may take a while
        )
        return completed.stdout

    def wg_error(self, action: str, *arguments: str | Path, stdin: str = "") -> str:
        """Run `wg`, which must fail, and return its stderr."""
        completed = run("wg", action, self.interface, *arguments, check=False, stdin=stdin)
        assert completed.returncode != 0, f"wg {action} {arguments} succeeded"
        return completed.stderr

    def setconf(self, text: str, action: str = "setconf") -> None:
        """Give the daemon a whole configuration file (or addconf, syncconf)."""
        self.wg(action, "/dev/stdin", stdin=text)

    def get(self) -> DeviceView:
        """Return what the daemon says about itself."""
        return uapi_get(self.socket_path)

    def ip(self, *arguments: str) -> None:
        """Run `ip link set dev INTERFACE ARGUMENTS…`."""
        self.namespace.ip("link", "set", "dev", self.interface, *arguments)

    def up(self) -> None:
        """Set the link up and wait until the daemon listens, so that no handshake is missed."""
        self.ip("up")
        self.wait_until_listening()

    def wait_until_listening(self) -> None:
        """Wait until the UDP port that the daemon names is bound in its namespace."""

        def is_bound() -> bool:
            port = int(self.get().values.get("listen_port", "0"))
            return port != 0 and port in self.namespace.udp_ports()

        wait_until(is_bound, what=f"{self.interface} listens")
