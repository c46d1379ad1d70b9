"""A tunnel that everything happens to: traffic, handshakes, drops and failures of several kinds."""

import socket
import threading

from tests.testbed.bed import Testbed
from tests.testbed.tunnels import Tunnel

METRICS = "127.0.0.1:9586"
NO_PEER_HAS = "10.77.0.99"


class Scene:
    """The tunnel, with more peers at its left end: one that never answers, one without an endpoint,
    and `branches` daemons beside the right end. Give the bed WGD_METRICS=METRICS: the two ends
    serve metrics, each in its own namespace.
    """

    def __init__(self, bed: Testbed, branches: int = 0) -> None:
        self.tunnel = Tunnel.build(bed)
        self._rounds = 0
        left = self.tunnel.left
        self.silent, self.unknown = bed.keys(), bed.keys()
        words = ("endpoint", "192.0.2.2:9", "persistent-keepalive", "1")
        left.daemon.wg("set", "peer", self.silent.public, *words, "allowed-ips", "10.77.0.3/32")
        left.daemon.wg("set", "peer", self.unknown.public, "allowed-ips", "10.77.0.4/32")
        self.addresses = [self.tunnel.right.inner4]
        for number in range(1, branches + 1):
            self.addresses.append(self._add_branch(bed, number))

    def _add_branch(self, bed: Testbed, number: int) -> str:
        """Add a daemon beside the right end, known to the left one; return its inner address."""
        left, right = self.tunnel.left, self.tunnel.right
        keys, port, net = bed.keys(), 51900 + number, f"10.78.{number}"
        branch = bed.daemon(right.namespace, environment={"WGD_METRICS": ""})
        branch.setconf(
            f"[Interface]\nPrivateKey = {keys.private}\nListenPort = {port}\n"
            f"[Peer]\nPublicKey = {left.keys.public}\nAllowedIPs = {net}.1/32\n"
        )
        right.namespace.add_address(branch.interface, f"{net}.2/24")
        branch.up()
        words = ("endpoint", f"{right.outer4}:{port}", "allowed-ips", f"{net}.0/24")
        left.daemon.wg("set", "peer", keys.public, *words)
        left.home.add_address(left.daemon.interface, f"{net}.1/24")
        return f"{net}.2"

    def go_on(self, megabytes: int = 3, *, with_trouble: bool = True) -> None:
        """Let a second's worth of things happen; each further peer gets half of the one before."""
        left = self.tunnel.left
        self._rounds += 1
        if with_trouble and self._rounds % 8 == 0:
            left.bounce()
            left.daemon.wg("set", "peer", self.silent.public, "persistent-keepalive", "1")
        for number, address in enumerate(self.addresses):
            self._send(address, max(1, (megabytes << 20) >> number))
        if with_trouble:
            for address in (NO_PEER_HAS, "10.77.0.4"):
                left.home.ping(address, count=3, interval_seconds=0.01, wait_seconds=0.1)
            with left.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                for garbage in (b"", b"\x01\0\0\0" + bytes(144), b"\x04\0\0\0" + bytes(28)):
                    stranger.sendto(garbage, (left.outer4, left.port))

    def _send(self, address: str, size: int) -> None:
        """Send that many bytes of TCP from the left end to an address, and wait until they came."""
        left, right = self.tunnel.left, self.tunnel.right
        with (
            right.home.socket(socket.AF_INET, socket.SOCK_STREAM) as listener,
            left.home.socket(socket.AF_INET, socket.SOCK_STREAM) as client,
        ):
            listener.settimeout(20)
            client.settimeout(20)
            listener.bind((address, 0))
            listener.listen()
            client.connect((address, listener.getsockname()[1]))
            server, _ = listener.accept()
            with server:
                server.settimeout(20)
                sender = threading.Thread(target=client.sendall, args=(bytes(size),))
                sender.start()
                while size > 0:
                    size -= len(server.recv(1 << 20))
                sender.join()
