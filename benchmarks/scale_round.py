"""One round: a new daemon, a large configuration put in and read back, and who had to wait.

1 a daemon with its interface up in a namespace of its own, and peers that shake hands all the time;
2 the configuration in one `set` on its socket; the memory it has cost;
3 the whole of it in one `get`, and as `wg show ... dump`;
4 the same once more from a file, with `wg setconf`, which replaces every peer; nobody shakes hands.

Handshakes are timed in 2 and 3; before, too, to tell the daemon's delay from the machine's.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from implementations import Implementation
from processes import BenchmarkError, Process, run
from scale_cases import KNOWN_PEERS, Case
from testbed import SOCKET_DIRECTORY, namespace, serving

from wgd.noise.primitives import PrivateKey

_HANDSHAKE_PAUSE_SECONDS: Final = 0.005
_IDLE_SECONDS: Final = 1.0
_PORT: Final = 51820
_ANSWER_TIMEOUT_SECONDS: Final = 300
_PROBE: Final = Path(__file__).with_name("scale_probe.py")


@dataclass(frozen=True)
class Figures:
    """What one round has shown. Waits are those of handshakes, the longest of each step."""

    set_seconds: float
    setconf_seconds: float
    get_seconds: float
    dump_seconds: float
    grown_bytes: int
    idle_wait_ms: float
    set_wait_ms: float
    get_wait_ms: float
    lost_handshakes: int


def measure_round(implementation: Implementation, case: Case) -> Figures:
    """Run one round. Raises BenchmarkError."""
    name = f"wgs{os.getpid()}"
    configuration = case.make()
    private_key = os.urandom(32)
    with TemporaryDirectory(prefix="wgd-benchmark-") as directory, namespace(name):
        log = Path(directory) / "log"
        with serving(implementation, name, log) as process, _client(name) as client:
            own = f"set=1\nprivate_key={private_key.hex()}\nlisten_port={_PORT}\n\n"
            client.change(own.encode())
            run("ip", "-n", name, "link", "set", name, "up")
            public_key = PrivateKey(private_key).public_key
            with _probe(name, public_key) as probe:
                known = "".join(f"public_key={key}\n" for key in probe.public_keys)
                client.change(f"set=1\n{known}\n".encode())
                probe.start()
                time.sleep(_IDLE_SECONDS)
                idle = probe.waits(time.monotonic() - _IDLE_SECONDS * 0.8, time.monotonic())
                before_bytes = _resident_bytes(process)
                request = configuration.request()
                set_from, set_to = client.change(request)
                set_waits = probe.waits(set_from, set_to)
                grown_bytes = _resident_bytes(process) - before_bytes
                get_from, get_to = client.read(least_peers=case.peers)
                get_waits = probe.waits(get_from, get_to)
            dump_seconds = _run_wg(name, directory, "show", name, "dump")
            file = Path(directory) / "wg.conf"
            file.write_text(configuration.file(private_key, _PORT))
            setconf_seconds = _run_wg(name, directory, "setconf", name, str(file))
            process.check_running()
    return Figures(
        set_seconds=set_to - set_from,
        setconf_seconds=setconf_seconds,
        get_seconds=get_to - get_from,
        dump_seconds=dump_seconds,
        grown_bytes=grown_bytes,
        idle_wait_ms=idle["longest_ms"],
        set_wait_ms=set_waits["longest_ms"],
        get_wait_ms=get_waits["longest_ms"],
        lost_handshakes=int(idle["lost"] + set_waits["lost"] + get_waits["lost"]),
    )


def _resident_bytes(process: Process) -> int:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _run_wg(name: str, directory: str, *arguments: str) -> float:
    """Run `wg` and return how many seconds it took."""
    started = time.monotonic()
    with Process(["ip", "netns", "exec", name, "wg", *arguments], Path(directory) / "wg") as wg:
        wg.wait_for_success(_ANSWER_TIMEOUT_SECONDS)
    return time.monotonic() - started


class _Client:
    """One connection to the daemon's configuration socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def change(self, request: bytes) -> tuple[float, float]:
        """Have a change made; return when it was begun and when it was answered."""
        started = time.monotonic()
        self._socket.sendall(request)
        answer = self._answer()
        if answer != b"errno=0\n\n":
            raise BenchmarkError(f"the daemon answered {answer[-80:]!r} to a set")
        return started, time.monotonic()

    def read(self, *, least_peers: int) -> tuple[float, float]:
        """Read everything; return when that was begun and when it was answered."""
        started = time.monotonic()
        self._socket.sendall(b"get=1\n\n")
        answer = self._answer()
        ended = time.monotonic()
        if answer.count(b"public_key=") < least_peers or not answer.endswith(b"\nerrno=0\n\n"):
            raise BenchmarkError("the daemon has not all the peers it was given")
        return started, ended

    def _answer(self) -> bytes:
        received = bytearray()
        while not received.endswith(b"\n\n"):
            data = self._socket.recv(1 << 20)
            if not data:
                raise BenchmarkError("the daemon has closed the connection")
            received += data
        return bytes(received)


@contextmanager
def _client(name: str) -> Iterator[_Client]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_ANSWER_TIMEOUT_SECONDS)
        sock.connect(str(SOCKET_DIRECTORY / f"{name}.sock"))
        yield _Client(sock)


class _Probing:
    """The program `scale_probe.py` at work."""

    def __init__(self, child: "subprocess.Popen[str]") -> None:
        if child.stdin is None or child.stdout is None:
            raise ValueError("a child without pipes")
        self._requests, self._answers = child.stdin, child.stdout
        self.public_keys = list(iter(lambda: self._line(), ""))

    def start(self) -> None:
        """Begin to shake hands: the daemon knows the public keys."""
        self._say("\n")

    def waits(self, start: float, end: float) -> dict[str, float]:
        """Return what became of the handshakes begun in between (seconds of time.monotonic)."""
        self._say(f"{int(start * 1e9)} {int(end * 1e9)}\n")
        found: dict[str, float] = json.loads(self._line())
        return found

    def _say(self, text: str) -> None:
        self._requests.write(text)
        self._requests.flush()

    def _line(self) -> str:
        line = self._answers.readline()
        if not line:
            raise BenchmarkError("scale_probe.py has ended: see its error above")
        return line.strip()


@contextmanager
def _probe(name: str, server: bytes) -> Iterator[_Probing]:
    arguments = (str(_PORT), server.hex(), str(KNOWN_PEERS), str(_HANDSHAKE_PAUSE_SECONDS))
    command = ["ip", "netns", "exec", name, sys.executable, str(_PROBE), *arguments]
    child = subprocess.Popen(  # noqa: S603 - a fixed argument list
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield _Probing(child)
    finally:
        if child.stdin is not None:
            child.stdin.close()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
