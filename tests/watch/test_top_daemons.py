"""`wgdctl top` beside real daemons: wgd by its UAPI socket, and wireguard-go."""

import shutil
import subprocess
import sys

from tests.testbed.bed import Testbed
from tests.testbed.daemons import only_wgd
from tests.testbed.requirements import require
from tests.testbed.tunnels import Tunnel

pytestmark = only_wgd("status")


def top(*interfaces: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "wgd.ctl", "top", "--once", "--interval=0.5", *interfaces],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_wgd_and_a_wireguard_go_side_by_side(testbed: Testbed) -> None:
    require("wireguard-go")
    other = shutil.which("wireguard-go") or ""
    tunnel = Tunnel.build(testbed, right_command=[other])
    tunnel.assert_works(versions=(4,))
    left, right = tunnel.left, tunnel.right
    lines = top(left.daemon.interface, right.daemon.interface)
    assert lines[0].startswith(f"{left.daemon.interface}  1 of 1 up")
    assert "handshakes 1" in lines[0]
    assert lines[1].startswith(f"{right.daemon.interface}  1 of 1 up")
    assert "counters only" in lines[1]
    assert {line.split()[1] for line in lines[3:]} == {left.keys.public[:8], right.keys.public[:8]}
    text = "\n".join(lines)
    assert left.outer(4) in text
    assert right.outer(4) in text


def test_why_a_peer_is_not_reached_is_in_its_line(testbed: Testbed) -> None:
    daemon = testbed.daemon(testbed.namespace())
    daemon.setconf(
        f"[Interface]\nPrivateKey = {testbed.keys().private}\n"
        f"[Peer]\nPublicKey = {testbed.keys().public}\nAllowedIPs = 10.9.0.1/32\n"
    )
    daemon.namespace.add_address(daemon.interface, "10.9.0.2/24")
    daemon.up()
    daemon.namespace.ping("10.9.0.1", count=1, wait_seconds=0.1)
    (line,) = top(daemon.interface)[2:]
    assert "no endpoint" in line
