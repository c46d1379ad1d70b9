"""Two daemons with a relay between them, which is the only way from one to the other."""

from contextlib import AbstractContextManager
from types import TracebackType

from tests.faults.relay import LEFT, RIGHT, Relay
from tests.faults.weather import MILLISECOND_NS, Faults
from tests.testbed import Namespace, Testbed, Tunnel

FAULTS = {
    "nothing": Faults(),
    "loss": Faults(loss=0.03),
    "duplication": Faults(duplication=0.3),
    "reordering": Faults(reordering=0.2, held_back_ns=5 * MILLISECOND_NS),
    "corruption": Faults(corruption=0.03),
    "delay": Faults(delay_ns=10 * MILLISECOND_NS, jitter_ns=5 * MILLISECOND_NS),
    "black hole": Faults(black_hole_above_bytes=1300),
    "mix": Faults(
        loss=0.01,
        duplication=0.05,
        reordering=0.05,
        corruption=0.01,
        delay_ns=5 * MILLISECOND_NS,
        jitter_ns=2 * MILLISECOND_NS,
    ),
}
"""Any but the last two in itself is a bad day on the internet."""

ADDRESSES = {LEFT: ("198.18.1.101", "198.18.1.102"), RIGHT: ("198.18.2.101", "198.18.2.102")}
"""The relay's, on either side: it begins at the first of each."""

_LEFT_ADDRESS, _RIGHT_ADDRESS = "198.18.1.1", "198.18.2.2"


class BadNetwork(AbstractContextManager["BadNetwork"]):
    """A tunnel through a relay, whose faults the user chooses; the testbed removes it all.

    TCP in both namespaces looks for a smaller MTU when nothing gets through (RFC 4821), which
    Linux does not do by default: nobody else could find a way through a black hole.
    """

    def __init__(
        self,
        bed: Testbed,
        seed: int,
        *,
        left_command: list[str] | None = None,
        right_command: list[str] | None = None,
    ) -> None:
        self.tunnel = Tunnel.build(
            bed, left_command=left_command, right_command=right_command, without_ipv6=True
        )
        left, right = self.tunnel.left, self.tunnel.right
        middle = bed.namespace()
        left.namespace.ip("link", "delete", "eth0")
        _join(bed, left.namespace, middle, "wan1", _LEFT_ADDRESS, ADDRESSES[LEFT])
        _join(bed, right.namespace, middle, "wan2", _RIGHT_ADDRESS, ADDRESSES[RIGHT])
        for end in (left, right):
            end.namespace.sysctl("net/ipv4/tcp_mtu_probing", "1")
            # What was learnt of a path under one fault must not help under the next.
            end.namespace.sysctl("net/ipv4/tcp_no_metrics_save", "1")
        firsts = {side: addresses[0] for side, addresses in ADDRESSES.items()}
        self.relay = Relay(middle, firsts, (_RIGHT_ADDRESS, right.port), seed)
        left.set_peer(right, "endpoint", self.relay.endpoint(LEFT))

    def __enter__(self) -> "BadNetwork":
        self.relay.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.relay.__exit__(kind, error, traceback)


def _join(
    bed: Testbed,
    end: Namespace,
    middle: Namespace,
    name: str,
    address: str,
    addresses: tuple[str, ...],
) -> None:
    bed.link(end, middle, name=name)
    end.add_address(name, f"{address}/24")
    for relay in addresses:
        middle.add_address(name, f"{relay}/24")
