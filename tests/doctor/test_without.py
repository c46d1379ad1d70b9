"""What the doctor still says without root, and without a wgd."""

import sys

import pytest

from tests.doctor.clinic import see, visited
from tests.doctor.faults import assert_well
from tests.testbed import Testbed, Tunnel, require

WATCHERS = "daemon"  # a group that every system has


# -- without root ----------------------------------------------------------------------------------

AS_NOBODY = f"""
import os, grp
from pyroute2 import IPRoute
from wgd.ctl.doctor import command, gather, look, network
from wgd.ctl.main import main
IPRoute().close()  # all is imported: nobody may not read where Python is
os.setgroups([grp.getgrnam("{WATCHERS}").gr_gid])
os.setgid(65534)
os.setuid(65534)
main()
"""


def test_without_root_the_socket_for_watching_is_read(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    namespace = testbed.namespace()
    environment = {"WGD_METRICS": "unix", "WGD_METRICS_GROUP": WATCHERS, "LOG_LEVEL": "verbose"}
    daemon = testbed.daemon(namespace, environment=environment)
    peer = testbed.keys().public
    daemon.setconf(
        f"[Interface]\nPrivateKey = {testbed.keys().private}\n"
        f"[Peer]\nPublicKey = {peer}\nEndpoint = 192.0.2.7:51820\n"
    )
    daemon.up()
    nobody = [sys.executable, "-c", AS_NOBODY]
    seen = visited(namespace, nobody, daemon.interface)
    assert seen.report["source"] == "watch"
    assert seen.finding("no-allowed-ips")["peer"] == peer
    assert "no-route-to-endpoint" in seen.problems
    missing = {each["what"] for each in seen.report["not_looked_at"]}
    assert missing >= {"the configuration socket", "the firewall's rules"}

    interface = tunnel.left.daemon.interface  # that daemon lets nobody watch
    done = tunnel.left.namespace.run(*nobody, "doctor", interface, "--no-probe", check=False)
    assert done.returncode == 1
    assert "run this as root" in done.stderr


# -- other daemons ---------------------------------------------------------------------------------


@pytest.mark.interop
def test_wireguard_go_is_examined_by_what_it_shows(testbed: Testbed) -> None:
    require("wireguard-go")
    tunnel = Tunnel.build(testbed, left_command=["wireguard-go"])
    tunnel.assert_works(versions=(4,))
    seen = see(tunnel.left)
    assert_well(seen)
    assert any("no wgd" in each["why"] for each in seen.report["not_looked_at"])

    left = tunnel.left
    left.daemon.setconf(tunnel.configuration(left, tunnel.right, "192.0.2.2:5"))
    left.bounce()
    left.ping(tunnel.right, count=1, wait_seconds=0.1)
    assert "port-closed" in see(left).problems
