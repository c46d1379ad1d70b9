"""`wg-quick up` and `down` with the daemon as its userspace implementation."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.testbed import Daemon, Namespace, Testbed, daemon_command, require, wait_until
from tests.testbed.bed import Keys

pytestmark = pytest.mark.netns

SERVER_PORT = 51_820


@dataclass
class Scene:
    """A client's namespace for wg-quick, and a server that waits for the client."""

    bed: Testbed
    client: Namespace
    client_keys: Keys
    server: Daemon
    server_keys: Keys

    def write(self, interface: str, interface_lines: str, allowed_ips: str) -> Path:
        """Write the client's configuration file; its name is the interface's."""
        path = self.bed.directory / f"{interface}.conf"
        path.touch(0o600)
        path.write_text(
            f"[Interface]\nPrivateKey = {self.client_keys.private}\n{interface_lines}\n"
            f"[Peer]\nPublicKey = {self.server_keys.public}\nAllowedIPs = {allowed_ips}\n"
            f"Endpoint = 192.0.2.2:{SERVER_PORT}\n"
        )
        return path

    def wg_quick(self, action: str, path: Path, *, check: bool = True) -> str:
        """Run wg-quick in the client's namespace, within ten seconds."""
        (program,) = daemon_command()
        tools = [str(Path(program).parent), str(self.bed.directory), os.environ["PATH"]]
        environment = {
            "PATH": ":".join(tools),
            "WG_QUICK_USERSPACE_IMPLEMENTATION": Path(program).name,
        }
        completed = self.client.run(
            *("wg-quick", action, path), env=environment, timeout_seconds=10, check=check
        )
        return completed.stderr

    def assert_down(self, interface: str) -> None:
        """Neither daemon nor socket nor interface is left."""
        wait_until(lambda: self.client.pids() == [], what="the daemon's end")
        assert not Path(f"/var/run/wireguard/{interface}.sock").exists()
        assert not self.client.has_interface(interface)


@pytest.fixture
def scene(testbed: Testbed) -> Scene:
    require("wg-quick")
    client, server = testbed.namespace(), testbed.namespace()
    testbed.link(client, server)
    client.add_address("eth0", "192.0.2.1/24")
    server.add_address("eth0", "192.0.2.2/24")
    scene = Scene(testbed, client, testbed.keys(), testbed.daemon(server), testbed.keys())
    daemon = scene.server
    daemon.setconf(
        f"[Interface]\nPrivateKey = {scene.server_keys.private}\nListenPort = {SERVER_PORT}\n"
        f"[Peer]\nPublicKey = {scene.client_keys.public}\nAllowedIPs = 10.77.0.1, fd77::1\n"
    )
    for address in ("10.77.0.2/24", "fd77::2/64"):
        server.add_address(daemon.interface, address)
    daemon.up()
    # Somewhere far behind the server: only a default route leads there.
    for address in ("203.0.113.1/32", "2001:db8:ffff::1/128"):
        server.add_address("lo", address)
    return scene


def test_up_and_down(scene: Scene) -> None:
    interface, marker = scene.bed.interface_name(), scene.bed.directory / "post-up"
    lines = "Address = 10.77.0.1/24, fd77::1/64\nMTU = 1380\nListenPort = 4711\n"
    path = scene.write(interface, f"{lines}PostUp = echo %i > {marker}", "10.77.0.0/24, fd77::/64")
    scene.wg_quick("up", path)
    assert marker.read_text() == f"{interface}\n"
    assert "mtu 1380" in scene.client.ip("link", "show", "dev", interface).stdout
    assert scene.client.run("wg", "show", interface, "listen-port").stdout == "4711\n"
    for destination in ("10.77.0.2", "fd77::2"):
        ping = scene.client.ping(destination)
        assert ping.is_lossless, ping.output
    scene.wg_quick("down", path)
    scene.assert_down(interface)


def test_up_again_after_down(scene: Scene) -> None:
    interface = scene.bed.interface_name()
    path = scene.write(interface, "Address = 10.77.0.1/24", "10.77.0.0/24")
    for _ in range(3):
        scene.wg_quick("up", path)
        ping = scene.client.ping("10.77.0.2")
        assert ping.is_lossless, ping.output
        scene.wg_quick("down", path)
        scene.assert_down(interface)


def test_a_failing_up_leaves_nothing(scene: Scene) -> None:
    interface = scene.bed.interface_name()
    path = scene.write(interface, "Address = 10.77.0.1/24\nPostUp = false", "10.77.0.0/24")
    scene.wg_quick("up", path, check=False)
    scene.assert_down(interface)


def test_save_config_keeps_what_was_set(scene: Scene) -> None:
    interface = scene.bed.interface_name()
    path = scene.write(interface, "Address = 10.77.0.1/24\nSaveConfig = true", "10.77.0.0/24")
    scene.wg_quick("up", path)
    extra = scene.bed.keys().public
    scene.client.run("wg", "set", interface, "peer", extra, "allowed-ips", "10.99.0.0/16")
    scene.wg_quick("down", path)
    scene.assert_down(interface)
    assert extra in path.read_text()
    assert scene.client_keys.private in path.read_text()


def test_a_default_route_goes_through_the_tunnel_but_its_own_packets_do_not(scene: Scene) -> None:
    # The firewall rules that wg-quick adds are not the daemon's business: they may go nowhere.
    for name in ("iptables", "iptables-restore", "ip6tables-restore", "nft"):
        stub = scene.bed.directory / name
        stub.write_text("#!/bin/sh\ncat > /dev/null\n")
        stub.chmod(0o755)
    interface = scene.bed.interface_name()
    path = scene.write(interface, "Address = 10.77.0.1/24, fd77::1/64", "0.0.0.0/0, ::/0")
    scene.wg_quick("up", path)
    mark = scene.client.run("wg", "show", interface, "fwmark").stdout.strip()
    assert int(mark, 16) > 0
    for destination in ("203.0.113.1", "2001:db8:ffff::1"):
        route = scene.client.ip("route", "get", destination).stdout
        assert f"dev {interface}" in route
        ping = scene.client.ping(destination)
        assert ping.is_lossless, ping.output
    scene.wg_quick("down", path)
    scene.assert_down(interface)
