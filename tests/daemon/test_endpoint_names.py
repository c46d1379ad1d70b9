"""Staying connected: an endpoint whose name moves to another machine, and networks that change."""

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.testbed import End, Testbed, Tunnel, only_wgd, wait_until
from tests.testbed.namespaces import Namespace
from wgd.configuration import ControlChange
from wgd.status import PeerStatus
from wgd.uapi.client import Client

pytestmark = [pytest.mark.netns, only_wgd("endpoint names are looked up again")]

NAME = "vpn.wgd-test.example"
RESUMES_WITHIN_SECONDS = 30


@contextmanager
def hosts_file(namespace: Namespace) -> Iterator[Callable[[str], None]]:
    """Give what is started in the namespace an /etc/hosts of its own, which says where NAME is.

    `ip netns exec` mounts it over the real one, so it is written to in place.
    """
    directory = Path("/etc/netns") / namespace.name
    directory.mkdir(parents=True)
    file = directory / "hosts"

    def write(address: str) -> None:
        file.write_text(f"127.0.0.1 localhost\n{address} {NAME}\n")

    try:
        write("192.0.2.254")
        yield write
    finally:
        file.unlink()
        directory.rmdir()


def restart(tunnel: Tunnel, end: End, namespace: Namespace, address: str) -> None:
    """End the daemon of `end` and start one with the same keys in another namespace."""
    end.daemon.socket_path.unlink()
    end.daemon.wait_for_end()
    namespace.add_address("eth1", f"{address}/24")
    end.home, end.outer4 = namespace, address
    end.daemon = tunnel.bed.daemon(namespace)
    end.daemon.setconf(tunnel.configuration(end, tunnel.left, None))
    tunnel.give_addresses(end)
    end.daemon.up()


def seconds_until_answered(sender: End, receiver: End, limit_seconds: float) -> float:
    """Ping until there is an answer; return how long that took."""
    began = time.monotonic()
    wait_until(
        lambda: sender.ping(receiver, count=1, wait_seconds=0.2).received,
        limit_seconds,
        what="an answer through the tunnel",
    )
    return time.monotonic() - began


def test_a_name_that_moves_to_another_machine_is_followed(
    testbed: Testbed, measured: Callable[[str], None]
) -> None:
    here, first, second = testbed.namespace(), testbed.namespace(), testbed.namespace()
    testbed.link(here, second, name="eth1")
    here.add_address("eth1", "198.51.100.1/24")
    with hosts_file(here) as set_address:
        tunnel = Tunnel.build(testbed, namespaces=(here, first))
        left, right = tunnel.left, tunnel.right
        set_address(right.outer4)
        key = base64.b64decode(right.keys.public)
        host = f"{NAME}:{right.port}"
        Client().control(left.daemon.interface, ControlChange(endpoint_hosts=((key, host),)))
        tunnel.assert_works(versions=(4,))

        restart(tunnel, right, second, "198.51.100.2")
        set_address(right.outer4)
        took = seconds_until_answered(left, right, RESUMES_WITHIN_SECONDS)
        measured(f"an endpoint's name moved to another machine: traffic again after {took:.1f} s")
        assert left.endpoint_of(right) == right.outer(4)
        assert Client().status(left.daemon.interface).peers[0].configured_endpoint == host


def test_a_peer_that_is_only_a_name_is_found_when_the_name_is_there(testbed: Testbed) -> None:
    here, there = testbed.namespace(), testbed.namespace()
    with hosts_file(here) as set_address:
        tunnel = Tunnel.build(testbed, namespaces=(here, there), left_knows_right=False)
        left, right = tunnel.left, tunnel.right
        set_address(right.outer4)
        key = base64.b64decode(right.keys.public)
        host = f"{NAME}:{right.port}"
        Client().control(left.daemon.interface, ControlChange(endpoint_hosts=((key, host),)))
        tunnel.assert_works(versions=(4,))


@pytest.mark.parametrize("outer", [4, 6])
def test_a_new_address_of_ours_is_told_to_the_peer_at_once(testbed: Testbed, outer: int) -> None:
    tunnel = Tunnel.build(testbed, outer=outer)
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works(versions=(4,))
    if outer == 4:
        old, left.outer4, length = left.outer4, "192.0.2.33", 24
        new = left.outer4
    else:
        old, left.outer6, length = left.outer6, "2001:db8::33", 64
        new = left.outer6
    left.namespace.ip("address", "delete", f"{old}/{length}", "dev", "eth0")
    left.namespace.add_address("eth0", f"{new}/{length}")
    # Nobody sends anything through the tunnel: the kernel's event is all there is.
    wait_until(lambda: right.endpoint_of(left) == left.outer(outer), 3, what="the new endpoint")
    ping = right.ping(left)
    assert ping.is_lossless, ping.output


def test_a_handshake_that_could_not_be_sent_is_sent_when_the_network_is_there(
    testbed: Testbed,
) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    left.namespace.ip("link", "set", "dev", "eth0", "down")
    left.set_peer(right, "persistent-keepalive", "3600")
    wait_until(lambda: has_failed(left, "send_failed"), what="the initiation has failed")
    began = time.monotonic()
    left.namespace.ip("link", "set", "dev", "eth0", "up")
    wait_until(lambda: left.last_handshake_ns(right), 4, what="a handshake")
    assert time.monotonic() - began < 4, "before it would have been repeated anyway"


def test_after_a_wake_up_the_peer_hears_from_us_at_once(testbed: Testbed) -> None:
    """Setting the clock, here to what it is, counts as one."""
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works(versions=(4,))
    before = left.daemon.program.output.count("event=woke_up")
    sent = status_of_peer(left).sent_packets
    try:
        time.clock_settime_ns(time.CLOCK_REALTIME, time.clock_gettime_ns(time.CLOCK_REALTIME))
    except PermissionError:
        pytest.skip("needs CAP_SYS_TIME")
    wait_until(
        lambda: left.daemon.program.output.count("event=woke_up") > before, what="the wake-up"
    )
    wait_until(lambda: status_of_peer(left).sent_packets > sent, what="a keepalive")
    assert right.ping(left).is_lossless


def status_of_peer(end: End) -> PeerStatus:
    (peer,) = Client().status(end.daemon.interface).peers
    return peer


def has_failed(end: End, reason: str) -> bool:
    return any(failure.reason == reason for failure in status_of_peer(end).failures)
