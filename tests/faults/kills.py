"""`kill -9` at a random moment of a daemon's life, then the next start: what `kill_at` does.

    moment      the kill comes while
    start       the daemon starts
    set         it is given three hundred peers
    traffic     packets go both ways
    upgrade     it becomes the program on disk (SIGUSR2)
    shutdown    it ends (SIGTERM)
    nobody      it starts, or has started, with --user nobody; its janitor is spared
    up          `wgdctl up` makes a full tunnel; wgdctl, the daemon or both are killed
    config      `wgd --config` makes one

The next start must work, packets must pass, and after its orderly end there is nothing left: no
process, interface, socket, journal, route, rule or firewall table. What of it a killed one leaves
until then is its business: `wgdctl up` and `wgd --config` undo it.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.quick.scene import FAR_ADDRESSES, FULL_TUNNEL, SERVER_PORT, Scene, assert_same
from tests.testbed import wait_until
from tests.testbed.uapi import SOCKET_DIRECTORY

MOMENTS = ("start", "set", "traffic", "upgrade", "shutdown", "nobody", "up", "config")

SERVER_ADDRESS = "10.77.0.2"
_START_SECONDS = dict.fromkeys(MOMENTS, 0.5) | {"nobody": 0.8, "up": 2.0, "config": 1.2}
"""How long a start takes, for the first round; then it is known."""
_VICTIMS = ("everybody", "everybody", "wgdctl", "daemon")
_JANITOR = "wgd-janitor"
_DAEMONS = ("wgd", "wireguard")
_PEERS = 300


@dataclass(frozen=True)
class Killed:
    """A round: how far it had come when it was killed, and how long the next start took."""

    moment: str
    seed: int
    after_seconds: float
    left_files: int
    """Files that the killed one left, until the next start."""
    next_start_seconds: float


class Killer:
    """Kills daemons for the client's `interface` of a scene, which is the same in every round.

    `daemon` is the program for the moments without `wgdctl`.
    """

    def __init__(self, scene: Scene, daemon: tuple[str, ...] = ("wgd",)) -> None:
        self._scene = scene
        self._daemon = daemon
        self.interface = scene.interface()
        self._socket_path = SOCKET_DIRECTORY / f"{self.interface}.sock"
        self._file = scene.write(self.interface, "Address = 10.77.0.1/24, fd77::1/64", FULL_TUNNEL)
        self._configuration = (
            f"[Interface]\nPrivateKey = {scene.client_keys.private}\n"
            f"[Peer]\nPublicKey = {scene.server_keys.public}\nAllowedIPs = {SERVER_ADDRESS}/32\n"
            f"Endpoint = 192.0.2.2:{SERVER_PORT}\n"
        )
        self._before = self.state()
        self._start_seconds = {**_START_SECONDS}
        self._launched: subprocess.Popen[str] | None = None
        """The command that was started last."""

    def state(self) -> str:
        """Return all that a start may change."""
        return self._scene.state(self.interface)

    def kill_at(self, moment: str, seed: int) -> Killed:
        """Do a round. AssertionError if anything is not as it must be."""
        chance = random.Random(f"{moment}{seed}")
        began = self._reach(moment, chance)
        time.sleep(max(0.0, chance.uniform(0, self._span(moment))))
        after_seconds = time.monotonic() - began
        was_ready = self._launched is not None and self._launched.poll() == 0
        self._kill(chance.choice(_VICTIMS) if moment == "up" else "everybody")
        left_files = len(self._files())
        if moment == "nobody" and self._socket_path.exists():
            # Killed as root, before the janitor was told; else that has removed it.
            assert not was_ready, "a socket was left behind"
        seconds = self._start_seconds[moment] = self._start(moment)
        self._end(moment)
        assert_same(self.state(), self._before)
        return Killed(moment, seed, after_seconds, left_files, seconds)

    # -- one life ----------------------------------------------------------------------------------

    def _span(self, moment: str) -> float:
        """Return up to how many seconds after `_reach` the kill may come."""
        if moment in ("start", "up", "config", "nobody"):
            return 1.2 * self._start_seconds[moment]
        return {"set": 0.1, "traffic": 0.3, "upgrade": 1.2, "shutdown": 0.1}[moment]

    def _reach(self, moment: str, chance: random.Random) -> float:
        """Come to where the moment begins; return its monotonic time."""
        if moment in ("start", "nobody", "up", "config"):
            began = time.monotonic()
            self._launch(moment)
            return began
        self._start(moment)
        began = time.monotonic()
        match moment:
            case "set":
                self._send_peers(chance)
            case "traffic":
                self._spawn("ping", "-q", "-f", SERVER_ADDRESS)
            case "upgrade":
                self._signal(signal.SIGUSR2)
            case "shutdown":
                self._signal(signal.SIGTERM)
        return began

    def _start(self, moment: str) -> float:
        """Start it, see that packets pass, and return how long the start alone took."""
        began = time.monotonic()
        process = self._launch(moment)
        output, _ = process.communicate(timeout=30)
        seconds = time.monotonic() - began
        assert process.returncode == 0, f"the next start failed: {output}"
        client = self._scene.client
        address = FAR_ADDRESSES[0]
        if moment not in ("up", "config"):
            client.run("wg", "setconf", self.interface, "/dev/stdin", stdin=self._configuration)
            client.add_address(self.interface, "10.77.0.1/24")
            client.ip("link", "set", self.interface, "up")
            address = SERVER_ADDRESS
        ping = client.run("ping", "-n", "-c", "1", "-i", "0.2", "-w", "10", address, check=False)
        assert " 0% packet loss" in ping.stdout, ping.stdout
        return seconds

    def _end(self, moment: str) -> None:
        """End it in order."""
        if moment == "up":
            self._scene.run("wgdctl", "down", self._file)
        else:
            self._signal(signal.SIGTERM)
        wait_until(lambda: not self._scene.client.pids(), 10, what="an orderly end")
        assert not self._files(), self._files()

    def _launch(self, moment: str) -> "subprocess.Popen[str]":
        match moment:
            case "up":
                return self._spawn("wgdctl", "up", self._file)
            case "config":
                return self._spawn("wgd", "--config", self._file, self.interface)
            case "nobody":
                return self._spawn(*self._daemon, self.interface, WGD_USER="nobody")
            case _:
                return self._spawn(*self._daemon, self.interface)

    def _spawn(self, *command: str | Path, **environment: str) -> "subprocess.Popen[str]":
        self._launched = start(self._scene, *command, **environment)
        return self._launched

    def _send_peers(self, chance: random.Random) -> None:
        """Send a set of many peers, and wait for no answer."""
        lines = "".join(
            f"public_key={chance.randbytes(32).hex()}\nallowed_ip=10.{n // 250}.{n % 250}.0/24\n"
            for n in range(_PEERS)
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(self._socket_path))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.send(f"set=1\n{lines}\n".encode())
            # Closed at once, which is no reason not to apply what came whole.

    # -- processes and files -----------------------------------------------------------------------

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the daemon, wherever it is in its start."""
        for pid in self._scene.client.pids():
            if process_name(pid) in _DAEMONS:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _kill(self, who: str) -> None:
        """Kill, and wait until nothing is left that would not stay by itself."""
        assert self._launched is not None
        match who:
            case "everybody":
                while pids := [p for p in self._scene.client.pids() if process_name(p) != _JANITOR]:
                    for pid in pids:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    time.sleep(0.005)
            case "wgdctl":
                self._launched.kill()
                self._launched.wait()
                # What it has begun, it has written down; it may have come to its end, too.
                self._scene.run("wgdctl", "down", self._file, check=False)
            case "daemon":
                self._signal(signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._launched.wait(20)
        self._launched.communicate(timeout=20)
        wait_until(lambda: not self._scene.client.pids(), 10, what="the end of every process")

    def _files(self) -> list[str]:
        text = self.state().partition("files:\n")[2]
        return text.split()


def start(scene: Scene, *command: str | Path, **environment: str) -> "subprocess.Popen[str]":
    """Start a program in the client's namespace; its output can be read."""
    inherited: Mapping[str, str] = {**os.environ, **scene.environment()}
    program = shutil.which(command[0], path=inherited["PATH"]) or command[0]
    return subprocess.Popen(
        scene.client.command(program, *command[1:]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**inherited, **environment},
    )


def process_name(pid: int) -> str:
    """Return what a process is called; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
