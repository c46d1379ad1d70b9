"""The network, the TUN or a namespace goes under traffic: traffic again, or an orderly end."""

import json
import signal
import time
from collections.abc import Callable

import pytest

from tests.faults.network_faults import NETWORK_FAULTS
from tests.faults.sending import flood, pinging
from tests.testbed import (
    Daemon,
    End,
    Testbed,
    Tunnel,
    UapiConnection,
    only_wgd,
    stays_true,
    wait_until,
)

pytestmark = pytest.mark.netns

SILENCE_SECONDS = 0.3
RESUMES_WITHIN_SECONDS = 3


@pytest.fixture
def testbed(testbed_per_engine: Testbed) -> Testbed:
    return testbed_per_engine


def failures(end: End) -> str:
    """What was the matter with sending to the only peer, last."""
    with UapiConnection(end.daemon.socket_path) as connection:
        (line, _) = connection.request("status=1\n\n")
    (peer,) = json.loads(line.removeprefix("status="))["peers"]
    return " ".join(one["detail"] for one in peer["failures"] if one["reason"] == "send_failed")


def lines_of(daemon: Daemon) -> int:
    return len(daemon.program.stdout.splitlines())


@only_wgd("the reason of a send that fails")
def test_what_keeps_datagrams_from_leaving_passes(
    testbed: Testbed, measured: Callable[[str], None], engine: str
) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works(versions=(4,))
    lines = lines_of(left.daemon)
    resumed = {}
    with pinging(left.home, right.inner4, testbed.directory) as pings:
        pings.wait_for_more()
        for fault in NETWORK_FAULTS:
            fault.begin(tunnel)
            with flood(left.home, right.inner4):
                wait_until(
                    lambda: fault.errno in failures(left),  # noqa: B023 - called at once
                    what=f"{fault.errno} of {fault.name}",
                )
            time.sleep(SILENCE_SECONDS / 3)  # answers may have been on their way
            seen = len(pings.answered)
            stays_true(
                lambda: len(pings.answered) <= seen,  # noqa: B023
                SILENCE_SECONDS,
                what=f"silence of {fault.name}",
            )
            mended = time.time()
            fault.end(tunnel)
            resumed[fault.name] = pings.seconds_until_answer(mended, RESUMES_WITHIN_SECONDS)
    slowest = max(resumed, key=lambda name: resumed[name])
    measured(f"slowest to resume: {slowest}, {resumed[slowest]:.2f} s ({engine})")
    assert lines_of(left.daemon) - lines <= 3 * len(NETWORK_FAULTS), "it goes on about it"


@pytest.mark.parametrize("where", ["here", "elsewhere", "with its namespace"])
def test_a_tun_that_is_deleted_under_traffic_ends_the_daemon(testbed: Testbed, where: str) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works(versions=(4,))
    name = left.daemon.interface
    if where != "here":
        left.home = testbed.namespace()
        left.namespace.ip("link", "set", name, "netns", left.home.name)
        tunnel.give_addresses(left, with_ipv6=False)
        left.home.ip("link", "set", name, "up")
        left.daemon.wait_until_listening()
    with flood(left.home, right.inner4), flood(right.home, left.inner4):
        tunnel.assert_works(versions=(4,))
        if where == "with its namespace":
            testbed.forget(left.home)
            left.home.delete()
        else:
            left.home.ip("link", "delete", name)
    left.daemon.wait_for_end()  # not before: a sender's socket in it would keep a namespace
    assert not left.daemon.socket_path.exists()
    assert "event=ending" in left.daemon.program.stdout
    assert left.daemon.program.stderr == ""
    assert right.daemon.is_running()


def test_the_exit_status_after_the_tun_was_deleted_under_traffic(testbed: Testbed) -> None:
    namespace = testbed.namespace()
    daemon = Daemon(
        namespace, name := testbed.interface_name(), testbed.run_program(namespace, "-f", name)
    )
    wait_until(daemon.socket_path.is_socket, 15, what="the socket")
    namespace.add_address(name, "10.77.0.1/24")
    daemon.ip("up")
    with flood(namespace, "10.77.0.2"):
        time.sleep(0.1)
        namespace.ip("link", "delete", name)
        assert daemon.program.launched().returncode == 0
    assert not daemon.socket_path.exists()


def test_a_daemon_whose_network_is_deleted_ends_when_told(testbed: Testbed) -> None:
    """Its own namespace has no name any more, and no cable; it lives there as before."""
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works(versions=(4,))
    pid = left.daemon.pid
    with flood(left.home, right.inner4):
        right.namespace.ip("link", "delete", "eth0")
        assert left.daemon.get().peers
        left.daemon.signal(signal.SIGTERM)
        left.daemon.wait_for_end()
    assert not left.daemon.socket_path.exists()
    assert pid not in left.namespace.pids()
