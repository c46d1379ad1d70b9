"""Two daemons that know each other: the usual scene of a test."""

import base64
from dataclasses import dataclass, field

from tests.testbed.bed import Keys, Testbed
from tests.testbed.daemons import Daemon
from tests.testbed.namespaces import Namespace, Ping

LEFT_PORT, RIGHT_PORT = 51801, 51802


@dataclass
class End:
    """One end of a tunnel; `home` is where the TUN is, which may have been moved away."""

    home: Namespace
    daemon: Daemon
    keys: Keys
    port: int
    outer4: str
    outer6: str
    inner4: str
    inner6: str

    @property
    def namespace(self) -> Namespace:
        """Where the daemon and its UDP sockets are."""
        return self.daemon.namespace

    def outer(self, version: int) -> str:
        """Return the endpoint at which this end is reached over IPv4 or IPv6."""
        return f"{self.outer4}:{self.port}" if version == 4 else f"[{self.outer6}]:{self.port}"

    def ping(self, to: "End | str", version: int = 4, **options: float) -> Ping:
        """Ping the other end through the tunnel."""
        if isinstance(to, End):
            to = to.inner4 if version == 4 else to.inner6
        return self.home.ping(
            to,
            count=int(options.get("count", 3)),
            wait_seconds=options.get("wait_seconds", 3),
        )

    def last_handshake_ns(self, other: "End") -> int:
        """Unix time of the last handshake with `other`, in nanoseconds; 0 for never."""
        return self.daemon.get().peers[as_hex(other.keys.public)].last_handshake_ns

    def endpoint_of(self, other: "End") -> str | None:
        """Return where this end believes `other` to be."""
        return self.daemon.get().peers[as_hex(other.keys.public)].values.get("endpoint")

    def set_peer(self, other: "End", *words: str) -> None:
        """Run `wg set INTERFACE peer OTHER words…`."""
        self.daemon.wg("set", "peer", other.keys.public, *words)

    def bounce(self) -> None:
        """Set the TUN down and up: the sessions are dropped, the next packet does a handshake."""
        self.home.ip("link", "set", "dev", self.daemon.interface, "down")
        self.home.ip("link", "set", "dev", self.daemon.interface, "up")
        self.daemon.wait_until_listening()


@dataclass
class Tunnel:
    """`left` knows the endpoint of `right`, which learns that of `left` from its packets."""

    bed: Testbed
    left: End
    right: End
    preshared_key: str | None = field(default=None, repr=False)

    @classmethod
    def build(
        cls,
        bed: Testbed,
        *,
        outer: int = 4,
        with_preshared_key: bool = False,
        left_command: list[str] | None = None,
        right_command: list[str] | None = None,
        left_engine: str | None = None,
        right_engine: str | None = None,
        without_ipv6: bool = False,
        outer_mtu: int = 1500,
        left_knows_right: bool = True,
        namespaces: tuple[Namespace, Namespace] | None = None,
    ) -> "Tunnel":
        """Make two joined namespaces with a daemon each, configured, addressed and up.

        `namespaces` are used instead of new ones; they are not joined yet.
        """
        namespaces = namespaces or (bed.namespace(), bed.namespace())
        if without_ipv6:
            for namespace in namespaces:
                for scope in ("all", "default", "lo"):
                    namespace.sysctl(f"net/ipv6/conf/{scope}/disable_ipv6", "1")
        bed.link(*namespaces, mtu=outer_mtu)
        for n, namespace in enumerate(namespaces, start=1):
            namespace.add_address("eth0", f"192.0.2.{n}/24")
            if not without_ipv6:
                namespace.add_address("eth0", f"2001:db8::{n}/64")
        preshared_key = bed.preshared_key() if with_preshared_key else None
        left, right = (
            End(
                home=namespace,
                daemon=bed.daemon(namespace, command=command, engine=engine),
                keys=bed.keys(),
                port=port,
                outer4=f"192.0.2.{n}",
                outer6=f"2001:db8::{n}",
                inner4=f"10.77.0.{n}",
                inner6=f"fd77::{n}",
            )
            for n, namespace, command, engine, port in (
                (1, namespaces[0], left_command, left_engine, LEFT_PORT),
                (2, namespaces[1], right_command, right_engine, RIGHT_PORT),
            )
        )
        tunnel = cls(bed, left, right, preshared_key)
        left.daemon.setconf(
            tunnel.configuration(left, right, right.outer(outer) if left_knows_right else None)
        )
        right.daemon.setconf(tunnel.configuration(right, left, None))
        for end in (left, right):
            tunnel.give_addresses(end, with_ipv6=not without_ipv6)
            end.daemon.up()
        return tunnel

    def configuration(self, end: End, other: End, endpoint: str | None) -> str:
        """Return the file for `wg setconf` that makes `other` the only peer of `end`."""
        lines = [
            "[Interface]",
            f"PrivateKey = {end.keys.private}",
            f"ListenPort = {end.port}",
            "[Peer]",
            f"PublicKey = {other.keys.public}",
            f"AllowedIPs = {other.inner4}/32, {other.inner6}/128",
        ]
        if self.preshared_key:
            lines.append(f"PresharedKey = {self.preshared_key}")
        if endpoint:
            lines.append(f"Endpoint = {endpoint}")
        return "\n".join(lines) + "\n"

    @staticmethod
    def give_addresses(end: End, *, with_ipv6: bool = True) -> None:
        """Give the TUN its inner addresses, in whatever namespace it is."""
        end.home.add_address(end.daemon.interface, f"{end.inner4}/24")
        if with_ipv6:
            end.home.add_address(end.daemon.interface, f"{end.inner6}/64")

    def assert_works(self, *, versions: tuple[int, ...] = (4, 6)) -> None:
        """Ping from left to right, then back, without a loss."""
        for version in versions:
            for sender, receiver in ((self.left, self.right), (self.right, self.left)):
                ping = sender.ping(receiver, version)
                assert ping.is_lossless, ping.output


def as_hex(base64_key: str) -> str:
    """Return a base64 key as UAPI writes it."""
    return base64.b64decode(base64_key).hex()
