"""What the project was founded for: Go programs on wgctrl-go see and configure the daemon."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.testbed import Daemon, End, Testbed, Tunnel, only_wgd, require, wait_until
from tests.testbed.namespaces import run

pytestmark = [pytest.mark.netns, pytest.mark.interop]

SOURCE = Path(__file__).with_name("wgctrl")

Wgctrl = Callable[..., str]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the Go program; its modules come from the module proxy, or from Go's cache."""
    require("go")
    go = "env", "--chdir", SOURCE, "CGO_ENABLED=0", "go"  # `go -C` is newer than Debian 12's Go
    modules = run(*go, "mod", "download", check=False, timeout_seconds=120)
    if modules.returncode and os.environ.get("CI") != "true":
        pytest.skip(f"needs the Go module proxy: {modules.stderr.strip()}")
    path = tmp_path_factory.mktemp("wgctrl") / "wgctrl"
    flags = "-mod=readonly", "-buildvcs=false"
    run(*go, "build", *flags, "-o", path, ".", timeout_seconds=300)
    return path


@pytest.fixture
def wgctrl(program: Path) -> Wgctrl:
    """Run the Go program, one connection each, and return its stdout."""
    return lambda *arguments: run(program, *arguments).stdout


def wg_dump(daemon: Daemon) -> str:
    return run("wg", "show", daemon.interface, "dump").stdout


def allowed_ips(daemon: Daemon) -> list[str]:
    """Return the allowed IPs of the only peer."""
    (peer,) = daemon.get().peers.values()
    return peer.allowed_ips


def assert_refused(program: Path, *arguments: str, reason: str) -> None:
    completed = run(program, *arguments, check=False)
    assert completed.returncode == 1
    assert re.search(reason, completed.stderr), completed.stderr


def test_a_device_is_read_as_wg_reads_it(testbed: Testbed, wgctrl: Wgctrl) -> None:
    tunnel = Tunnel.build(testbed, with_preshared_key=True)
    left = tunnel.left
    left.daemon.wg("set", "fwmark", "0x1234")
    left.set_peer(tunnel.right, "persistent-keepalive", "600")
    silent = testbed.keys().public  # no endpoint, no allowed IPs, never a handshake
    left.daemon.wg("set", "peer", silent)
    tunnel.assert_works()

    shown = wgctrl("dump", left.daemon.interface)

    assert shown == wg_dump(left.daemon)
    device, peer, other = (line.split("\t") for line in shown.splitlines())
    assert device == [left.keys.private, left.keys.public, "51801", "0x1234"]
    assert peer[:4] == [
        *(tunnel.right.keys.public, tunnel.preshared_key),
        *("192.0.2.2:51802", "10.77.0.2/32,fd77::2/128"),
    ]
    assert all(int(number) > 0 for number in peer[4:7])  # handshake, received, sent
    assert peer[7] == "600"
    assert other == [silent, "(none)", "(none)", "(none)", "0", "0", "0", "off"]


@only_wgd("a directory of one's own for the sockets")
def test_all_devices_are_listed(testbed: Testbed, program: Path) -> None:
    # Devices() fails when any socket of the machine is dead, and other tests kill daemons: in a
    # mount namespace of its own the program sees ours only.
    sockets = testbed.directory / "sockets"
    daemons = [
        testbed.daemon(testbed.namespace(), environment={"WGD_UAPI_DIR": str(sockets)})
        for _ in range(2)
    ]
    script = 'mkdir -p "$1"; mount --bind "$0" "$1"; exec "$2" devices'
    system = "/var/run/wireguard"
    output = run("unshare", "--mount", "sh", "-ec", script, sockets, system, program).stdout
    assert sorted(output.split()) == sorted(daemon.interface for daemon in daemons)


@pytest.mark.parametrize("version", [4, 6])
def test_the_founding_use(testbed: Testbed, wgctrl: Wgctrl, version: int) -> None:
    tunnel = Tunnel.build(testbed, left_knows_right=False)
    left, right = tunnel.left, tunnel.right
    name = left.daemon.interface
    before = allowed_ips(left.daemon)
    assert left.endpoint_of(right) is None

    wgctrl(
        *("set", name, "-peer", right.keys.public, "-how", "update-only"),
        *("-endpoint", right.outer(version), "-keepalive", "25s"),
    )
    wgctrl("set", name, "-listen-port", "50505")

    # The keepalive makes the handshake: nothing else was sent.
    wait_until(lambda: left.last_handshake_ns(right), what="the handshake")
    left.port = 50505
    left.daemon.wait_until_listening()
    assert left.namespace.udp_ports() == {50505}
    assert left.daemon.get().values["listen_port"] == "50505"
    tunnel.assert_works()
    assert right.endpoint_of(left) == left.outer(version)
    assert allowed_ips(left.daemon) == before == ["10.77.0.2/32", "fd77::2/128"]
    (peer,) = left.daemon.get().peers.values()
    assert peer.values["persistent_keepalive_interval"] == "25"


def handshakes(tunnel: Tunnel) -> tuple[int, int]:
    left, right = tunnel.left, tunnel.right
    return left.last_handshake_ns(right), right.last_handshake_ns(left)


def received_bytes(end: End) -> int:
    (peer,) = end.daemon.get().peers.values()
    return int(peer.values["rx_bytes"])


def test_a_session_survives_a_new_endpoint_and_keepalive(testbed: Testbed, wgctrl: Wgctrl) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works()
    session, prefixes, received = (
        handshakes(tunnel),
        allowed_ips(left.daemon),
        received_bytes(right),
    )
    assert all(session)

    wgctrl(
        *("set", left.daemon.interface, "-peer", right.keys.public, "-how", "update-only"),
        *("-endpoint", right.outer(6), "-keepalive", "25s"),
    )

    # A keepalive goes to the new endpoint at once, in the old session.
    wait_until(lambda: received_bytes(right) == received + 32, what="the keepalive")
    assert right.endpoint_of(left) == left.outer(6)
    tunnel.assert_works()
    wgctrl("set", left.daemon.interface, "-listen-port", "50506")
    left.daemon.wait_until_listening()
    tunnel.assert_works()
    assert right.endpoint_of(left) == f"[{left.outer6}]:50506"
    assert handshakes(tunnel) == session
    assert allowed_ips(left.daemon) == prefixes


def test_update_only_creates_no_peer(testbed: Testbed, wgctrl: Wgctrl) -> None:
    daemon = testbed.daemon(testbed.namespace())
    stranger = testbed.keys().public
    wgctrl("set", daemon.interface, "-peer", stranger, "-how", "update-only", "-keepalive", "25s")
    assert not daemon.get().peers


def test_a_peer_is_changed_and_removed(testbed: Testbed, wgctrl: Wgctrl) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works()
    peer = "set", left.daemon.interface, "-peer", right.keys.public

    wgctrl(*peer, "-allowed-ip", "10.78.0.0/16")
    assert allowed_ips(left.daemon) == ["10.77.0.2/32", "fd77::2/128", "10.78.0.0/16"]
    wgctrl(
        *(*peer, "-how", "replace-allowed-ips"),
        *("-allowed-ip", "10.77.0.0/24", "-allowed-ip", "fd78::/64"),
    )
    assert allowed_ips(left.daemon) == ["10.77.0.0/24", "fd78::/64"]
    assert left.ping(right).is_lossless
    assert not left.ping(right, version=6, count=1, wait_seconds=0.5).received

    wgctrl(*peer, "-how", "remove")
    assert not left.daemon.get().peers
    assert not left.ping(right, count=1, wait_seconds=0.5).received


def assert_port_in_use_is_refused(program: Path, end: End) -> None:
    """Set the listen port to one that is in use, which must be an error."""
    with end.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        port = str(taken.getsockname()[1])
        # EADDRINUSE is 98 on Linux; implementations differ in the sign.
        assert_refused(
            program, "set", end.daemon.interface, "-listen-port", port, reason="errno=-?98$"
        )


def test_errors_are_reported(testbed: Testbed, program: Path) -> None:
    assert_port_in_use_is_refused(program, Tunnel.build(testbed).left)
    nothing = testbed.interface_name()
    for arguments in (("dump", nothing), ("set", nothing, "-listen-port", "1")):
        assert_refused(program, *arguments, reason="file does not exist")


@only_wgd("a change that fails changes nothing")
def test_a_port_in_use_leaves_the_old_one(testbed: Testbed, program: Path) -> None:
    tunnel = Tunnel.build(testbed)
    tunnel.assert_works()
    session = handshakes(tunnel)
    assert_port_in_use_is_refused(program, tunnel.left)
    assert tunnel.left.daemon.get().values["listen_port"] == "51801"
    assert 51801 in tunnel.left.namespace.udp_ports()
    tunnel.assert_works()
    assert handshakes(tunnel) == session
