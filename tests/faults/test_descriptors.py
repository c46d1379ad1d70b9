"""No descriptor is left: only what needs a new one is missed, and it comes back by itself."""

import os
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.testbed import (
    Daemon,
    Namespace,
    Testbed,
    Tunnel,
    daemon_command,
    only_wgd,
    require,
    wait_until,
)
from tests.testbed.limits import no_new_descriptors
from tests.testbed.tunnels import LEFT_PORT
from tests.testbed.uapi import SOCKET_DIRECTORY, UapiConnection

pytestmark = [pytest.mark.netns, only_wgd("clients wait while there are no descriptors")]

METRICS_PORT = 9586
UAPI_CLIENTS = 20
METRICS_CLIENTS = 5
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def errors_of(daemon: Daemon) -> list[str]:
    """What was logged as an error, without time and interface."""
    lines = daemon.program.stdout.splitlines()
    return [line.split(maxsplit=3)[3] for line in lines if " level=error " in line]


def scraper(namespace: Namespace) -> socket.socket:
    """Return a connection to the metrics that has asked."""
    sock = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", METRICS_PORT))
    sock.sendall(SCRAPE)
    return sock


def whole_answer(sock: socket.socket) -> bytes:
    answer = b""
    while data := sock.recv(1 << 16):
        answer += data
    return answer


def test_without_descriptors_the_tunnel_goes_on_and_the_rest_comes_back(engine: str) -> None:
    require()
    environment = {"WGD_DATAPLANE": engine, "WGD_METRICS": f"127.0.0.1:{METRICS_PORT}"}
    with Testbed(environment=environment) as bed, ExitStack() as opened:
        tunnel = Tunnel.build(bed)
        left = tunnel.left
        daemon, pid = left.daemon, left.daemon.pid
        tunnel.assert_works(versions=(4,))
        before = daemon.get()
        known = opened.enter_context(UapiConnection(daemon.socket_path))
        assert known.request("get=1\n\n")[-1] == "errno=0"

        with no_new_descriptors(pid):
            waiting = [
                opened.enter_context(UapiConnection(daemon.socket_path))
                for _ in range(UAPI_CLIENTS)
            ]
            for client in waiting:
                client.send("get=1\n\n")
            scrapers = [
                opened.enter_context(scraper(left.namespace)) for _ in range(METRICS_CLIENTS)
            ]
            wait_until(lambda: len(errors_of(daemon)) == 2, what="UAPI and metrics say so")
            began, used = time.monotonic(), cpu_seconds(pid)
            assert tunnel.left.ping(tunnel.right).is_lossless
            # A client that is served already can ask and change; what needs sockets is refused.
            assert known.request("set=1\nlisten_port=51899\nfwmark=7\n\n") == ["errno=-98"]
            assert known.request("set=1\npersistent_keepalive_interval=1\n\n") == ["errno=-22"]
            assert known.request("get=1\n\n")[-1] == "errno=0"
            daemon.signal(signal.SIGUSR2)
            wait_until(lambda: "event=upgrade_refused" in daemon.program.stdout, what="a refusal")
            # Routes change: what cannot be looked at is left alone.
            left.namespace.add_address("eth0", "192.0.2.77/24")
            tunnel.assert_works(versions=(4,))
            time.sleep(max(0, began + 1 - time.monotonic()))
            assert cpu_seconds(pid) - used < 0.3 * (time.monotonic() - began)
            # The link goes down and up: that takes new UDP sockets, which cannot be had.
            daemon.ip("down")
            daemon.ip("up")
            wait_until(lambda: "event=listen_failed" in daemon.program.stdout, what="no sockets")
            assert LEFT_PORT not in left.namespace.udp_ports()

        for client in waiting:
            assert client.reply()[-1] == "errno=0"
        for sock in scrapers:
            assert b"wgd_peers" in whole_answer(sock)
        daemon.wait_until_listening()
        tunnel.assert_works(versions=(4,))
        after = daemon.get()
        assert after.values == before.values
        assert after.peers.keys() == before.peers.keys()
        assert any(
            e.startswith("event=upgrade_refused") and "/dev/null" not in e
            for e in errors_of(daemon)
        )
        daemon.wg("set", "listen-port", "51899")
        tunnel.assert_works(versions=(4,))
        errors = errors_of(daemon)
        assert len(errors) <= 6, errors
        # Two are of the listening sockets, whoever waited.
        assert sum("event=accept_failed reason='Too many open files'" in e for e in errors) == 2
        assert daemon.pid == pid


def test_a_start_without_enough_descriptors_says_so_and_leaves_nothing(testbed: Testbed) -> None:
    namespace, name = testbed.namespace(), testbed.interface_name()
    statuses = []
    for limit in (14, 18, 22, 40):
        program = testbed.run_program(
            namespace, name, command=["prlimit", f"--nofile={limit}", *daemon_command()]
        )
        launch = program.launched()
        statuses.append(launch.returncode)
        daemon = Daemon(namespace, name, program)
        if launch.returncode == 0:
            daemon.signal(signal.SIGTERM)
            daemon.wait_for_end()
        else:
            (line,) = launch.stderr.splitlines()
            assert line.startswith("wgd: ")
            assert "Too many open files" in line
        assert not program.is_running()
        assert not namespace.has_interface(name)
        assert not [path for path in SOCKET_DIRECTORY.iterdir() if path.name.startswith(name)]
    assert {0, 1} == set(statuses), statuses
