"""`wgdctl up` and `down` beside the real wg-quick, and under traffic."""

import os
import signal
from pathlib import Path

import pytest

from tests.quick.scene import FAR_ADDRESSES, FULL_TUNNEL, Scene, assert_same
from tests.testbed import wait_until
from wgd.quick import launch
from wgd.quick.journal import DIRECTORY
from wgd.quick.system import System

pytestmark = pytest.mark.netns

BOTH = "Address = 10.77.0.1/24, fd77::1/64"


@pytest.mark.parametrize(
    ("lines", "allowed_ips"),
    [
        pytest.param(BOTH, FULL_TUNNEL, id="full tunnel"),
        pytest.param(BOTH, "0.0.0.0/0, 10.20.0.0/16", id="full tunnel of IPv4 only"),
        pytest.param(BOTH, "10.77.0.0/24, fd77::/64, 10.20.0.0/16, fd20::/48", id="split"),
        pytest.param("Address = 10.77.0.1/32", "10.77.0.2, 10.77.0.0/16", id="host address"),
        pytest.param(f"{BOTH}\nTable = off", FULL_TUNNEL, id="no table"),
        pytest.param(f"{BOTH}\nTable = 4711", f"{FULL_TUNNEL}, 10.20.0.0/16", id="table"),
        pytest.param(f"{BOTH}\nTable = main", "10.20.0.0/16", id="named table"),
        pytest.param(f"{BOTH}\nFwMark = 0x1234", FULL_TUNNEL, id="fwmark"),
        pytest.param(f"{BOTH}\nMTU = 1280", FULL_TUNNEL, id="mtu"),
        pytest.param(f"{BOTH}\nDNS = 9.9.9.9, fd53::1, example.com, example.org", "10.77.0.0/24"),
        pytest.param(f"{BOTH}\nAddress = 10.78.0.1/16,10.79.0.1\naddress=fd78::1", FULL_TUNNEL),
    ],
)
def test_the_same_as_wg_quick(scene: Scene, lines: str, allowed_ips: str) -> None:
    interface = scene.interface()
    path = scene.write(interface, lines, allowed_ips)
    before = scene.state(interface)
    scene.wg_quick("up", path)
    by_wg_quick = scene.state(interface, ignore=("files",))
    scene.wg_quick("down", path)
    assert_same(scene.state(interface), before)
    scene.wgdctl("up", path)
    assert_same(scene.state(interface, ignore=("files",)), by_wg_quick)
    assert by_wg_quick != before
    scene.wgdctl("down", path)
    assert_same(scene.state(interface), before)


@pytest.mark.parametrize("endpoint", ["192.0.2.2:51820", "[2001:db8::2]:51820"])
def test_a_full_tunnel_carries_everything_but_its_own_packets(scene: Scene, endpoint: str) -> None:
    interface = scene.interface()
    path = scene.write(interface, BOTH, FULL_TUNNEL, endpoint)
    before = scene.state(interface)
    scene.wgdctl("up", path)
    mark = scene.client.run("wg", "show", interface, "fwmark").stdout.strip()
    for destination in FAR_ADDRESSES:
        assert f"dev {interface}" in scene.client.ip("route", "get", destination).stdout
        ping = scene.client.ping(destination)
        assert ping.is_lossless, ping.output
    host = endpoint.rpartition(":")[0].strip("[]")
    route = scene.client.ip("route", "get", host, "mark", mark).stdout
    assert "dev eth0" in route
    # That much went through the tunnel, and back: what a ping shows alone could have gone beside.
    peers = scene.client.run("wg", "show", interface, "transfer").stdout.split()
    assert min(int(peers[1]), int(peers[2])) > 6 * 64
    scene.wgdctl("down", path)
    assert_same(scene.state(interface), before)


def test_mtu_follows_the_route_to_the_endpoint(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface)
    scene.client.ip("route", "add", "192.0.2.2", "dev", "eth0", "mtu", "1400")
    try:
        scene.wgdctl("up", path)
        assert "mtu 1320" in scene.client.ip("link", "show", "dev", interface).stdout
        scene.wgdctl("down", path)
    finally:
        scene.client.ip("route", "delete", "192.0.2.2", "dev", "eth0")


def test_down_after_the_daemon_was_killed(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, f"{BOTH}\nDNS = 9.9.9.9", FULL_TUNNEL)
    before = scene.state(interface)
    scene.wgdctl("up", path)
    _kill_daemon(scene, interface)
    assert scene.state(interface) != before
    scene.wgdctl("down", path)
    assert_same(scene.state(interface), before)
    assert scene.wgdctl_error("down", path) == f"wgdctl: {interface} is not up"


def test_up_again_after_the_daemon_was_killed(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, f"{BOTH}\nDNS = 9.9.9.9", FULL_TUNNEL)
    before = scene.state(interface)
    scene.wgdctl("up", path)
    up = scene.state(interface)
    _kill_daemon(scene, interface)
    scene.wgdctl("up", path)
    assert_same(scene.state(interface), up)
    scene.wgdctl("down", path)
    assert_same(scene.state(interface), before)


def test_down_when_somebody_has_removed_some_of_it(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, BOTH, f"{FULL_TUNNEL}, 10.20.0.0/16")
    before = scene.state(interface)
    scene.wgdctl("up", path)
    scene.client.ip("-6", "rule", "delete", "table", "main", "suppress_prefixlength", "0")
    scene.client.ip("route", "delete", "10.20.0.0/16", "dev", interface)
    scene.client.ip("address", "delete", "10.77.0.1/24", "dev", interface)
    scene.client.run("nft", "delete", "table", "ip", f"wg-quick-{interface}")
    scene.wgdctl("down", path)
    assert_same(scene.state(interface), before)


def test_down_without_the_file(scene: Scene) -> None:
    interface = scene.interface()
    marker = scene.bed.directory / f"{interface}.marker"
    path = scene.write(interface, f"{BOTH}\nPostDown = echo %i > {marker}", FULL_TUNNEL)
    before = scene.state(interface)
    scene.wgdctl("up", path)
    path.unlink()
    scene.wgdctl("down", interface)
    assert_same(scene.state(interface), before)
    assert marker.read_text() == f"{interface}\n"


def test_down_of_what_wg_quick_brought_up(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, f"{BOTH}\nDNS = 9.9.9.9", FULL_TUNNEL)
    before = scene.state(interface)
    scene.wg_quick("up", path)
    scene.wgdctl("down", path)
    scene.wait_for_end(interface)
    scene.client.sysctl("net/ipv4/conf/all/src_valid_mark", "0")  # what it was, nobody knows
    assert_same(scene.state(interface), before)


def test_two_full_tunnels_go_down_in_any_order(scene: Scene) -> None:
    first, second = scene.interface(), scene.interface()
    before = scene.state(first)
    paths = [scene.write(name, BOTH, FULL_TUNNEL) for name in (first, second)]
    for path in paths:
        scene.wgdctl("up", path)
    scene.wgdctl("down", paths[0])
    assert "src_valid_mark:\n1" in scene.state(first), f"{second} still needs it"
    ping = scene.client.ping(FAR_ADDRESSES[0])
    assert ping.is_lossless, ping.output
    scene.wgdctl("down", paths[1])
    assert_same(scene.state(first), before)


def test_a_hook_that_fails_undoes_everything(scene: Scene) -> None:
    interface = scene.interface()
    marker = scene.bed.directory / f"{interface}.marker"
    lines = (
        f"{BOTH}\nPreUp = echo pre-up >> {marker}\nPostUp = echo post-up >> {marker}\n"
        f"PostUp = false\nPostUp = echo never >> {marker}\n"
        f"PreDown = echo pre-down >> {marker}\nPostDown = echo post-down >> {marker}"
    )
    path = scene.write(interface, lines, FULL_TUNNEL)
    before = scene.state(interface)
    assert "PostUp = false failed with exit status 1" in scene.wgdctl_error("up", path)
    assert_same(scene.state(interface), before)
    # The hooks that go with those that were begun: so that they can clean up, too.
    assert marker.read_text().split() == ["pre-up", "post-up", "pre-down", "post-down"]


def test_hooks_run_in_order_and_say_so(scene: Scene) -> None:
    interface = scene.interface()
    marker = scene.bed.directory / f"{interface}.marker"
    lines = "\n".join(
        f"{name} = echo {name}{n} %i $(wg show interfaces | grep -cw %i) >> {marker}"
        for name in ("PreUp", "PostUp", "PreDown", "PostDown")
        for n in (1, 2)
    )
    path = scene.write(interface, f"{BOTH}\n{lines}")
    said = scene.wgdctl("up", path) + scene.wgdctl("down", path)
    alive = {"PreUp": 0, "PostUp": 1, "PreDown": 1, "PostDown": 0}
    assert marker.read_text().splitlines() == [
        f"{name}{n} {interface} {alive[name]}" for name in alive for n in (1, 2)
    ]
    assert f"[#] echo PostUp1 {interface}" in said


def test_a_pre_down_that_fails_leaves_it_up(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, f"{BOTH}\nPreDown = test -e {scene.bed.directory}/{interface}.ok")
    before = scene.state(interface)
    scene.wgdctl("up", path)
    up = scene.state(interface)
    assert "PreDown = test" in scene.wgdctl_error("down", path)
    assert_same(scene.state(interface), up)
    (scene.bed.directory / f"{interface}.ok").touch()
    scene.wgdctl("down", path)
    assert_same(scene.state(interface), before)


def test_what_is_there_already_is_left_alone(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, BOTH, FULL_TUNNEL)
    scene.client.ip("link", "add", interface, "type", "veth", "peer", "name", f"{interface}p")
    try:
        before = scene.state(interface)
        error = scene.wgdctl_error("up", path)
        assert error.startswith(f"wgdctl: {interface} already exists"), error
        assert "no interface of a userspace daemon" in scene.wgdctl_error("down", path)
        assert_same(scene.state(interface), before)
    finally:
        scene.client.ip("link", "delete", interface)
    scene.wgdctl("up", path)
    before = scene.state(interface)
    assert f"say `wgdctl down {interface}` first" in scene.wgdctl_error("up", path)
    assert_same(scene.state(interface), before)
    scene.wgdctl("down", path)


def test_a_route_that_is_there_already(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, BOTH, "10.77.0.0/24, 192.0.2.0/24")
    before = scene.state(interface)
    # Through another interface, so it is no reason to leave ours out.
    assert "table 254 has a route to 192.0.2.0/24 already" in scene.wgdctl_error("up", path)
    assert_same(scene.state(interface), before)


def test_dns_without_a_program_for_it(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, f"{BOTH}\nDNS = 9.9.9.9\nPreUp = touch {scene.bed.directory}/no")
    before = scene.state(interface)
    (scene.programs / "resolvconf").rename(scene.programs / "away")
    try:
        error = scene.wgdctl_error("up", path)
        assert "no resolvconf and no resolvectl: install openresolv" in error
    finally:
        (scene.programs / "away").rename(scene.programs / "resolvconf")
    assert_same(scene.state(interface), before)
    assert not (scene.bed.directory / "no").exists()


def test_dns_by_resolvectl(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, f"{BOTH}\nDNS = 9.9.9.9, example.com")
    log = scene.bed.directory / f"{interface}.log"
    (scene.programs / "resolvconf").rename(scene.programs / "away")
    scene.program("resolvectl", f'#!/bin/sh\necho "$@" >> {log}\n')
    try:
        scene.wgdctl("up", path)
        scene.wgdctl("down", path)
    finally:
        (scene.programs / "away").rename(scene.programs / "resolvconf")
        (scene.programs / "resolvectl").unlink()
    said = [line for line in log.read_text().splitlines() if interface in line]
    assert said == [
        f"dns {interface} 9.9.9.9",
        f"domain {interface} example.com ~.",
        f"default-route {interface} yes",
        f"revert {interface}",
    ]


def test_down_in_the_wrong_namespace(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, BOTH, FULL_TUNNEL)
    scene.wgdctl("up", path)
    up = scene.state(interface)
    command = ("wgdctl", "down", path)
    completed = scene.server.namespace.run(*command, env=scene.environment(), check=False)
    assert completed.returncode == 1
    assert "in another network namespace: take it down there" in completed.stderr
    assert_same(scene.state(interface), up)
    scene.wgdctl("down", path)


def test_a_world_readable_file_is_warned_about(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface)
    scene.bed.directory.chmod(0o755)
    try:
        path.chmod(0o644)
        assert "is world accessible" in scene.wgdctl("strip", path)
        path.chmod(0o600)
        assert scene.wgdctl("strip", path) == ""
    finally:
        scene.bed.directory.chmod(0o700)


def test_ctrl_c_in_a_hook_undoes_everything(scene: Scene) -> None:
    interface = scene.interface()
    # Not before it waits for the hook: whoever is interrupted earlier does not know of it yet.
    waits = "until grep -q wait /proc/$PPID/wchan; do sleep 0.01; done"
    lines = f"{BOTH}\nPostUp = {waits}; kill -INT $PPID; exec sleep 60"
    path = scene.write(interface, lines, FULL_TUNNEL)
    before = scene.state(interface)
    completed = scene.run("wgdctl", "up", path, check=False)
    assert completed.returncode == 128 + signal.SIGINT
    assert_same(scene.state(interface), before)


def _kill_daemon(scene: Scene, interface: str) -> None:
    for pid in scene.client.pids():
        if interface.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not scene.client.has_interface(interface), what="the interface's end")


def test_down_leaves_a_systemd_units_interface_to_it(scene: Scene) -> None:
    interface = scene.interface()
    path = scene.write(interface, BOTH)
    scene.wgdctl("up", path)
    roots, units = DIRECTORY / f"{interface}.json", DIRECTORY / interface / f"{interface}.json"
    units.parent.mkdir()
    roots.rename(units)
    try:
        assert "was brought up by `wgd --config`" in scene.wgdctl_error("down", path)
        assert scene.client.has_interface(interface)
    finally:
        units.rename(roots)
        units.parent.rmdir()
    scene.wgdctl("down", path)


def test_what_is_said_to_us_is_not_said_to_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("WGD_CONFIG", "WG_PROCESS_FOREGROUND", "WG_TUN_FD", "WG_UAPI_FD", "WGD_USER")
    for name in names:
        monkeypatch.setenv(name, "x")
    seen = tmp_path / "seen"
    monkeypatch.setattr(launch, "_program", lambda: ["sh", "-c", f"env >{seen}"])
    launch.Daemon("wg0", "").do(System(lambda _: None, lambda _: None))
    found = [name for name in names if f"{name}=" in seen.read_text()]
    assert found == ["WGD_USER"]
