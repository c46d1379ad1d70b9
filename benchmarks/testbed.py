"""Two network namespaces joined by a veth pair, a daemon in each, and the tunnel between them.

1. the namespaces and the cable; 2. a daemon in each, in the foreground; 3. keys, endpoints and
addresses; 4. a ping as large as the MTU allows, so that the handshake is over, and the MTU noticed,
before anything is measured. All of it is made anew for every round: neither the daemons nor the
kernel (whose namespaces remember a TCP path) know anything from the round before. It is removed in
the reverse order, whatever happens.
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

from family import Family
from implementations import Implementation
from processes import BenchmarkError, Process, run, wait_until

SOCKET_DIRECTORY: Final = Path("/var/run/wireguard")
_TOOLS: Final = ("ip", "wg", "ping", "iperf3")
_ETHERNET_MTUS: Final = (1500, 9000)
LISTEN_PORT: Final = 51820
_ICMP_HEADER_BYTES: Final = 8
_START_TIMEOUT_SECONDS: Final = 10
_PING_SECONDS: Final = 15  # a lost initiation is sent again after five
_PING_TIMEOUT_SECONDS: Final = _PING_SECONDS + 5


class NoTunnelError(BenchmarkError):
    """The daemons, as they are, carry no packet from one end to the other."""


@dataclass(frozen=True)
class End:
    """One end of the tunnel: a namespace, its addresses and the daemon in it."""

    namespace: str
    interface: str
    underlay_address: str
    address: str
    directory: Path
    daemon: Process

    @property
    def uapi_socket(self) -> Path:
        """The daemon's configuration socket."""
        return SOCKET_DIRECTORY / f"{self.interface}.sock"

    def start(self, *argv: str, output: str) -> Process:
        """Start a program in this namespace; `output` is the file name for what it prints."""
        return Process(inside(self.namespace, *argv), self.directory / output)

    def sent_bytes(self) -> int:
        """Return how many bytes this end has sent into the tunnel: proc(5), net/dev."""
        for line in Path(f"/proc/{self.daemon.pid}/net/dev").read_text().splitlines():
            name, _, counters = line.partition(":")
            if name.strip() == self.interface:
                return int(counters.split()[8])
        raise BenchmarkError(f"the interface {self.interface} is gone")


@dataclass(frozen=True)
class Tunnel:
    """A tunnel that has carried a ping."""

    left: End
    right: End
    mtu: int
    family: Family

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
def tunnel(
    implementation: Implementation, mtu: int, family: Family, other: Implementation | None = None
) -> Iterator[Tunnel]:
    """Yield a tunnel with this daemon at both ends; everything is removed afterwards.

    With `other`, that one is at the right end.

    Raises BenchmarkError, NoTunnelError if no ping of `mtu` bytes comes through.
    """
    with ExitStack() as made:
        directory = Path(made.enter_context(TemporaryDirectory(prefix="wgd-benchmark-")))
        # The names are ours: nothing of another run, or of the user's, is ever touched.
        names = [f"wgb{os.getpid()}{side}" for side in "lr"]
        for name in names:
            made.enter_context(namespace(name))
        _join(names, mtu, family)
        made.enter_context(_owner_kept(SOCKET_DIRECTORY))
        left, right = (
            End(
                namespace=name,
                interface=name,
                underlay_address=family.underlay_address(number),
                address=family.address(number),
                directory=directory,
                daemon=made.enter_context(serving(daemon, name, directory / f"{name}.log")),
            )
            for number, (name, daemon) in enumerate(
                zip(names, (implementation, other or implementation), strict=True), start=1
            )
        )
        tested = Tunnel(left, right, mtu, family)
        _configure(tested)
        _ping_full_size(tested)
        yield tested


def inside(name: str, *argv: str | Path) -> list[str | Path]:
    """Return the command line that runs another one in the namespace of that name."""
    return ["ip", "netns", "exec", name, *argv]


@contextmanager
def namespace(name: str) -> Iterator[None]:
    """Make a network namespace, and delete it afterwards."""
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield
    finally:
        run("ip", "netns", "delete", name)


def _join(names: Sequence[str], mtu: int, family: Family) -> None:
    datagram = mtu + family.link_mtu_overhead_bytes
    cable_mtu = next((usual for usual in _ETHERNET_MTUS if usual >= datagram), datagram)
    left, right = names
    cable = ("cable", "netns", left, "type", "veth", "peer", "name", "cable", "netns", right)
    run("ip", "link", "add", *cable)
    for number, name in enumerate(names, start=1):
        run("ip", "-n", name, "link", "set", "cable", "mtu", str(cable_mtu), "up")
        _add_address(name, "cable", family.underlay_address(number), family)


def _add_address(namespace: str, device: str, address: str, family: Family) -> None:
    # Nobody else is on the link: an IPv6 address need not wait for that to be proved.
    at_once = ("nodad",) if family is Family.V6 else ()
    with_prefix = f"{address}/{family.prefix_length}"
    run("ip", "-n", namespace, "address", "add", with_prefix, "dev", device, *at_once)


@contextmanager
def _owner_kept(directory: Path) -> Iterator[None]:
    """Give the directory of all sockets its owner back: boringtun makes it the login user's."""
    if not directory.exists():
        yield
        return
    before = directory.stat()
    try:
        yield
    finally:
        os.chown(directory, before.st_uid, before.st_gid)


@contextmanager
def serving(implementation: Implementation, name: str, log: Path) -> Iterator[Process]:
    """Run the daemon for interface `name` in the namespace of that name; yield when it listens."""
    uapi_socket = SOCKET_DIRECTORY / f"{name}.sock"
    command = inside(name, *implementation.command(name))
    try:
        with Process(command, log, implementation.environment) as daemon:

            def listens() -> bool:
                daemon.check_running()
                with socket.socket(socket.AF_UNIX) as client:
                    return client.connect_ex(str(uapi_socket)) == 0

            what = f"{implementation.name} listening: {uapi_socket}"
            wait_until(listens, _START_TIMEOUT_SECONDS, what=what)
            yield daemon
    finally:
        uapi_socket.unlink(missing_ok=True)  # in case it had to be killed


def _configure(tested: Tunnel) -> None:
    family, ends = tested.family, (tested.left, tested.right)
    keys = {end.namespace: run("wg", "genkey").strip() for end in ends}
    for here, there in (ends, ends[::-1]):
        # All at once: boringtun takes one operation per connection, and no change to a peer.
        configuration = (
            f"[Interface]\nPrivateKey = {keys[here.namespace]}\nListenPort = {LISTEN_PORT}\n"
            f"[Peer]\nPublicKey = {run('wg', 'pubkey', stdin=keys[there.namespace]).strip()}\n"
            f"Endpoint = {family.endpoint(there.underlay_address, LISTEN_PORT)}\n"
            f"AllowedIPs = {there.address}/{family.host_prefix_length}\n"
        )
        setconf = inside(here.namespace, "wg", "setconf", here.interface, "/dev/stdin")
        run(*setconf, stdin=configuration)
    for end in ends:
        link = ("ip", "-n", end.namespace, "link", "set", end.interface)
        run(*link, "mtu", str(tested.mtu), "up")
        _add_address(end.namespace, end.interface, end.address, family)


def _ping_full_size(tested: Tunnel) -> None:
    size = tested.mtu - tested.family.header_bytes - _ICMP_HEADER_BYTES
    options = ("-M", "do", "-s", str(size), "-c", "1", "-i", "0.2", "-w", str(_PING_SECONDS))
    with tested.left.start("ping", *options, tested.right.address, output="ping.txt") as ping:

        def is_answered() -> bool:
            tested.check_running()
            return ping.has_ended()

        wait_until(is_answered, _PING_TIMEOUT_SECONDS, what="the first ping")
        try:
            ping.wait_for_success(0)
        except BenchmarkError as error:
            raise NoTunnelError(f"no ping of {tested.mtu} bytes comes through") from error
