"""Two network namespaces joined by a veth pair, a daemon in each, and the tunnel between them.

1. the namespaces and the cable; 2. a daemon in each, in the foreground; 3. keys, endpoints and
addresses; 4. a ping, so that the handshake is over before anything is measured. All of it is made
anew for every round: neither the daemons nor the kernel (whose namespaces remember a TCP path)
know anything from the round before. It is removed in the reverse order, whatever happens.
"""

import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from processes import BenchmarkError, Process, run, wait_until

_SOCKET_DIRECTORY: Final = Path("/var/run/wireguard")
_TOOLS: Final = ("ip", "wg", "ping", "iperf3")
_TUNNEL_MTU: Final = 1420
_LISTEN_PORT: Final = 51820
_START_TIMEOUT_SECONDS: Final = 10
_PING_TIMEOUT_SECONDS: Final = 15  # a lost initiation is sent again after five


@dataclass(frozen=True)
class End:
    """One end of the tunnel: a namespace, its addresses and the daemon in it."""

    namespace: str
    interface: str
    underlay_address: str
    address: str
    directory: Path
    daemon: Process

    def start(self, *argv: str, output: str) -> Process:
        """Start a program in this namespace; `output` is the file name for what it prints."""
        return Process(_inside(self.namespace, *argv), self.directory / output)


@dataclass(frozen=True)
class Tunnel:
    """A tunnel that has carried a ping."""

    left: End
    right: End

    def check_running(self) -> None:
        """Raise BenchmarkError if one of the daemons has ended."""
        self.left.daemon.check_running()
        self.right.daemon.check_running()


def check_requirements() -> None:
    """Raise BenchmarkError, naming it, if this machine lacks something that a tunnel needs."""
    if os.geteuid() != 0:
        raise BenchmarkError("needs root, for network namespaces: run it with sudo")
    if not Path("/dev/net/tun").is_char_device():
        raise BenchmarkError("needs /dev/net/tun: run `modprobe tun`")
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        raise BenchmarkError(f"needs {', '.join(missing)} on PATH: run scripts/bootstrap")


@contextmanager
def tunnel(program: Path) -> Iterator[Tunnel]:
    """Yield a tunnel with the daemon `program` at both ends; everything is removed afterwards."""
    with ExitStack() as made:
        directory = Path(made.enter_context(TemporaryDirectory(prefix="wgd-benchmark-")))
        # The names are ours: nothing of another run, or of the user's, is ever touched.
        names = [f"wgb{os.getpid()}{side}" for side in "lr"]
        for name in names:
            made.enter_context(_namespace(name))
        _join(names)
        left, right = (
            End(
                namespace=name,
                interface=name,
                underlay_address=f"192.0.2.{number}",
                address=f"10.99.0.{number}",
                directory=directory,
                daemon=made.enter_context(_daemon(program, name, directory / f"{name}.log")),
            )
            for number, name in enumerate(names, start=1)
        )
        _configure(left, right)
        ping = left.start("ping", "-c", "1", "-w", "10", right.address, output="ping.txt")
        with ping:
            ping.wait_for_success(_PING_TIMEOUT_SECONDS)
        yield Tunnel(left, right)


def _inside(namespace: str, *argv: str | Path) -> list[str | Path]:
    return ["ip", "netns", "exec", namespace, *argv]


@contextmanager
def _namespace(name: str) -> Iterator[None]:
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield
    finally:
        run("ip", "netns", "delete", name)


def _join(names: Sequence[str]) -> None:
    left, right = names
    cable = ("cable", "netns", left, "type", "veth", "peer", "name", "cable", "netns", right)
    run("ip", "link", "add", *cable)
    for number, name in enumerate(names, start=1):
        run("ip", "-n", name, "address", "add", f"192.0.2.{number}/24", "dev", "cable")
        run("ip", "-n", name, "link", "set", "cable", "up")


@contextmanager
def _daemon(program: Path, name: str, log: Path) -> Iterator[Process]:
    """Run the daemon for interface `name` in the namespace of that name; yield when it listens."""
    uapi_socket = _SOCKET_DIRECTORY / f"{name}.sock"
    try:
        with Process(_inside(name, program, "-f", name), log) as daemon:

            def listens() -> bool:
                daemon.check_running()
                with socket.socket(socket.AF_UNIX) as client:
                    return client.connect_ex(str(uapi_socket)) == 0

            wait_until(listens, _START_TIMEOUT_SECONDS, what=f"{program} listening: {uapi_socket}")
            yield daemon
    finally:
        uapi_socket.unlink(missing_ok=True)  # in case it had to be killed


def _configure(left: End, right: End) -> None:
    keys = {end.namespace: run("wg", "genkey") for end in (left, right)}
    for here, there in ((left, right), (right, left)):
        public_key = run("wg", "pubkey", stdin=keys[there.namespace]).strip()
        device = ("listen-port", str(_LISTEN_PORT), "private-key", "/dev/stdin")
        endpoint = f"{there.underlay_address}:{_LISTEN_PORT}"
        peer = ("peer", public_key, "endpoint", endpoint, "allowed-ips", f"{there.address}/32")
        command = _inside(here.namespace, "wg", "set", here.interface, *device, *peer)
        run(*command, stdin=keys[here.namespace])
        ip = ("ip", "-n", here.namespace)
        run(*ip, "address", "add", f"{here.address}/24", "dev", here.interface)
        run(*ip, "link", "set", here.interface, "mtu", str(_TUNNEL_MTU), "up")
