"""What can go wrong with the network under a tunnel, made on purpose, and what sending says."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.testbed import Tunnel

_DROP = (
    "table inet fault {\n chain out {\n  type filter hook output priority 0;\n"
    "  udp dport 51802 drop\n }\n}\n"
)


@dataclass(frozen=True)
class NetworkFault:
    """Something that is broken at the left end's network, or on the way, and mended again.

    `errno` is the name of what sending fails with; "" where it seems to work.
    """

    name: str
    errno: str
    begin: Callable[[Tunnel], None]
    end: Callable[[Tunnel], None]


def _route(kind: str) -> Callable[[Tunnel], None]:
    def add(tunnel: Tunnel) -> None:
        tunnel.left.namespace.ip("route", "add", kind, tunnel.right.outer4)

    return add


def _no_route(kind: str) -> Callable[[Tunnel], None]:
    def delete(tunnel: Tunnel) -> None:
        tunnel.left.namespace.ip("route", "delete", kind, tunnel.right.outer4)

    return delete


def _filter(tunnel: Tunnel) -> None:
    tunnel.left.namespace.run("nft", "-f", "-", stdin=_DROP)


def _no_filter(tunnel: Tunnel) -> None:
    tunnel.left.namespace.run("nft", "delete", "table", "inet", "fault")


def _slow_queue(tunnel: Tunnel) -> None:
    # So much waits in it that the socket's buffer is full.
    tunnel.left.namespace.run(
        *("tc", "qdisc", "add", "dev", "eth0", "root"),
        *("tbf", "rate", "8kbit", "burst", "1540", "limit", "64mb"),
    )


def _no_slow_queue(tunnel: Tunnel) -> None:
    tunnel.left.namespace.run("tc", "qdisc", "del", "dev", "eth0", "root")


def _link_down(tunnel: Tunnel) -> None:
    tunnel.left.namespace.ip("link", "set", "eth0", "down")


def _link_up(tunnel: Tunnel) -> None:
    tunnel.left.namespace.ip("link", "set", "eth0", "up")


def _no_addresses(tunnel: Tunnel) -> None:
    tunnel.left.namespace.ip("address", "flush", "dev", "eth0")


def _addresses(tunnel: Tunnel) -> None:
    tunnel.left.namespace.add_address("eth0", f"{tunnel.left.outer4}/24")


def _no_cable(tunnel: Tunnel) -> None:
    tunnel.left.namespace.ip("link", "delete", "eth0")


def _cable(tunnel: Tunnel) -> None:
    tunnel.bed.link(tunnel.left.namespace, tunnel.right.namespace)
    for end in (tunnel.left, tunnel.right):
        end.namespace.add_address("eth0", f"{end.outer4}/24")


def _far_link_down(tunnel: Tunnel) -> None:
    tunnel.right.namespace.ip("link", "set", "eth0", "down")


def _far_link_up(tunnel: Tunnel) -> None:
    tunnel.right.namespace.ip("link", "set", "eth0", "up")


NETWORK_FAULTS = (
    *(
        NetworkFault(f"a route of type {kind}", errno, _route(kind), _no_route(kind))
        for kind, errno in (
            ("unreachable", "EHOSTUNREACH"),
            ("prohibit", "EACCES"),
            ("blackhole", "EINVAL"),
        )
    ),
    NetworkFault("a firewall that drops", "EPERM", _filter, _no_filter),
    NetworkFault("a send buffer that is full", "EAGAIN", _slow_queue, _no_slow_queue),
    NetworkFault("our link is down", "ENETUNREACH", _link_down, _link_up),
    NetworkFault("our addresses are flushed", "ENETUNREACH", _no_addresses, _addresses),
    NetworkFault("the veth pair is deleted", "ENETUNREACH", _no_cable, _cable),
    NetworkFault("the peer's link is down", "", _far_link_down, _far_link_up),
)
