"""Faults on the way to the endpoint, between real daemons: names, routes, hosts, firewalls."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doctor.clinic import see, visit
from tests.doctor.faults import NO_PROBE, call_in_vain, nft, set_endpoint, wait_for_failure
from tests.testbed import Namespace, Testbed, Tunnel
from tests.testbed.tunnels import RIGHT_PORT
from wgd.configuration import ControlChange
from wgd.diagnosis import FailureReason
from wgd.uapi.client import Client

# -- the way to the endpoint -----------------------------------------------------------------------


def test_no_route_and_route_loop(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left = tunnel.left
    set_endpoint(tunnel, "203.0.113.9:51820")
    finding = see(left).finding("no-route-to-endpoint")
    assert "Network is unreachable" in finding["sentence"]

    left.home.ip("route", "add", "203.0.113.0/24", "dev", left.daemon.interface)
    assert "route-loop" in see(left).problems


def test_a_host_that_is_not_there(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    set_endpoint(tunnel, "192.0.2.99:51820")
    call_in_vain(tunnel.left, tunnel.right)
    assert "host-unreachable" in see(tunnel.left).problems


def test_an_endpoint_that_is_silent(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    nft(right.namespace, "input", f"udp dport {RIGHT_PORT} drop")
    call_in_vain(left, right)
    seen = see(left)
    finding = seen.finding("endpoint-silent")
    assert "answers a ping" in finding["sentence"]
    assert any(left.keys.public in advice for advice in finding["advice"])
    # The other end sees the rule.
    rule = see(right).finding("firewall-drops")
    assert f"comes in for UDP port {RIGHT_PORT}" in rule["sentence"]


def test_a_port_where_nobody_listens(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    tunnel.right.daemon.ip("down")
    call_in_vain(tunnel.left, tunnel.right)
    seen = see(tunnel.left)
    assert str(RIGHT_PORT) in seen.finding("port-closed")["sentence"]
    assert "endpoint-silent" not in seen.ids()


def test_our_own_firewall(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    nft(left.namespace, "output", f"ip daddr {right.outer4} udp dport {RIGHT_PORT} drop")
    left.ping(right, count=1, wait_seconds=0.1)
    wait_for_failure(left, FailureReason.SEND_FAILED)
    seen = see(left)
    assert "inet test output" in seen.finding("own-firewall")["sentence"]
    assert not seen.ids() & {"endpoint-silent", "send-failed", "firewall-drops"}
    nft(right.namespace, "input", "ct state new drop")
    assert "firewall-may-drop" in see(right, NO_PROBE).ids("warning")


# -- names -----------------------------------------------------------------------------------------


@pytest.fixture
def hosts_file(testbed: Testbed) -> Iterator[tuple[Namespace, Path]]:
    """A namespace whose /etc/hosts is a file of the test's, and which asks no name server."""
    namespace = testbed.namespace()
    directory = Path("/etc/netns") / namespace.name
    directory.mkdir(parents=True)
    try:
        (directory / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1\n")
        (directory / "hosts").write_text("127.0.0.1 localhost\n192.0.2.7 vpn.test\n")
        yield namespace, directory / "hosts"
    finally:
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()


def test_names(testbed: Testbed, hosts_file: tuple[Namespace, Path]) -> None:
    namespace, hosts = hosts_file
    daemon, peer = testbed.daemon(namespace), testbed.keys().public
    daemon.setconf(
        f"[Interface]\nPrivateKey = {testbed.keys().private}\n"
        f"[Peer]\nPublicKey = {peer}\nEndpoint = 192.0.2.7:51820\nAllowedIPs = 10.0.0.2/32\n"
    )
    daemon.up()

    def names_host(host: str) -> None:
        key = base64.b64decode(peer)
        Client().control(daemon.interface, ControlChange(endpoint_hosts=((key, host),)))

    names_host("vpn.test:51820")
    assert not visit(namespace, daemon.interface).ids() & {"name-moved", "name-not-found"}
    hosts.write_text("127.0.0.1 localhost\n192.0.2.8 vpn.test\n")
    assert "192.0.2.8" in visit(namespace, daemon.interface).finding("name-moved")["sentence"]
    names_host("nowhere.test:51820")
    finding = visit(namespace, daemon.interface).finding("name-not-found")
    assert "nowhere.test" in finding["sentence"]
