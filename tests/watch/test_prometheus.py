"""Debian's Prometheus scrapes real daemons, promtool agrees, and every panel has something to show.

`wgdctl top` and others read the same from a unix socket, without being root.
"""

import grp
import http.client
import io
import math
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.testbed.bed import Testbed
from tests.testbed.daemons import Daemon, only_wgd
from tests.testbed.requirements import require
from tests.testbed.tunnels import End
from tests.testbed.waiting import wait_until
from tests.watch.prometheus import Prometheus, dashboard_queries, tool
from tests.watch.scene import METRICS, Scene
from wgd.ctl.main import run as run_wgdctl
from wgd.ctl.top import command

pytestmark = only_wgd("metrics")

NOBODY = 65534
GROUP = "daemon"


@pytest.fixture
def bed() -> Iterator[Testbed]:
    require()
    with Testbed(environment={"WGD_METRICS": METRICS}) as bed:
        yield bed


def scraped(end: End, accept: str = "*/*") -> bytes:
    """Return the metrics of a daemon, as a client in its namespace gets them."""
    host, port = METRICS.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        with end.namespace.entered():
            connection.connect()
        connection.request("GET", "/metrics", headers={"Accept": accept})
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.mark.slow
def test_prometheus_scrapes_it_and_every_panel_of_the_dashboard_has_data(bed: Testbed) -> None:
    tool("prometheus")
    scene = Scene(bed)
    left, right = scene.tunnel.left, scene.tunnel.right
    with Prometheus(left.namespace, bed.directory, METRICS) as prometheus:
        prometheus.wait_until_scraping()
        started = time.time()
        for _ in range(10):
            scene.go_on()
            time.sleep(0.5)  # Prometheus' rates are of what it sees a second apart
        found = {metric["public_key"] for metric, _ in prometheus.query("wgd_peer_session")}
        assert found == {right.keys.public, scene.silent.public, scene.unknown.public}
        of_right = f'wgd_peer_sent_bytes_total{{public_key="{right.keys.public}"}}'
        # It is asked what it has scraped, which may be a second old.
        wait_until(
            lambda: prometheus.query(of_right)[0][1][0].value > 10 * 3 << 20,
            what="the last of ten transfers is scraped",
        )
        (refused,) = prometheus.query('wgd_dropped_packets_total{reason="no_route"}')
        assert refused[1][0].value >= 10
        silent = f'public_key="{scene.silent.public}",reason="not_answered"'
        wait_until(
            lambda: prometheus.query(f"wgd_peer_failures_total{{{silent}}} > 0"),
            20,
            what="a handshake that is not answered is counted",
        )

        ended = time.time()
        empty = []
        for query in dashboard_queries():
            series = prometheus.query_range(query.expression, started, ended)
            values = [sample.value for _, samples in series for sample in samples]
            if not any(math.isfinite(value) for value in values):
                empty.append(query)
        assert not empty


def test_promtool_finds_nothing_to_mend(bed: Testbed) -> None:
    promtool = tool("promtool")
    scene = Scene(bed)
    scene.go_on()
    metrics = scraped(scene.tunnel.left)
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=metrics, capture_output=True, check=False, timeout=30
    )
    assert checked.returncode == 0, checked
    assert checked.stdout + checked.stderr == b""
    assert b"# EOF" in scraped(scene.tunnel.left, "application/openmetrics-text; version=1.0.0")
    for keys in (scene.tunnel.left.keys, scene.tunnel.right.keys):
        assert keys.private.encode() not in metrics


# -- without root ----------------------------------------------------------------------------------


def as_nobody(task: Callable[[], str], *groups: int) -> str:
    """Return what `task` returns in a process of nobody's, who is a member of `groups` too."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            text = task()
        except BaseException as error:  # noqa: BLE001 - the parent shall see it
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode()[: 1 << 15])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    return text


def status_of(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        sock.sendall(b"GET /status HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        text = b""
        while data := sock.recv(1 << 16):
            text += data
    return text.decode()


def top_of(interface: str) -> str:
    """Return what `wgdctl top --once` says in this process."""
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    status = run_wgdctl(["top", "--once", "--interval=0.1", interface], {"HOME": "/"})
    return f"{status}\n{sys.stdout.getvalue()}{sys.stderr.getvalue()}"


@pytest.fixture
def watched(testbed: Testbed) -> Daemon:
    """A daemon with a status socket for GROUP."""
    environment = {"WGD_METRICS": "unix", "WGD_METRICS_GROUP": GROUP, "LOG_LEVEL": "verbose"}
    return testbed.daemon(testbed.namespace(), environment=environment)


def test_the_members_of_a_group_can_watch_and_nobody_else(
    testbed: Testbed, watched: Daemon
) -> None:
    group = grp.getgrnam(GROUP).gr_gid
    path = Path("/run/wgd") / f"{watched.interface}.sock"
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, group, 0o660)
    assert f'"interface": "{watched.interface}"' in as_nobody(lambda: status_of(path), group)
    assert as_nobody(lambda: status_of(path)).startswith("PermissionError")

    peer = testbed.keys().public
    watched.wg("set", "peer", peer, "allowed-ips", "10.9.0.7/32")
    assert command  # loaded while files can be read
    shown = as_nobody(lambda: top_of(watched.interface), group)
    assert shown.startswith("0\n")
    assert peer[:8] in shown
    refused = as_nobody(lambda: top_of(watched.interface))
    assert refused.startswith("1\n")
    assert "--metrics-group" in refused

    watched.program.kill()
    assert not path.exists()


def test_a_killed_daemons_status_socket_is_taken_over(testbed: Testbed, watched: Daemon) -> None:
    path = Path("/run/wgd") / f"{watched.interface}.sock"
    os.kill(watched.pid, 9)
    watched.wait_for_end()
    again = testbed.daemon(
        watched.namespace, interface=watched.interface, environment={"WGD_METRICS": "unix"}
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert '"peers": []' in status_of(path)
    again.program.kill()
    assert not path.exists()
