"""One daemon in a network namespace of its own, and a socket beside it for all of its peers.

Peer number n is at 127.1.0.0 plus n + 1, all on one port: one socket serves them all. What is made
here is removed in the reverse order, whatever happens.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from implementations import Implementation
from processes import Process, run
from testbed import inside, namespace, serving

from wgd.net.namespaces import run_in_namespace

DAEMON_PORT: Final = 51820
PEER_PORT: Final = 51821
_FIRST_ADDRESS: Final = (127 << 24) + (1 << 16) + 1
_RECEIVE_BUFFER_BYTES: Final = 64 * 2**20
_ANSWER_TIMEOUT_SECONDS: Final = 20  # a daemon sends a lost initiation again after five
_CONTROL_BYTES: Final = 64
_PACKET_INFO: Final = struct.Struct("=I4s4s")  # in_pktinfo: interface, local and header address


class PeerSocket:
    """The socket of all peers; datagrams go to the daemon and come from it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, _RECEIVE_BUFFER_BYTES)  # SO_RCVBUFFORCE
        self._socket.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        self._socket.bind(("", PEER_PORT))
        self._socket.setblocking(False)

    def send(self, peer: int, datagram: bytes) -> None:
        """Send from the address of this peer."""
        information = _PACKET_INFO.pack(0, _packed_address(peer), bytes(4))
        control = [(socket.IPPROTO_IP, 8, information)]
        self._socket.sendmsg([datagram], control, 0, ("127.0.0.1", DAEMON_PORT))

    def receive(self, *, wait: bool = True) -> tuple[int, bytes] | None:
        """Return the peer that a datagram is for, and the datagram; None if there is none yet.

        Raises TimeoutError when none comes for a long time.
        """
        if wait and not select.select([self._socket], [], [], _ANSWER_TIMEOUT_SECONDS)[0]:
            raise TimeoutError
        try:
            datagram, control, _, _ = self._socket.recvmsg(2048, _CONTROL_BYTES)
        except BlockingIOError:
            return None
        _, _, address = _PACKET_INFO.unpack(control[0][2][: _PACKET_INFO.size])
        return int.from_bytes(address, "big") - _FIRST_ADDRESS, datagram

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _inner_address(peer: int) -> str:
    return socket.inet_ntoa((0x0A000001 + peer).to_bytes(4, "big"))


def _packed_address(peer: int) -> bytes:
    return (_FIRST_ADDRESS + peer).to_bytes(4, "big")


@dataclass(frozen=True)
class Bed:
    """A running daemon, the socket of its peers, and one that sends through the tunnel."""

    name: str
    daemon: Process
    peers: PeerSocket
    inner_socket: socket.socket

    def configure(self, private_key: str, peers: Sequence[str]) -> None:
        """Give the daemon its key and its peers' (base64), and set the link up.

        Peer number n has the inner address 10.0.0.0 plus n + 1, and is heard first: the daemon
        learns from it where it is.
        """
        lines = [f"[Interface]\nPrivateKey = {private_key}\nListenPort = {DAEMON_PORT}"]
        for number, public_key in enumerate(peers):
            allowed = _inner_address(number)
            lines.append(f"[Peer]\nPublicKey = {public_key}\nAllowedIPs = {allowed}/32")
        setconf = inside(self.name, "wg", "setconf", self.name, "/dev/stdin")
        run(*setconf, stdin="\n".join(lines))
        run("ip", "-n", self.name, "link", "set", self.name, "up")
        run("ip", "-n", self.name, "address", "add", "10.255.255.254/8", "dev", self.name)

    def send_data(self, peer: int) -> None:
        """Send a datagram into the tunnel, to this peer."""
        self.inner_socket.sendto(b"", (_inner_address(peer), 9))

    def cpu_seconds(self) -> float:
        """Return what all threads of the daemon have used so far, in user and kernel mode."""
        # The CPU clock of a process, to the nanosecond: clock_getcpuclockid(3).
        return time.clock_gettime((~self.daemon.pid << 3) | 2)


@contextmanager
def bed(implementation: Implementation) -> Iterator[Bed]:
    """Yield a bed with this daemon; everything is removed afterwards."""
    name = f"wgb{os.getpid()}h"
    with ExitStack() as made:
        directory = Path(made.enter_context(TemporaryDirectory(prefix="wgd-benchmark-")))
        made.enter_context(namespace(name))
        run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        namespace_fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
        made.callback(os.close, namespace_fd)
        peers = run_in_namespace(namespace_fd, PeerSocket)
        made.callback(peers.close)
        inner = run_in_namespace(namespace_fd, lambda: socket.socket(type=socket.SOCK_DGRAM))
        made.callback(inner.close)
        daemon = made.enter_context(serving(implementation, name, directory / "daemon.log"))
        yield Bed(name, daemon, peers, inner)
