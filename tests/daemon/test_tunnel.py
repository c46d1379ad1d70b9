"""Two daemons and the traffic between them, through all that happens to a tunnel in its life."""

import json
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.testbed import End, Testbed, Tunnel, only_wgd, require, wait_until
from tests.testbed.transfer import transfer
from tests.testbed.tunnels import as_hex

pytestmark = pytest.mark.netns


@pytest.fixture
def testbed(testbed_per_engine: Testbed) -> Testbed:
    """All of this holds for every engine."""
    return testbed_per_engine


@pytest.fixture
def tunnel(testbed: Testbed) -> Tunnel:
    return Tunnel.build(testbed)


def assert_pings(sender: End, receiver: End | str, version: int = 4) -> None:
    ping = sender.ping(receiver, version)
    assert ping.is_lossless, ping.output


def assert_no_ping(sender: End, receiver: End | str) -> None:
    ping = sender.ping(receiver, count=1, wait_seconds=0.5)
    assert ping.received == 0, ping.output


def ping_until_answered(sender: End, receiver: End, what: str, timeout_seconds: float = 8) -> None:
    """For what may cost a handshake's retry: after five seconds at most a ping is answered."""
    wait_until(
        lambda: sender.ping(receiver, count=1, wait_seconds=0.3).received,
        timeout_seconds,
        what=what,
    )


# -- traffic ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("with_preshared_key", [False, True])
def test_ping(testbed: Testbed, outer: int, inner: int, with_preshared_key: bool) -> None:
    tunnel = Tunnel.build(testbed, outer=outer, with_preshared_key=with_preshared_key)
    tunnel.assert_works(versions=(inner,))
    assert tunnel.left.endpoint_of(tunnel.right) == tunnel.right.outer(outer)
    assert tunnel.right.endpoint_of(tunnel.left) == tunnel.left.outer(outer)


def test_counters_and_handshake_times(tunnel: Tunnel) -> None:
    left, right = tunnel.left, tunnel.right
    ping = left.home.ping(right.inner4, "-s", "1000", count=10)
    assert ping.is_lossless, ping.output
    for end, other in ((left, right), (right, left)):
        values = end.daemon.get().peers[as_hex(other.keys.public)].values
        # Ten ICMP packets of 1028 bytes each way, padded to 1040, in 32 bytes more.
        assert 10_720 <= int(values["tx_bytes"]) < 12_000
        assert 10_720 <= int(values["rx_bytes"]) < 12_000
        assert int(values["last_handshake_time_sec"]) > 0
        assert int(values["last_handshake_time_nsec"]) > 0  # wgctrl-go wants both
    shown = left.daemon.wg("show")
    assert "latest handshake" in shown
    assert "transfer" in shown


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
def test_tcp_arrives_unchanged(testbed: Testbed, outer: int, inner: int) -> None:
    tunnel = Tunnel.build(testbed, outer=outer)
    left, right = tunnel.left, tunnel.right
    size = 4_000_037
    transfer(left.home, right.home, right.inner4 if inner == 4 else right.inner6, size)
    transfer(right.home, left.home, left.inner4 if inner == 4 else left.inner6, size)


@pytest.mark.parametrize("options", [[], ["--reverse"], ["--udp", "--bitrate", "5M"]])
def test_iperf3(tunnel: Tunnel, options: list[str], measured: Callable[[str], None]) -> None:
    require("iperf3")
    left, right = tunnel.left, tunnel.right
    server = subprocess.Popen(
        right.home.command("iperf3", "--server", "--one-off", "--bind", right.inner4),
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(
            lambda: "5201" in right.home.run("ss", "--no-header", "-ltn").stdout, what="iperf3"
        )
        run = left.home.run(
            *("iperf3", "--client", right.inner4, "--time", "1", "--json", *options),
            timeout_seconds=20,
        )
    finally:
        server.terminate()
        server.wait(5)
    end = json.loads(run.stdout)["end"]
    received = end["sum"] if "--udp" in options else end["sum_received"]
    megabits = received["bits_per_second"] / 1e6
    measured(f"iperf3 {' '.join(options) or 'TCP'}: {megabits:.0f} Mbit/s")
    assert megabits > 1
    if "--udp" in options:
        assert end["sum"]["lost_percent"] < 5


def test_fragments_and_every_size(tunnel: Tunnel) -> None:
    sizes = [0, 1, 7, 8, 15, 16, 17, 1391, 1392, 1393, 4000, 20_000, 65_000]
    for size in sizes:
        ping = tunnel.left.home.ping(tunnel.right.inner4, "-s", str(size), count=1)
        # ping(8) compares the payload and says "wrong data byte".
        assert ping.is_lossless, ping.output


def test_packets_from_wrong_inner_sources_are_dropped(tunnel: Tunnel) -> None:
    left, right = tunnel.left, tunnel.right
    assert_pings(left, right)
    left.home.add_address(left.daemon.interface, "10.77.0.99/24")
    ping = left.home.ping(right.inner4, "-I", "10.77.0.99", count=1, wait_seconds=0.5)
    assert ping.received == 0
    assert_pings(left, right)


def test_packets_to_nobody_are_dropped(tunnel: Tunnel) -> None:
    left, right = tunnel.left, tunnel.right
    assert_no_ping(left, "10.77.0.50")
    assert_pings(left, right)


# -- handshakes ------------------------------------------------------------------------------------


def test_a_peer_without_endpoint_answers_once_it_was_contacted(tunnel: Tunnel) -> None:
    left, right = tunnel.left, tunnel.right
    assert right.endpoint_of(left) is None
    assert_no_ping(right, left)
    assert right.last_handshake_ns(left) == 0
    assert_pings(left, right)
    assert right.endpoint_of(left) == left.outer(4)
    assert_pings(right, left)


@pytest.mark.parametrize("is_up_first", [True, False])
def test_persistent_keepalive_does_the_handshake_at_once(tunnel: Tunnel, is_up_first: bool) -> None:
    left, right = tunnel.left, tunnel.right
    if not is_up_first:
        left.daemon.ip("down")
        left.set_peer(right, "persistent-keepalive", "25")
        left.daemon.up()
    else:
        left.set_peer(right, "persistent-keepalive", "25")
    wait_until(lambda: left.last_handshake_ns(right), 3, what="a handshake")
    wait_until(lambda: right.last_handshake_ns(left), 3, what="its confirmation")
    # The keepalive confirms the session, so that the responder may speak first.
    assert_pings(right, left)


def test_both_start_at_the_same_moment(tunnel: Tunnel) -> None:
    # Initiations that cross may cost both a retry after five seconds, but no packet.
    left, right = tunnel.left, tunnel.right
    right.set_peer(left, "endpoint", left.outer(4))
    with ThreadPoolExecutor() as pool:
        pings = [
            pool.submit(sender.ping, receiver, count=5, wait_seconds=12)
            for sender, receiver in ((left, right), (right, left))
        ]
    for ping in pings:
        assert ping.result().is_lossless, ping.result().output


def test_a_wrong_preshared_key_keeps_the_peer_out(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed, with_preshared_key=True)
    left, right = tunnel.left, tunnel.right
    right.set_peer(left, "preshared-key", str(testbed.file(testbed.preshared_key())))
    assert_no_ping(left, right)
    assert left.last_handshake_ns(right) == 0


@only_wgd("link down drops the sessions")
def test_a_preshared_key_counts_from_the_next_handshake(tunnel: Tunnel) -> None:
    left, right = tunnel.left, tunnel.right
    assert_pings(left, right)
    before = left.last_handshake_ns(right)
    path = str(tunnel.bed.file(tunnel.bed.preshared_key()))
    left.set_peer(right, "preshared-key", path)
    assert_pings(left, right)
    assert left.last_handshake_ns(right) == before

    left.bounce()
    assert_no_ping(left, right)
    right.set_peer(left, "preshared-key", path)
    left.bounce()
    assert_pings(left, right)
    assert left.last_handshake_ns(right) > before


def test_a_new_private_key_keeps_the_peers_and_does_a_new_handshake(tunnel: Tunnel) -> None:
    bed, left, right = tunnel.bed, tunnel.left, tunnel.right
    assert_pings(left, right)
    before = left.last_handshake_ns(right)
    new = bed.keys()
    allowed = f"{left.inner4}/32,{left.inner6}/128"
    right.daemon.wg("set", "peer", new.public, "allowed-ips", allowed)
    left.daemon.wg("set", "private-key", bed.file(new.private))
    old, left.keys = left.keys, new
    assert list(left.daemon.get().peers) == [as_hex(right.keys.public)]
    assert_pings(left, right)
    assert left.last_handshake_ns(right) > before
    right.daemon.wg("set", "peer", old.public, "remove")
    tunnel.assert_works()


def test_the_same_private_key_again_changes_nothing(tunnel: Tunnel) -> None:
    bed, left, right = tunnel.bed, tunnel.left, tunnel.right
    assert_pings(left, right)
    before = left.last_handshake_ns(right)
    left.daemon.wg("set", "private-key", bed.file(left.keys.private))
    assert_pings(left, right)
    assert left.last_handshake_ns(right) == before


def test_a_removed_peer_is_out_and_can_come_back(tunnel: Tunnel) -> None:
    left, right = tunnel.left, tunnel.right
    assert_pings(left, right)
    right.set_peer(left, "remove")
    assert_no_ping(left, right)
    right.daemon.setconf(tunnel.configuration(right, left, left.outer(4)), "addconf")
    # The left end still uses its old session; the right one starts a new one.
    assert_pings(right, left)
    assert_pings(left, right)


def test_a_restarted_daemon_comes_back(tunnel: Tunnel) -> None:
    bed, left, right = tunnel.bed, tunnel.left, tunnel.right
    assert_pings(left, right)
    left.daemon.socket_path.unlink()
    left.daemon.wait_for_end()
    left.daemon = bed.daemon(left.namespace)
    left.daemon.setconf(tunnel.configuration(left, right, right.outer(4)))
    tunnel.give_addresses(left)
    left.daemon.up()
    tunnel.assert_works()


# -- the network changes ---------------------------------------------------------------------------


@pytest.mark.parametrize("outer", [4, 6])
def test_roaming(testbed: Testbed, outer: int) -> None:
    tunnel = Tunnel.build(testbed, outer=outer)
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works(versions=(4,))
    handshake = left.last_handshake_ns(right)
    old, new, length = (
        (left.outer4, "192.0.2.33", 24) if outer == 4 else (left.outer6, "2001:db8::33", 64)
    )
    left.namespace.ip("address", "delete", f"{old}/{length}", "dev", "eth0")
    left.namespace.add_address("eth0", f"{new}/{length}")
    if outer == 4:
        left.outer4 = new
    else:
        left.outer6 = new
    assert_pings(left, right)
    assert right.endpoint_of(left) == left.outer(outer)
    assert_pings(right, left)
    assert left.last_handshake_ns(right) == handshake


def test_roaming_to_the_other_address_family(tunnel: Tunnel) -> None:
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works(versions=(4,))
    left.set_peer(right, "endpoint", right.outer(6))
    assert_pings(left, right)
    assert right.endpoint_of(left) == left.outer(6)
    assert_pings(right, left)


@pytest.mark.parametrize("outer", [4, 6])
def test_a_multi_homed_responder_answers_from_the_address_that_was_asked(
    testbed: Testbed, outer: int
) -> None:
    tunnel = Tunnel.build(testbed, outer=outer)
    left, right = tunnel.left, tunnel.right
    second, length = ("192.0.2.202", 24) if outer == 4 else ("2001:db8::202", 64)
    right.namespace.add_address("eth0", f"{second}/{length}")
    if outer == 6:
        # IPv6 would choose the last one added: make the first one its choice.
        interface = ("dev", "eth0", "preferred_lft", "0")
        right.namespace.ip("address", "change", f"{second}/{length}", *interface)
    endpoint = f"{second}:{right.port}" if outer == 4 else f"[{second}]:{right.port}"
    left.set_peer(right, "endpoint", endpoint)
    tunnel.assert_works()
    assert left.endpoint_of(right) == endpoint


def test_a_vanished_sticky_source_is_forgotten(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    right.namespace.add_address("eth0", "192.0.2.202/24")
    left.set_peer(right, "endpoint", f"192.0.2.202:{right.port}")
    tunnel.assert_works(versions=(4,))
    right.namespace.ip("address", "delete", "192.0.2.202/24", "dev", "eth0")
    # Nobody could reach it there, so the right end has to speak first, from what it has left.
    assert_pings(right, left)
    assert left.endpoint_of(right) == right.outer(4)


def test_the_fwmark_is_on_the_packets(tunnel: Tunnel) -> None:
    left, right = tunnel.left, tunnel.right
    subnet = ("192.0.2.0/24", "dev", "eth0", "src", "192.0.2.1")
    left.namespace.ip("route", "add", *subnet, "table", "51")
    left.namespace.ip("rule", "add", "fwmark", "0x33", "table", "51")
    left.daemon.wg("set", "fwmark", "0x33")
    left.namespace.ip("route", "delete", "192.0.2.0/24", "dev", "eth0")
    assert left.namespace.ip("route", "get", right.outer4, check=False).returncode != 0
    tunnel.assert_works()
    left.daemon.wg("set", "fwmark", "off")
    assert_no_ping(left, right)
    left.daemon.wg("set", "fwmark", "51")
    ping_until_answered(left, right, "traffic with the mark again")


def test_a_listen_port_changed_at_run_time(tunnel: Tunnel) -> None:
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works(versions=(4,))
    handshake = left.last_handshake_ns(right)
    old, right.port = right.port, 51_909
    right.daemon.wg("set", "listen-port", "51909")
    assert_pings(right, left)
    assert left.endpoint_of(right) == right.outer(4)
    assert_pings(left, right)
    assert right.namespace.udp_ports() >= {51_909}
    assert old not in right.namespace.udp_ports()
    assert left.last_handshake_ns(right) == handshake


def test_a_host_without_ipv6(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed, without_ipv6=True)
    tunnel.assert_works(versions=(4,))


def test_an_outage_outside_heals(tunnel: Tunnel) -> None:
    left, right = tunnel.left, tunnel.right
    assert_pings(left, right)
    left.namespace.ip("link", "set", "dev", "eth0", "down")
    assert_no_ping(left, right)
    left.namespace.ip("link", "set", "dev", "eth0", "up")
    wait_until(
        lambda: left.namespace.ping(right.outer4, count=1, wait_seconds=0.2).received,
        what="the veth works again",
    )
    tunnel.assert_works(versions=(4,))


# -- the TUN changes -------------------------------------------------------------------------------


@only_wgd("link down closes the port")
def test_link_down_closes_the_port_and_up_opens_it_again(tunnel: Tunnel) -> None:
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works(versions=(4,))
    before = right.last_handshake_ns(left)
    right.daemon.ip("down")
    wait_until(lambda: right.port not in right.namespace.udp_ports(), what="the port is closed")
    assert_no_ping(left, right)
    right.daemon.up()
    assert_pings(right, left)
    assert_pings(left, right)
    assert right.last_handshake_ns(left) > before


def test_quick_downs_and_ups(tunnel: Tunnel) -> None:
    left, right = tunnel.left, tunnel.right
    for _ in range(10):
        left.bounce()
    assert_pings(left, right)


@pytest.mark.parametrize("mtu", [9000, 576])
def test_a_new_mtu(testbed: Testbed, mtu: int) -> None:
    tunnel = Tunnel.build(testbed, outer_mtu=9100)
    left, right = tunnel.left, tunnel.right
    assert_pings(left, right)
    for end in (left, right):
        end.daemon.ip("mtu", str(mtu))
    for size in (mtu - 28, mtu - 29, mtu - 100, 1, 20_000):
        fragments = "want" if size > mtu else "do"
        ping = left.home.ping(
            right.inner4, "-M", fragments, "-s", str(size), "-p", "a55a0ff0", count=2
        )
        assert ping.is_lossless, ping.output
    transfer(left.home, right.home, right.inner4, 1_000_003)


def test_a_packet_larger_than_the_receivers_mtu_arrives(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed, outer_mtu=9100)
    left, right = tunnel.left, tunnel.right
    left.daemon.ip("mtu", "9000")
    ping = left.home.ping(right.inner4, "-M", "do", "-s", "8972", count=2)
    # The answer is fragmented by the right end's kernel, to its own MTU.
    assert ping.is_lossless, ping.output


def test_a_tun_moved_to_another_namespace(tunnel: Tunnel) -> None:
    bed, right = tunnel.bed, tunnel.right
    right.home = bed.namespace()
    right.daemon.ip("netns", right.home.name)
    tunnel.give_addresses(right)
    right.home.ip("link", "set", "dev", right.daemon.interface, "up")
    right.daemon.wait_until_listening()
    assert right.home.udp_ports() == set()  # the sockets stay where they were
    tunnel.assert_works()

    right.home.ip("link", "delete", "dev", right.daemon.interface)
    right.daemon.wait_for_end()
    assert not right.daemon.socket_path.exists()


@only_wgd("the link is watched wherever it is")
def test_the_link_of_a_moved_tun_is_watched(tunnel: Tunnel) -> None:
    bed, left, right = tunnel.bed, tunnel.left, tunnel.right
    assert_pings(left, right)  # the right end learns where to send
    right.home = bed.namespace()
    right.daemon.ip("netns", right.home.name)
    tunnel.give_addresses(right)
    for extra in ((), ("mtu", "1300")):
        right.home.ip("link", "set", "dev", right.daemon.interface, "up", *extra)
        right.daemon.wait_until_listening()
        assert_pings(right, left)
        assert_pings(left, right)
        right.home.ip("link", "set", "dev", right.daemon.interface, "down")
        wait_until(lambda: right.port not in right.namespace.udp_ports(), what="the port is closed")


@only_wgd("the end of the namespace is the end of its TUN")
def test_the_end_of_the_namespace_of_a_moved_tun_ends_the_daemon(testbed: Testbed) -> None:
    daemon = testbed.daemon(testbed.namespace())
    elsewhere = testbed.namespace()
    daemon.ip("netns", elsewhere.name)
    testbed.forget(elsewhere)
    elsewhere.delete()
    daemon.wait_for_end()
    assert not daemon.socket_path.exists()


# -- hostile packets -------------------------------------------------------------------------------


def test_rubbish_on_the_port_hurts_nobody(tunnel: Tunnel) -> None:
    left, right = tunnel.left, tunnel.right
    assert_pings(left, right)
    with left.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for first in (0, 1, 2, 3, 4, 5, 255):
            for size in (0, 1, 3, 4, 15, 16, 31, 32, 64, 92, 93, 148, 149, 1500, 60_000):
                datagram = (bytes([first, 0, 0, 0]) + bytes(size))[:size]
                stranger.sendto(datagram, (right.outer4, right.port))
    tunnel.assert_works()
    assert right.endpoint_of(left) == left.outer(4)
    assert right.daemon.is_running()
