"""Around a tunnel: an attacker and a newcomer, each on a cable of its own to the right end.

The attacker's addresses are 10.98.0.2 and, forged, those of 100.64.0.0/10 (nobody's on the
Internet: RFC 6598); both are routed to it, so that what answers the target sends comes back and is
counted.
"""

import base64
import os
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from flood_kinds import Flood, Target
from implementations import Implementation
from processes import BenchmarkError, Process, run, wait_until
from testbed import LISTEN_PORT, Tunnel, inside, namespace, serving

from wgd.noise.handshake import StaticIdentity
from wgd.uapi.client import Client

_ATTACKER: Final = ("10.98.0.1", "10.98.0.2")  # the target's end, and the other
_NEWCOMER: Final = ("10.97.0.1", "10.97.0.2")
_NEWCOMERS_INNER: Final = "10.99.0.3"
_FORGED: Final = "100.64.0.0"
# Prints the receiver index of the first transport message to a namespace's cable.
_SNIFFER: Final = """
import socket
sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
sniffer.bind(("cable", 0x0800))
while True:
    packet, address = sniffer.recvfrom(65535)
    payload = packet[28:]
    if address[2] != socket.PACKET_OUTGOING and packet[9] == 17 and payload[:4] == b"\\4\\0\\0\\0":
        print(int.from_bytes(payload[4:8], "little"), flush=True)
        break
"""


class FloodBed:
    """A tunnel, what attacks its right end, and who wants to join it there."""

    def __init__(self, tested: Tunnel, directory: Path, names: tuple[str, str]) -> None:
        self.tested = tested
        self._directory = directory
        self._attacker, self._newcomer = names

    def target(self) -> Target:
        """Return what an attacker who listens on the way knows; also adds a peer to record."""
        right = self.tested.right
        recorded = StaticIdentity(os.urandom(32))
        self._add_peer(recorded, "10.99.0.4")
        output = "index.txt"
        command = inside(right.namespace, sys.executable, "-c", _SNIFFER)
        with Process(command, self._directory / output) as sniffer:
            with self.tested.left.start("ping", "-i", "0.2", right.address, output="live.txt"):
                wait_until(sniffer.has_ended, 10, what="a transport message")
            index = int(sniffer.output())
        public_key = run(*inside(right.namespace, "wg", "show", right.interface, "public-key"))
        return Target(base64.b64decode(public_key), index, recorded)

    def _add_peer(self, identity: StaticIdentity, inner_address: str) -> None:
        right = self.tested.right
        key = base64.b64encode(identity.public_key).decode()
        allowed = ("peer", key, "allowed-ips", f"{inner_address}/32")
        run(*inside(right.namespace, "wg", "set", right.interface, *allowed))

    @contextmanager
    def attack(
        self, sender: Path, flood: Flood, target: Target, per_second: int, seconds: int
    ) -> Iterator[Process | None]:
        """Send a flood, or none, at most at this rate and for so long; ends on leaving."""
        datagrams = self._directory / "datagrams"
        if not _write(datagrams, flood.make(target)):
            yield None
            return
        source = _ATTACKER[1] if flood.sources == 1 else _FORGED
        arguments = (sender, datagrams, source, flood.sources, _ATTACKER[0], LISTEN_PORT)
        command = [*map(str, arguments), str(per_second), str(seconds)]
        with Process(inside(self._attacker, *command), self._directory / "sender.txt") as attack:
            yield attack

    def arrived_and_answers(self) -> tuple[int, int]:
        """Return how many packets the attacker's cable has carried to the target, and back."""
        counters = Path("/sys/class/net/cable/statistics")
        files = (counters / "tx_packets", counters / "rx_packets")
        arrived, answers = run(*inside(self._attacker, "cat", *files)).split()
        return int(arrived), int(answers)

    def join(self, timeout_seconds: float) -> float | None:
        """Let a peer join that was not there before; return the seconds until its handshake is
        done, or nothing if it took too long.
        """
        identity = StaticIdentity(private_key := os.urandom(32))
        self._add_peer(identity, _NEWCOMERS_INNER)
        right, name = self.tested.right, self._newcomer
        public_key = run(*inside(right.namespace, "wg", "show", right.interface, "public-key"))
        key = base64.b64encode(private_key).decode()
        configuration = f"[Interface]\nPrivateKey = {key}\n"
        run(*inside(name, "wg", "setconf", name, "/dev/stdin"), stdin=configuration)
        run("ip", "-n", name, "link", "set", name, "up")
        # With a persistent keepalive, and so at once.
        peer = ("peer", public_key.strip(), "allowed-ips", "10.99.0.0/24")
        where = ("endpoint", f"{_NEWCOMER[0]}:{LISTEN_PORT}", "persistent-keepalive", "25")
        began_ns = time.time_ns()
        run(*inside(name, "wg", "set", name, *peer, *where))
        done_ns = 0

        def is_done() -> bool:
            nonlocal done_ns
            self.tested.check_running()
            done_ns = Client().device(name).peers[0].last_handshake_ns
            return bool(done_ns)

        try:
            wait_until(is_done, timeout_seconds, what="the newcomer's handshake")
        except BenchmarkError:
            self.tested.check_running()
            return None
        return max(done_ns - began_ns, 0) / 1e9


@contextmanager
def flood_bed(tested: Tunnel, implementation: Implementation) -> Iterator[FloodBed]:
    """Add an attacker and a newcomer, who runs `implementation`, to a tunnel over IPv4."""
    with ExitStack() as made:
        directory = Path(made.enter_context(TemporaryDirectory(prefix="wgd-floods-")))
        names = (f"wgb{os.getpid()}a", f"wgb{os.getpid()}n")
        right = tested.right.namespace
        for name, (theirs, ours) in zip(names, (_ATTACKER, _NEWCOMER), strict=True):
            made.enter_context(namespace(name))
            there = f"to-{name[-1]}"
            cable = ("cable", "netns", name, "type", "veth", "peer", "name", there, "netns", right)
            run("ip", "link", "add", *cable)
            for place, device, address in ((right, there, theirs), (name, "cable", ours)):
                run("ip", "-n", place, "link", "set", device, "up")
                run("ip", "-n", place, "address", "add", f"{address}/24", "dev", device)
        run("ip", "-n", right, "route", "add", f"{_FORGED}/10", "via", _ATTACKER[1])
        made.enter_context(serving(implementation, names[1], directory / "newcomer.log"))
        yield FloodBed(tested, directory, names)


def build_sender(directory: Path) -> Path:
    """Compile the sender into `directory` and return it. Raises BenchmarkError without gcc."""
    program = directory / "flood_sender"
    source = Path(__file__).with_name("flood_sender.c")
    run("gcc", "-O2", "-o", program, source)
    return program


def _write(file: Path, datagrams: Iterable[bytes]) -> int:
    packed = [struct.pack("<H", len(each)) + each for each in datagrams]
    file.write_bytes(b"".join(packed))
    return len(packed)
