"""Sessions that are there and do not do, between real daemons; sizes and buffers."""

import socket
import subprocess

import pytest

from tests.doctor.clinic import see, visit
from tests.doctor.faults import NO_PROBE, nft, pinging, wait_for_failure
from tests.testbed import Testbed, Tunnel, wait_until
from tests.testbed.tunnels import RIGHT_PORT
from wgd.diagnosis import FailureReason

# -- inside the tunnel -----------------------------------------------------------------------------


def test_routes_and_inner_addresses(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works(versions=(4,))
    left.set_peer(right, "allowed-ips", "10.77.0.2/32,10.99.0.0/24")
    finding = see(left, NO_PROBE).finding("missing-route")
    assert "10.99.0.0/24" in finding["sentence"]
    left.home.ip("route", "add", "10.99.0.0/24", "dev", left.daemon.interface)
    assert "missing-route" not in see(left, NO_PROBE).ids()

    left.set_peer(right, "allowed-ips", "10.77.0.2/32,10.99.0.0/24,0.0.0.0/0")
    assert "no-default-route" in see(left, NO_PROBE).ids("note")
    left.set_peer(right, "allowed-ips", "10.77.0.2/32,10.99.0.0/24")

    left.home.add_address(left.daemon.interface, "10.98.0.1/32")
    left.home.ping(right.inner4, "-I", "10.98.0.1", count=1, wait_seconds=0.1)
    wait_for_failure(right, FailureReason.NOT_AN_ALLOWED_IP)
    assert see(right, NO_PROBE).finding("source-not-allowed")["peer"] == left.keys.public

    left.home.ping("10.77.0.9", count=40, interval_seconds=0.002, wait_seconds=0.1)
    assert "destination-not-allowed" in see(left, NO_PROBE).ids("warning")


def test_the_reverse_path_filter_of_a_full_tunnel(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    interface, mark = left.daemon.interface, "51820"
    # The endpoint is beyond the default route, as on the internet.
    right.namespace.add_address("eth0", "198.51.100.2/32")
    left.home.ip("route", "add", "default", "via", right.outer4)
    left.daemon.wg("set", "fwmark", mark)
    words = ("endpoint", f"198.51.100.2:{RIGHT_PORT}", "allowed-ips", "0.0.0.0/0")
    left.set_peer(right, *words)
    left.home.ip("route", "add", "default", "dev", interface, "table", mark)
    left.home.ip("rule", "add", "not", "fwmark", mark, "table", mark)
    left.home.ip("rule", "add", "table", "main", "suppress_prefixlength", "0")
    for scope in ("all", "eth0"):
        left.home.sysctl(f"net/ipv4/conf/{scope}/rp_filter", "1")
    assert left.ping(right, count=1, wait_seconds=0.5).received == 0
    assert "eth0" in see(left, NO_PROBE).finding("reverse-path-filter")["sentence"]

    left.home.sysctl("net/ipv4/conf/eth0/rp_filter", "2")  # what the doctor advises
    assert "reverse-path-filter" not in see(left, NO_PROBE).ids()
    wait_until(
        lambda: left.ping(right, count=1, wait_seconds=0.5).received, 10, what="the tunnel works"
    )


@pytest.mark.slow
def test_a_session_that_goes_one_way(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    nft(right.namespace, "input", f"udp dport {RIGHT_PORT} @th,64,8 4 drop")  # transport data
    with pinging(left, right.inner4):
        found = wait_until(
            lambda: "one-way" in see(left, NO_PROBE).problems, 40, what="the doctor sees it"
        )
    assert found


# -- sizes and buffers -----------------------------------------------------------------------------


def test_an_mtu_that_is_too_large(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works(versions=(4,))
    # What is too long vanishes without a word: a black hole.
    nft(right.namespace, "input", "ip length > 1400 drop")
    finding = see(left).finding("mtu-black-hole")
    assert "1400 are" in finding["sentence"]
    assert any("mtu 1340" in advice for advice in finding["advice"])

    left.daemon.ip("mtu", "1500")
    finding = see(left, NO_PROBE).finding("mtu-too-large")
    assert any("mtu 1440" in advice for advice in finding["advice"])


def test_a_receive_buffer_that_is_full(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    right = tunnel.right
    pid = right.daemon.pid
    subprocess.run(["kill", "-STOP", str(pid)], check=True)
    try:
        with right.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            for _ in range(12_000):  # more than 7 MiB
                flood.sendto(bytes(1400), ("127.0.0.1", RIGHT_PORT))
    finally:
        subprocess.run(["kill", "-CONT", str(pid)], check=True)
    assert "receive-buffer-full" in see(right, NO_PROBE).ids("warning")


def test_offloads_that_are_off(testbed: Testbed) -> None:
    namespace = testbed.namespace()
    daemon = testbed.daemon(
        namespace, engine="native", environment={"WGD_NO_OFFLOAD": "1", "LOG_LEVEL": "error"}
    )
    daemon.up()
    assert "offload-off" in visit(namespace, daemon.interface, NO_PROBE).ids("note")
