"""`wgdctl save` writes what `wg-quick save` writes, but for what it does better."""

import stat

import pytest

from tests.quick.scene import SERVER_PORT, Scene, assert_same
from wgd.addresses import Endpoint
from wgd.configuration import DeviceState, PeerState
from wgd.quick import config as files
from wgd.quick.save import render
from wgd.quick.system import System
from wgd.quick.up import syntax
from wgd.uapi.client import Client

pytestmark = pytest.mark.netns

LINES = """\
Address = 10.77.0.1/24, fd77::1/64
DNS = 9.9.9.9
MTU = 1400
Table = off
PreUp = true
PostUp = true; true
PreDown = true
PostDown = true"""


def test_the_same_as_wg_quick(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, LINES)
    scene.wgdctl("up", path)
    scene.client.ip("address", "add", "10.78.0.1/32", "dev", interface)
    scene.client.ip("link", "set", "mtu", "1300", "dev", interface)
    extra = scene.bed.keys().public
    scene.run("wg", "set", interface, "peer", extra, "allowed-ips", "10.99.0.0/16")
    written = path.read_text()
    scene.run("wg-quick", "save", path)
    by_wg_quick = path.read_text().splitlines()
    path.write_text(written)
    path.chmod(0o644)
    # It also saves the link-local address that the kernel gives to every TUN device.
    expected = [line for line in by_wg_quick if not line.startswith("Address = fe80:")]
    assert extra in by_wg_quick[-2]
    scene.wgdctl("save", path)
    assert path.read_text().splitlines() == expected
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    scene.wgdctl("down", path)
    # It is a file that up takes, and that says the same again.
    scene.wgdctl("up", path)
    scene.wgdctl("save", path)
    assert path.read_text().splitlines() == expected
    scene.wgdctl("down", path)


def test_down_saves_if_the_file_says_so(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, "Address = 10.77.0.1/24\nSaveConfig = true")
    before = scene.state(interface)
    scene.wgdctl("up", path)
    extra = scene.bed.keys().public
    scene.run("wg", "set", interface, "peer", extra, "allowed-ips", "10.99.0.0/16")
    scene.wgdctl("down", path)
    assert_same(scene.state(interface), before)
    text = path.read_text()
    assert extra in text
    assert scene.client_keys.private in text
    assert "SaveConfig = true\n" in text


def test_a_host_name_stays_a_name(scene: Scene) -> None:
    interface = scene.interface()
    lines = f"{LINES}\nDNS = example.org"
    path = scene.write(interface, lines, endpoint=f"server.example:{SERVER_PORT}")
    with scene.hosts("192.0.2.2 server.example\n"):
        scene.wgdctl("up", path)
    assert f"192.0.2.2:{SERVER_PORT}" in scene.run("wg", "show", interface, "endpoints").stdout
    # The daemon knows the name, too, so that it can look it up again.
    (peer,) = Client().status(interface).peers
    assert peer.configured_endpoint == f"server.example:{SERVER_PORT}"
    scene.wgdctl("save", path)
    text = path.read_text()
    assert f"Endpoint = server.example:{SERVER_PORT}\n" in text
    assert "DNS = 9.9.9.9\nDNS = example.org\n" in text
    scene.wgdctl("down", path)


def test_a_host_name_that_could_not_be_looked_up_stays(scene: Scene) -> None:
    name = f"nowhere.invalid:{SERVER_PORT}"
    interface = scene.interface()
    path = scene.write(interface, LINES, endpoint=name)
    config = files.load(path, interface)
    (peer,) = syntax(config).peers
    known = PeerState(peer.public_key)
    other = PeerState(bytes(32), endpoint=Endpoint("192.0.2.9", 9))
    system = System(lambda _: None, lambda _: None)
    try:
        text = render(config, DeviceState(peers=(known, other)), system.network)
    finally:
        system.close()
    path.write_text(text)
    first, second = syntax(files.load(path, interface)).peers
    assert (first.endpoint_host, first.endpoint) == (name, None)
    assert second.endpoint == other.endpoint
