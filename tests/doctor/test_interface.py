"""A tunnel that works, and what is missing in its configuration, on real daemons."""

import socket
import sys

from tests.doctor.clinic import see, visit
from tests.doctor.faults import NO_PROBE, assert_well, status, wait_for_failure
from tests.testbed import Testbed, Tunnel, wait_until
from tests.testbed.tunnels import RIGHT_PORT
from wgd.diagnosis import FailureReason

# -- no fault --------------------------------------------------------------------------------------


def test_a_tunnel_that_works(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed, with_preshared_key=True)
    tunnel.assert_works()
    for end in (tunnel.left, tunnel.right):
        seen = see(end)
        assert_well(seen)
        assert seen.report["not_looked_at"] == []
        assert seen.status == 0
    # All devices of the machine: the other end's interface is in another namespace.
    command = (sys.executable, "-m", "wgd.ctl", "doctor")
    text = tunnel.left.namespace.run(*command, check=False).stdout
    assert f"{tunnel.left.daemon.interface}: everything looks fine" in text
    assert f"{tunnel.right.daemon.interface} is not in this network namespace" in " ".join(
        text.split()
    )
    assert tunnel.left.keys.private not in text


# -- the interface and its configuration -----------------------------------------------------------


def test_what_is_missing_in_the_configuration(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed, left_knows_right=False)
    left, right = tunnel.left, tunnel.right
    assert see(left, NO_PROBE).ids() >= {"never-called"}
    assert see(left, NO_PROBE).status == 0

    left.ping(right, count=1, wait_seconds=0.1)
    wait_for_failure(left, FailureReason.NO_ENDPOINT)
    assert see(left, NO_PROBE).finding("no-endpoint")["peer"] == right.keys.public

    left.set_peer(right, "allowed-ips", "")
    assert see(left, NO_PROBE).finding("no-allowed-ips")["peer"] == right.keys.public

    left.daemon.wg("set", "private-key", "/dev/null")
    assert "no-private-key" in see(left, NO_PROBE).problems

    left.set_peer(right, "remove")
    assert "no-peers" in see(left, NO_PROBE).problems

    left.home.ip("address", "flush", "dev", left.daemon.interface)
    assert "no-address" in see(left, NO_PROBE).ids("warning")

    left.daemon.ip("down")
    wait_until(lambda: not status(left).is_up, what="the daemon sees it")
    assert "interface-down" in see(left, NO_PROBE).problems


def test_a_port_that_somebody_else_has(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    right = tunnel.right
    right.daemon.ip("down")
    wait_until(lambda: RIGHT_PORT not in right.namespace.udp_ports(), what="the port is free")
    with right.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", RIGHT_PORT))
        right.daemon.ip("up")
        wait_until(
            lambda: "event=listen_failed" in right.daemon.program.output, what="the daemon tried"
        )
        finding = see(right, NO_PROBE).finding("not-listening")
    assert str(RIGHT_PORT) in finding["sentence"]


def test_an_interface_without_a_daemon(testbed: Testbed) -> None:
    namespace = testbed.namespace()
    namespace.ip("tuntap", "add", "dev", "wgx", "mode", "tun")
    assert visit(namespace, "wgx").problems == {"no-daemon"}
    command = (sys.executable, "-m", "wgd.ctl", "doctor", "wgy")
    done = namespace.run(*command, check=False)
    assert done.returncode == 1
    assert "wgy" in done.stderr


def test_overlapping_allowed_ips_and_our_own_key(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, right, other = tunnel.left, tunnel.right, testbed.keys()
    left.daemon.wg("set", "peer", other.public, "allowed-ips", "10.77.0.0/24")
    assert "prefix-nested" in see(left, NO_PROBE).ids("note")

    text = f"""[Interface]
        PrivateKey = {left.keys.private}
        Address = 10.77.0.1/24
        PostUp = true
        [Peer]
        PublicKey = {right.keys.public}
        AllowedIPs = 10.77.0.0/24, 10.78.0.0/24 # the other one, too
        Endpoint = nowhere.invalid:5
        [Peer]
        PublicKey = {other.public}
        AllowedIPs = 10.77.0.0/24
        [Peer]
        PublicKey = {left.keys.public}
        AllowedIPs = 10.79.0.0/24
    """
    file = testbed.file("\n".join(line.strip() for line in text.splitlines()))
    seen = see(left, NO_PROBE, f"--config={file}")
    assert seen.finding("prefix-twice")["peer"] == other.public
    assert "10.77.0.0/24" in seen.finding("prefix-twice")["sentence"]
    assert "own-key-as-peer" in seen.problems
    assert left.keys.private not in seen.output


def test_both_ends_have_the_same_key(testbed: Testbed) -> None:
    """A file copied from one end to the other: each peer is the interface itself, and skipped."""
    tunnel = Tunnel.build(testbed)
    left = tunnel.left
    left.set_peer(tunnel.right, "remove")
    text = (
        f"[Interface]\nPrivateKey = {left.keys.private}\n"
        f"[Peer]\nPublicKey = {left.keys.public}\nAllowedIPs = 10.77.0.0/24\n"
    )
    left.daemon.setconf(text)
    seen = see(left, NO_PROBE)
    assert seen.problems >= {"no-peers", "own-key-as-peer"}
