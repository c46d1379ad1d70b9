"""How the faults are made: silence, firewalls, clocks, pings."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.doctor.clinic import Visit
from tests.testbed import End, Namespace, Tunnel, require, wait_until
from wgd.diagnosis import FailureReason
from wgd.status import DeviceStatus
from wgd.uapi.client import Client

NO_PROBE = "--no-probe"


def status(end: End) -> DeviceStatus:
    return Client().status(end.daemon.interface)


def set_endpoint(tunnel: Tunnel, endpoint: str) -> None:
    tunnel.left.set_peer(tunnel.right, "endpoint", endpoint)


def call_in_vain(end: End, other: End) -> None:
    """Send something to the other end and wait until the handshake counts as unanswered."""
    end.ping(other, count=1, wait_seconds=0.1)
    wait_until(
        lambda: status(end).peers[0].unanswered_initiations,
        15,
        what="an initiation that is not answered",
    )


def wait_for_failure(end: End, reason: FailureReason) -> None:
    """Wait until an end has noted a failure, of a peer or of nobody."""

    def is_noted() -> bool:
        now = status(end)
        failures = [*now.failures, *(failure for peer in now.peers for failure in peer.failures)]
        return any(failure.reason is reason for failure in failures)

    wait_until(is_noted, 10, what=f"{reason} noted")


def nft(namespace: Namespace, hook: str, rule: str) -> None:
    """Add a firewall rule to a namespace's input or output."""
    require("nft")
    text = f"""table inet test {{
        chain {hook} {{
            type filter hook {hook} priority 0; policy accept;
            {rule}
        }}
    }}"""
    namespace.run("nft", "-f", "-", stdin=text)


@contextmanager
def pinging(end: End, destination: str, interval: str = "0.1") -> Iterator[None]:
    """Ping all the time."""
    command = end.home.command("ping", "-n", "-q", "-i", interval, "-W", "1", destination)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as pings:
        try:
            yield
        finally:
            pings.terminate()


def assert_well(seen: Visit) -> None:
    assert not seen.ids("problem", "warning"), seen.output
