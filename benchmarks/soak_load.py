"""What goes on during a soak: streams, requests, peers that come and go, moves and flaps.

Every activity has a period. A short run shortens the periods, so that each happens at least once.
"""

import os
import re
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

import iperf3
from implementations import Implementation
from processes import BenchmarkError, run
from soak_talk import Conversation, ask, connected, exchange, metrics_of, public_key_of
from testbed import LISTEN_PORT, Tunnel

# What an end that has moved, or whose link came back, may take to be heard again: a handshake that
# is lost meanwhile is tried again after 5 s.
DISTURBANCE_SECONDS: Final = 6.0
_BATCH: Final = 100
_BATCHES: Final = 3
_CROWD: Final = 20
_STREAM_SECONDS: Final = 60
_TCP: Final = ("--bitrate", "8M", "--set-mss", "1300")
_UDP_BACK: Final = ("--udp", "--bitrate", "2M", "--length", "1200", "--reverse")
_NEW_PORT: Final = LISTEN_PORT + 1
_NEW_ADDRESS_NUMBER: Final = 12


@dataclass
class Activity:
    """Something that is done again and again; `failures` holds what went wrong, if anything."""

    name: str
    period_seconds: float
    action: Callable[[], None]
    due: float = 0.0
    runs: int = 0
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Do it once; an error is noted."""
        self.runs += 1
        try:
            self.action()
        except (BenchmarkError, OSError, EOFError) as error:
            self.failures.append(f"{self.name}: {error}")


class Load:
    """The activities of a soak on a tunnel; a context manager that ends what it started.

    `disturbances` holds when (Unix time) the tunnel was cut on purpose.
    """

    def __init__(
        self, tested: Tunnel, implementations: Sequence[Implementation], seconds: float
    ) -> None:
        self.disturbances: list[float] = []
        self.flaps = 0
        self.streams = 0
        self.broken_streams = 0
        self.crowd_handshakes = 0
        self.carried_bytes = 0
        self._tested = tested
        self._streams: dict[int, tuple[ExitStack, iperf3.Load]] = {}
        self._stream_seconds = max(1, min(_STREAM_SECONDS, round(seconds / 3)))
        ends = (tested.left, tested.right)
        self._wgd_ends = [
            end
            for end, implementation in zip(ends, implementations, strict=True)
            if implementation.name.startswith("wgd")
        ]
        self._python = next(
            implementation.program.parent / "python"
            for implementation in implementations
            if implementation.name.startswith("wgd")
        )
        self._keys = [public_key_of(end) for end in ends]
        self._batches: list[list[str]] = []
        self._port = LISTEN_PORT
        self._address_number = 2
        self._turn = 0
        self._handshakes: set[tuple[str, ...]] = set()
        periods = (
            ("streams: started anew", 1.0, self._keep_streams),
            ("get of both ends", 1.0, self._get),
            ("set: 100 peers added, 100 removed", 5.0, self._churn),
            ("unfinished and wrong requests", 5.0, self._misbehave),
            ("metrics read", 5.0, self._scrape),
            ("set: keepalive, preshared key", 10.0, self._set),
            ("wg, wgdctl, wgdctl top", 15.0, self._show),
            (f"{_CROWD} peers with handshakes", 60.0, self._crowd),
            ("far end: new port", 90.0, self._change_port),
            ("far end: new address", 150.0, self._change_address),
            ("SIGUSR1", 120.0, self._toggle_logging),
            ("link down and up", 600.0, self._flap),
        )
        now = time.monotonic()
        self.activities: list[Activity] = []
        for name, period, action in periods:
            shortened = min(period, seconds)
            # Not all at once: those with the same period begin at different times.
            due = now + shortened * 0.9 * len(self.activities) / len(periods)
            self.activities.append(Activity(name, shortened, action, due))

    def __enter__(self) -> "Load":
        # Else the second address goes with the first when that is removed.
        setting = "net.ipv4.conf.all.promote_secondaries=1"
        run("ip", "netns", "exec", self._tested.right.namespace, "sysctl", "-qw", setting)
        return self

    def __exit__(self, *_exception: object) -> None:
        for stack, _load in self._streams.values():
            stack.close()

    @property
    def next_due(self) -> float:
        """When something is due next, of the monotonic clock."""
        return min(activity.due for activity in self.activities)

    @property
    def handshakes(self) -> int:
        """How many handshakes of the two ends with each other were seen, after the first."""
        return max(0, len(self._handshakes - {("0", "0")}) - 1)

    def run_next(self) -> None:
        """Do what is due longest, if anything is."""
        activity = min(self.activities, key=lambda activity: activity.due)
        if time.monotonic() >= activity.due:
            activity.run()
            activity.due = max(activity.due + activity.period_seconds, time.monotonic())

    # -- traffic -----------------------------------------------------------------------------------

    def _keep_streams(self) -> None:
        """Start a stream where none is, or the last one is over."""
        for port, options in ((5201, _TCP), (5202, _UDP_BACK)):
            if port in self._streams:
                stack, stream = self._streams[port]
                if not stream.is_over():
                    continue
                del self._streams[port]
                try:
                    self.carried_bytes += stream.wait().received_bytes
                except BenchmarkError:
                    self.broken_streams += 1
                finally:
                    stack.close()
            stack = ExitStack()
            stream = stack.enter_context(
                iperf3.load(self._tested, self._stream_seconds, *options, port=port)
            )
            self._streams[port] = stack, stream
            self.streams += 1

    # -- configuration -----------------------------------------------------------------------------

    def _get(self) -> None:
        """Ask both ends, and see whether they have made a handshake since."""
        of_right = ask(self._tested.left, "get=1\n\n").partition(f"public_key={self._keys[1]}\n")[2]
        of_right = of_right.partition("public_key=")[0]
        latest = re.findall(r"^last_handshake_time_(?:sec|nsec)=(.+)$", of_right, re.MULTILINE)
        self._handshakes.add(tuple(latest))
        ask(self._tested.right, "get=1\n\n")

    def _churn(self) -> None:
        """Add peers, some of which are spoken to in vain, and remove the oldest."""
        batch = [secrets.token_hex(32) for _ in range(_BATCH)]
        lines = ["set=1"]
        for number, key in enumerate(batch):
            host = 1 + (len(self._batches) * _BATCH + number) % 250
            lines += [
                f"public_key={key}",
                f"preshared_key={secrets.token_hex(32)}",
                f"allowed_ip=10.{100 + number}.{self._turn % 250}.{host}/32",
                f"allowed_ip=fd99:{number:x}:{self._turn % 65536:x}::/64",
            ]
            if number % 20 == 0:
                # A port where nobody listens: initiations, and what the kernel says of them.
                lines += ["endpoint=192.0.2.2:9", "persistent_keepalive_interval=1"]
        self._turn += 1
        self._batches.append(batch)
        if len(self._batches) > _BATCHES:
            for key in self._batches.pop(0):
                lines += [f"public_key={key}", "remove=true"]
        ask(self._tested.left, "\n".join(lines) + "\n\n")

    def _misbehave(self) -> None:
        for end in (self._tested.left, self._tested.right):
            with connected(end) as client:
                client.sendall(b"set=1\npublic_key=")
            with connected(end) as client:
                client.sendall(b"get=1\n\n")  # and gone before the answer
            if "errno=0\n" in exchange(end, "set=1\nlisten_port=a\n\n"):
                raise BenchmarkError("a wrong request was taken")

    def _scrape(self) -> None:
        for end in self._wgd_ends:
            metrics_of(end)

    def _set(self) -> None:
        """Change what the next handshake, and the present session, use; both ends agree."""
        keepalive = self._turn % 2 * 25
        preshared_key = secrets.token_hex(32)
        for end, key in zip((self._tested.left, self._tested.right), self._keys[::-1], strict=True):
            ask(
                end,
                f"set=1\nfwmark=0\npublic_key={key}\nupdate_only=true\n"
                f"preshared_key={preshared_key}\npersistent_keepalive_interval={keepalive}\n\n",
            )

    def _show(self) -> None:
        wgdctl = self._python.parent / "wgdctl"
        for end in (self._tested.left, self._tested.right):
            run("wg", "show", end.interface, "dump")
        run(wgdctl, "show", self._tested.left.interface, "dump")
        if self._turn % 2:
            run(wgdctl, "top", "--once", self._tested.left.interface)

    def _crowd(self) -> None:
        """Let peers come that are real, see each make a handshake, and remove them."""
        left = self._tested.left
        crowd = [
            *("ip", "netns", "exec", self._tested.right.namespace, str(self._python)),
            *("-m", "tests.testbed.crowd", str(_CROWD), self._keys[0]),
            f"{left.underlay_address}:{LISTEN_PORT}",
        ]
        with Conversation(crowd) as peers:
            keys = peers.lines_until("")
            ask(left, "set=1\n" + "".join(f"public_key={key}\n" for key in keys) + "\n")
            try:
                peers.say()
                peers.lines_until("done")
                self.crowd_handshakes += len(keys)
            finally:
                removal = "".join(f"public_key={key}\nremove=true\n" for key in keys)
                ask(left, f"set=1\n{removal}\n")

    # -- disturbances ------------------------------------------------------------------------------

    def _disturb(self) -> None:
        self.disturbances.append(time.time())

    def _change_port(self) -> None:
        self._disturb()
        self._port = _NEW_PORT if self._port == LISTEN_PORT else LISTEN_PORT
        ask(self._tested.right, f"set=1\nlisten_port={self._port}\n\n")

    def _change_address(self) -> None:
        self._disturb()
        old = self._address_number
        self._address_number = 2 if old != 2 else _NEW_ADDRESS_NUMBER
        address = ("ip", "-n", self._tested.right.namespace, "address")
        for action, number in (("add", self._address_number), ("delete", old)):
            underlay = f"{self._tested.family.underlay_address(number)}/24"
            run(*address, action, underlay, "dev", "cable")

    def _flap(self) -> None:
        self._disturb()
        self.flaps += 1
        left = self._tested.left
        for state in ("down", "up"):
            run("ip", "-n", left.namespace, "link", "set", left.interface, state)
        self._disturb()

    def _toggle_logging(self) -> None:
        for end in self._wgd_ends:
            os.kill(end.daemon.pid, signal.SIGUSR1)
