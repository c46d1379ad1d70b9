"""The configuration protocol of a running daemon: through the real `wg`, and raw."""

import base64
import secrets
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.testbed import (
    Daemon,
    Testbed,
    Tunnel,
    UapiConnection,
    only_wgd,
    require,
    uapi_set,
    wait_until,
)
from tests.testbed.bed import Keys
from tests.testbed.tunnels import as_hex
from tests.testbed.uapi import parse_get

pytestmark = pytest.mark.netns

EINVAL, EPROTO, EADDRINUSE = -22, -71, -98


@pytest.fixture(scope="module")
def shared_bed() -> Iterator[Testbed]:
    require()
    with Testbed() as bed:
        yield bed


@pytest.fixture(scope="module")
def shared_daemon(shared_bed: Testbed) -> Daemon:
    daemon = shared_bed.daemon(shared_bed.namespace())
    daemon.up()
    return daemon


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Daemon:
    """A daemon that is up and configured with nothing."""
    blank = f"private_key={'0' * 64}\nlisten_port=0\nfwmark=0\nreplace_peers=true\n"
    assert uapi_set(shared_daemon.socket_path, blank) == ["errno=0"]
    return shared_daemon


@pytest.fixture
def keys(shared_bed: Testbed) -> Keys:
    return shared_bed.keys()


@pytest.fixture
def peer(shared_bed: Testbed) -> str:
    """The public key of a peer, in base64."""
    return shared_bed.keys().public


@pytest.fixture
def peer_hex(peer: str) -> str:
    """The public key of the same peer, as UAPI writes it."""
    return as_hex(peer)


# -- wg --------------------------------------------------------------------------------------------


def test_an_unconfigured_daemon_shows_its_defaults(daemon: Daemon) -> None:
    port = daemon.wg("show", "listen-port").strip()
    assert daemon.wg("show", "dump") == f"(none)\t(none)\t{port}\toff\n"
    assert daemon.wg("show", "private-key") == "(none)\n"
    assert daemon.wg("show", "peers") == ""


def test_wg_set_and_every_part_of_wg_show(
    daemon: Daemon, shared_bed: Testbed, keys: Keys, peer: str
) -> None:
    preshared = shared_bed.preshared_key()
    daemon.wg(
        *("set", "private-key", shared_bed.file(keys.private), "listen-port", "51999"),
        *("fwmark", "0x2a", "peer", peer, "preshared-key", shared_bed.file(preshared)),
        *("endpoint", "192.0.2.7:4242", "persistent-keepalive", "25"),
        *("allowed-ips", "10.1.2.3/24,fd00::1/64,192.168.0.1"),
    )
    expected = {
        "public-key": keys.public,
        "private-key": keys.private,
        "listen-port": "51999",
        "fwmark": "0x2a",
        "peers": peer,
        "preshared-keys": f"{peer}\t{preshared}",
        "endpoints": f"{peer}\t192.0.2.7:4242",
        "persistent-keepalive": f"{peer}\t25",
        "latest-handshakes": f"{peer}\t0",
    }
    for what, value in expected.items():
        assert daemon.wg("show", what) == f"{value}\n"
    _, _, allowed = daemon.wg("show", "allowed-ips").partition("\t")
    assert set(allowed.split()) == {"10.1.2.0/24", "fd00::/64", "192.168.0.1/32"}


@only_wgd("allowed IPs are shown in a stable order")
def test_wg_show_dump_is_the_same_twice(daemon: Daemon, shared_bed: Testbed) -> None:
    peers = [shared_bed.keys().public for _ in range(20)]
    for number, key in enumerate(peers):
        daemon.wg("set", "peer", key, "allowed-ips", f"10.{number}.0.0/16,fd00:{number}::/32")
    assert daemon.wg("show", "peers").split() == peers
    assert daemon.wg("show", "dump") == daemon.wg("show", "dump")


def configuration(keys: Keys, peers: dict[str, str], extra: str = "") -> str:
    text = f"[Interface]\nPrivateKey = {keys.private}\nListenPort = 51998\nFwMark = 0x7\n"
    for key, allowed in peers.items():
        text += f"[Peer]\nPublicKey = {key}\nAllowedIPs = {allowed}\n{extra}"
    return text


def test_showconf_can_be_given_back(daemon: Daemon, shared_bed: Testbed, keys: Keys) -> None:
    extra = (
        f"PresharedKey = {shared_bed.preshared_key()}\n"
        "Endpoint = [2001:db8::7]:4242\nPersistentKeepalive = 17\n"
    )
    peers = {shared_bed.keys().public: "10.0.0.0/8", shared_bed.keys().public: "fd00::/8"}
    daemon.setconf(configuration(keys, peers, extra))
    shown, dump = daemon.wg("showconf"), daemon.wg("show", "dump")
    assert uapi_set(daemon.socket_path, "replace_peers=true\nlisten_port=0\n") == ["errno=0"]
    daemon.setconf(shown)
    assert sorted(daemon.wg("show", "dump").splitlines()) == sorted(dump.splitlines())


def test_setconf_replaces_addconf_adds_and_syncconf_changes_the_difference(
    daemon: Daemon, shared_bed: Testbed, keys: Keys
) -> None:
    first, second, third = (shared_bed.keys().public for _ in range(3))
    daemon.setconf(configuration(keys, {first: "10.1.0.0/16"}))
    daemon.setconf(configuration(keys, {second: "10.2.0.0/16"}, "PersistentKeepalive = 9\n"))
    assert set(daemon.wg("show", "peers").split()) == {second}

    daemon.setconf(f"[Peer]\nPublicKey = {third}\nAllowedIPs = 10.3.0.0/16\n", "addconf")
    assert set(daemon.wg("show", "peers").split()) == {second, third}
    assert daemon.wg("show", "private-key").strip() == keys.private

    daemon.setconf(configuration(keys, {first: "10.1.0.0/16", third: "10.2.0.0/16"}), "syncconf")
    allowed = dict(line.split("\t") for line in daemon.wg("show", "allowed-ips").splitlines())
    assert allowed == {first: "10.1.0.0/16", third: "10.2.0.0/16"}


def test_preshared_key_and_keepalive_are_switched_on_and_off(
    daemon: Daemon, shared_bed: Testbed, peer: str
) -> None:
    preshared = shared_bed.preshared_key()
    daemon.wg("set", "peer", peer, "preshared-key", shared_bed.file(preshared))
    daemon.wg("set", "peer", peer, "persistent-keepalive", "65535")
    assert daemon.wg("show", "preshared-keys") == f"{peer}\t{preshared}\n"
    assert daemon.wg("show", "persistent-keepalive") == f"{peer}\t65535\n"
    daemon.wg("set", "peer", peer, "preshared-key", "/dev/null", "persistent-keepalive", "off")
    assert daemon.wg("show", "preshared-keys") == f"{peer}\t(none)\n"
    assert daemon.wg("show", "persistent-keepalive") == f"{peer}\toff\n"


def test_allowed_ips_move_to_the_peer_that_got_them_last(
    daemon: Daemon, shared_bed: Testbed
) -> None:
    first, second = shared_bed.keys().public, shared_bed.keys().public
    daemon.wg("set", "peer", first, "allowed-ips", "10.0.0.0/8,fd00::/8")
    daemon.wg("set", "peer", second, "allowed-ips", "10.0.0.0/8,10.0.0.0/9")
    allowed = dict(line.split("\t") for line in daemon.wg("show", "allowed-ips").splitlines())
    assert allowed[first] == "fd00::/8"
    assert set(allowed[second].split()) == {"10.0.0.0/8", "10.0.0.0/9"}
    daemon.wg("set", "peer", second, "remove")
    assert daemon.wg("show", "allowed-ips") == f"{first}\tfd00::/8\n"
    daemon.wg("set", "peer", first, "allowed-ips", "")
    assert daemon.wg("show", "allowed-ips") == f"{first}\t(none)\n"


def test_the_private_key_can_be_taken_away_and_given_back(
    daemon: Daemon, shared_bed: Testbed, keys: Keys, peer: str
) -> None:
    daemon.wg("set", "private-key", shared_bed.file(keys.private), "peer", peer)
    daemon.wg("set", "private-key", "/dev/null")
    assert daemon.wg("show", "public-key") == "(none)\n"
    daemon.wg("set", "private-key", shared_bed.file(keys.private))
    assert daemon.wg("show", "public-key").strip() == keys.public
    assert daemon.wg("show", "peers").strip() == peer


def test_the_own_public_key_is_no_peer(daemon: Daemon, shared_bed: Testbed, keys: Keys) -> None:
    daemon.wg("set", "peer", keys.public, "allowed-ips", "10.0.0.0/8")
    daemon.wg("set", "private-key", shared_bed.file(keys.private))
    assert daemon.wg("show", "peers") == ""
    daemon.wg("set", "peer", keys.public, "allowed-ips", "10.0.0.0/8")
    assert daemon.wg("show", "peers") == ""


def test_zone_of_a_link_local_endpoint(daemon: Daemon, peer: str) -> None:
    daemon.wg("set", "peer", peer, "endpoint", "[fe80::1%lo]:51820")
    assert daemon.wg("show", "endpoints") == f"{peer}\t[fe80::1%lo]:51820\n"


@only_wgd("a port that is taken changes nothing")
def test_a_port_in_use_is_reported_and_the_old_one_goes_on(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    tunnel.assert_works(versions=(4,))
    daemon = tunnel.right.daemon
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        with tunnel.right.namespace.socket(family, socket.SOCK_DGRAM) as taken:
            taken.bind((address, 0))
            port = taken.getsockname()[1]
            assert "Address already in use" in daemon.wg_error("set", "listen-port", str(port))
            assert daemon.wg("show", "listen-port") == "51802\n"
            assert 51802 in tunnel.right.namespace.udp_ports()
            tunnel.assert_works(versions=(4,))


@only_wgd("everything else can be changed while the port is taken")
def test_a_port_taken_when_the_link_comes_up_hinders_nothing_else(testbed: Testbed) -> None:
    namespace = testbed.namespace()
    daemon = testbed.daemon(namespace)
    peer = as_hex(testbed.keys().public)
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as blocker:
        blocker.bind(("0.0.0.0", 44444))
        daemon.wg("set", "listen-port", "44444")
        daemon.ip("up")
        wait_until(lambda: "listen_failed" in daemon.program.stdout, what="the failure")
        assert uapi_set(daemon.socket_path, f"public_key={peer}\n") == ["errno=0"]
        assert "Address already in use" in daemon.wg_error("set", "listen-port", "44444")
    assert uapi_set(daemon.socket_path, "fwmark=1\n") == ["errno=0"]  # any set tries again
    assert 44444 in namespace.udp_ports()


def test_listen_port_zero_chooses_one(daemon: Daemon) -> None:
    daemon.wg("set", "listen-port", "51997")
    daemon.wait_until_listening()
    daemon.wg("set", "listen-port", "0")
    chosen = int(daemon.wg("show", "listen-port"))
    assert chosen not in (0, 51997)
    assert chosen in daemon.namespace.udp_ports()
    assert 51997 not in daemon.namespace.udp_ports()


# -- the protocol, raw -----------------------------------------------------------------------------


@pytest.fixture
def connection(daemon: Daemon) -> Iterator[UapiConnection]:
    with UapiConnection(daemon.socket_path) as connection:
        yield connection


def test_many_transactions_on_one_connection(connection: UapiConnection, peer_hex: str) -> None:
    for number in range(200):
        assert connection.request(
            f"set=1\npublic_key={peer_hex}\nallowed_ip=10.0.{number}.0/24\n\n"
        )
        peers = parse_get(connection.request("get=1\n\n")).peers
        assert len(peers[peer_hex].allowed_ips) == number + 1


@only_wgd("requests behind a set are not lost")
def test_pipelined_requests_are_all_answered_in_order(connection: UapiConnection) -> None:
    connection.send(
        "get=1\n\nset=1\nfwmark=3\n\nget=1\n\nset=1\nno_such_key=1\n\nset=1\nfwmark=4\n\nget=1\n\n"
    )
    assert "fwmark" not in parse_get(connection.reply()).values
    assert connection.reply() == ["errno=0"]
    assert parse_get(connection.reply()).values["fwmark"] == "3"
    assert connection.reply() == [f"errno={EINVAL}"]
    assert connection.reply() == ["errno=0"]
    assert parse_get(connection.reply()).values["fwmark"] == "4"


def test_byte_by_byte(connection: UapiConnection) -> None:
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    for byte in "set=1\nfwmark=77\n\n":
        connection.send(byte)
    assert connection.reply() == ["errno=0"]
    for byte in "get=1\n\n":
        connection.send(byte)
    assert parse_get(connection.reply()).values["fwmark"] == "77"


def test_a_half_closed_connection_still_gets_its_reply(connection: UapiConnection) -> None:
    connection.send("get=1\n\n")
    connection.half_close()
    parse_get(connection.reply())
    assert connection.is_closed_by_daemon()


def test_the_reply_to_a_set_is_one_short_segment(connection: UapiConnection) -> None:
    # wgctrl-go reads once, at most 32 bytes.
    connection.send("set=1\nfwmark=0\n\n")
    assert connection.socket.recv(32) == b"errno=0\n\n"


@only_wgd("no client can block another")
def test_a_stalled_client_blocks_nobody(daemon: Daemon, connection: UapiConnection) -> None:
    connection.send("set=1\nfwmark=5\n")
    started = time.monotonic()
    assert uapi_set(daemon.socket_path, "fwmark=6\n") == ["errno=0"]
    assert daemon.get().values["fwmark"] == "6"
    assert time.monotonic() - started < 2
    connection.send("\n")
    assert connection.reply() == ["errno=0"]
    assert daemon.get().values["fwmark"] == "5"


def test_a_client_that_never_reads_blocks_nobody(daemon: Daemon, shared_bed: Testbed) -> None:
    lines = "".join(f"public_key={secrets.token_hex(32)}\n" for _ in range(2000))
    assert uapi_set(daemon.socket_path, lines) == ["errno=0"]
    with UapiConnection(daemon.socket_path) as deaf:
        for _ in range(10):
            deaf.send("get=1\n\n")
        assert len(daemon.get().peers) == 2000
    assert daemon.is_running()


def test_many_clients_at_once(daemon: Daemon) -> None:
    connections = [UapiConnection(daemon.socket_path) for _ in range(64)]
    try:
        for connection in connections:
            connection.send("get=1\n\n")
        for connection in connections:
            parse_get(connection.reply())
    finally:
        for connection in connections:
            connection.socket.close()


@pytest.mark.parametrize("first", ["get=2\n\n", "set=2\n\n", "SET=1\n\n", "hello\n\n", "\n"])
def test_an_unknown_operation_closes_the_connection(
    daemon: Daemon, connection: UapiConnection, first: str
) -> None:
    connection.send(first)
    assert connection.is_closed_by_daemon()
    daemon.get()


@pytest.mark.parametrize(
    ("lines", "errno"),
    [
        ("fwmark\n", EPROTO),
        ("no_such_key=1\n", EINVAL),
        ("=\n", EINVAL),
        ("listen_port=65536\n", EINVAL),
        ("listen_port=\n", EINVAL),
        ("listen_port=-1\n", EINVAL),
        ("listen_port= 1\n", EINVAL),
        ("listen_port=0x10\n", EINVAL),
        ("fwmark=4294967296\n", EINVAL),
        ("private_key=00\n", EINVAL),
        (f"private_key={'g' * 64}\n", EINVAL),
        ("replace_peers=false\n", EINVAL),
        ("public_key=00\n", EINVAL),
        ("errno=0\n", EINVAL),
        ("protocol_version=1\n", EINVAL),
    ],
)
def test_bad_device_lines(connection: UapiConnection, lines: str, errno: int) -> None:
    assert connection.request(f"set=1\n{lines}\n") == [f"errno={errno}"]


@pytest.mark.parametrize(
    ("line", "errno"),
    [
        ("fwmark=1", EINVAL),
        ("listen_port=1", EINVAL),
        ("remove=false", EINVAL),
        ("update_only=1", EINVAL),
        ("preshared_key=00", EINVAL),
        ("endpoint=192.0.2.1", EINVAL),
        ("endpoint=2001:db8::1:80", EINVAL),
        ("endpoint=example.org:80", EINVAL),
        ("endpoint=192.0.2.1:65536", EINVAL),
        ("persistent_keepalive_interval=65536", EINVAL),
        ("persistent_keepalive_interval=off", EINVAL),
        ("replace_allowed_ips=false", EINVAL),
        ("allowed_ip=10.0.0.0", EINVAL),
        ("allowed_ip=10.0.0.0/33", EINVAL),
        ("allowed_ip=10.0.0.0/08", EINVAL),
        ("allowed_ip=10.0.0.0/255.0.0.0", EINVAL),
        ("allowed_ip=fe80::1%lo/64", EINVAL),
        ("allowed_ip=+10.0.0.0/8", EINVAL),
        ("protocol_version=2", EINVAL),
        ("rx_bytes=0", EINVAL),
        ("nonsense", EPROTO),
    ],
)
def test_bad_peer_lines(connection: UapiConnection, peer_hex: str, line: str, errno: int) -> None:
    assert connection.request(f"set=1\npublic_key={peer_hex}\n{line}\n\n") == [f"errno={errno}"]


@only_wgd("a set applies whole or not at all")
def test_an_error_amid_thousands_of_peers_changes_nothing(
    daemon: Daemon, connection: UapiConnection
) -> None:
    lines = [f"public_key={secrets.token_hex(32)}\nallowed_ip=10.0.0.0/8\n" for _ in range(5000)]
    lines[2500] += "endpoint=nowhere\n"
    assert connection.request(f"set=1\nfwmark=9\n{''.join(lines)}\n") == [f"errno={EINVAL}"]
    assert connection.request("set=1\nlisten_port=51996\n\n") == ["errno=0"]
    device = daemon.get()
    assert device.peers == {}
    assert "fwmark" not in device.values


def test_update_only_and_remove_of_unknown_peers_do_nothing(
    daemon: Daemon, connection: UapiConnection, peer_hex: str
) -> None:
    for line in ("update_only=true\nallowed_ip=10.0.0.0/8", "remove=true"):
        assert connection.request(f"set=1\npublic_key={peer_hex}\n{line}\n\n") == ["errno=0"]
        assert daemon.get().peers == {}


def test_a_minus_removes_an_allowed_ip_of_this_peer_only(
    daemon: Daemon, connection: UapiConnection, peer_hex: str
) -> None:
    other = secrets.token_hex(32)
    both = f"public_key={peer_hex}\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::/8\n"
    both += f"public_key={other}\nallowed_ip=11.0.0.0/8\n"
    minus = f"public_key={peer_hex}\nallowed_ip=-10.1.2.3/8\nallowed_ip=-11.0.0.0/8\n"
    minus += "allowed_ip=-fd00::/9\n"
    assert connection.request(f"set=1\n{both}\n") == ["errno=0"]
    assert connection.request(f"set=1\n{minus}\n") == ["errno=0"]
    peers = daemon.get().peers
    assert peers[peer_hex].allowed_ips == ["fd00::/8"]
    assert peers[other].allowed_ips == ["11.0.0.0/8"]


def test_get_prints_what_strict_readers_expect(
    daemon: Daemon, connection: UapiConnection, peer_hex: str
) -> None:
    private = secrets.token_hex(32)
    connection.request(
        f"set=1\nprivate_key={private.upper()}\nfwmark=1\npublic_key={peer_hex}\n"
        "endpoint=[fe80::1%1]:5\nallowed_ip=::ffff:1.2.3.4/128\n\n"
    )
    lines = connection.request("get=1\n\n")
    assert all(line.count("=") == 1 for line in lines)  # wgctrl-go
    keys = [line.partition("=")[0] for line in lines]
    device_keys = keys[: keys.index("public_key")]
    assert device_keys == ["private_key", "listen_port", "fwmark"]
    assert set(keys[keys.index("public_key") :]) == {
        "public_key",
        "preshared_key",
        "protocol_version",
        "endpoint",
        "last_handshake_time_sec",
        "last_handshake_time_nsec",
        "tx_bytes",
        "rx_bytes",
        "persistent_keepalive_interval",
        "allowed_ip",
        "errno",
    }
    shown = bytearray.fromhex(lines[0].removeprefix("private_key="))
    assert lines[0] == lines[0].lower()
    assert (shown[0] & 7, shown[31] & 0xC0) == (0, 0x40)  # clamped
    assert daemon.wg("show", "allowed-ips").split()[1] == "::ffff:1.2.3.4/128"


# -- the whole of it -------------------------------------------------------------------------------


@pytest.mark.slow
def test_65536_peers_there_and_back(testbed: Testbed, measured: Callable[[str], None]) -> None:
    count = 65_536
    daemon = testbed.daemon(testbed.namespace(), environment={})
    daemon.up()
    peers = {
        base64.b64encode(
            secrets.token_bytes(32)
        ).decode(): f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32"
        for n in range(count)
    }
    text = configuration(testbed.keys(), peers)
    started = time.monotonic()
    daemon.setconf(text)
    configured = time.monotonic()
    dump = daemon.wg("show", "dump").splitlines()
    measured(
        f"{count} peers: setconf {configured - started:.1f} s, "
        f"show dump {time.monotonic() - configured:.1f} s"
    )
    shown = {row[0]: row[3] for row in (line.split("\t") for line in dump[1:])}
    assert shown == peers
    one_more = f"public_key={secrets.token_hex(32)}\n"
    assert uapi_set(daemon.socket_path, one_more) == [f"errno={EINVAL}"]
    daemon.setconf("[Interface]\n")
    assert daemon.get().peers == {}


def test_the_nat_traversal_scenario(testbed: Testbed) -> None:
    """nohajc/wg-nat-traversal: learn a port from STUN, then move the daemon to that port."""
    tunnel = Tunnel.build(testbed, left_knows_right=False)
    left, right = tunnel.left, tunnel.right
    right_hex = as_hex(right.keys.public)
    allowed = left.daemon.get().peers[right_hex].allowed_ips

    with left.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as stun:
        stun.bind(("192.0.2.1", 0))
        stun.sendto(b"what is my address?", ("192.0.2.2", 3478))
        port = stun.getsockname()[1]

    assert uapi_set(
        left.daemon.socket_path,
        f"public_key={right_hex}\nendpoint={right.outer(4)}\npersistent_keepalive_interval=25\n",
    ) == ["errno=0"]
    assert uapi_set(left.daemon.socket_path, f"listen_port={port}\n") == ["errno=0"]
    wait_until(lambda: port in left.namespace.udp_ports(), what="the learnt port is bound")

    wait_until(lambda: left.last_handshake_ns(right), 2, what="a handshake by the keepalive")
    assert left.daemon.get().peers[right_hex].allowed_ips == allowed
    ping = left.ping(right)
    assert ping.is_lossless, ping.output
    assert right.endpoint_of(left) == f"192.0.2.1:{port}"
