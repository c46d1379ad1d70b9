"""Keys and clocks that do not fit, between real daemons, as both ends see it."""

import base64
import sys

from tests.doctor.clinic import Visit, see, visited
from tests.doctor.faults import NO_PROBE, call_in_vain, pinging, wait_for_failure
from tests.testbed import End, Testbed, Tunnel, wait_until
from tests.testbed.tunnels import RIGHT_PORT
from wgd.diagnosis import FailureReason

HOUR_SECONDS = 3600


def test_the_other_end_does_not_know_our_key(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    right.set_peer(left, "remove")
    call_in_vain(left, right)
    assert "endpoint-silent" in see(left).problems
    finding = see(right, NO_PROBE).finding("unknown-peer")
    assert left.keys.public in finding["sentence"]
    assert left.outer4 in finding["sentence"]


def test_a_wrong_public_key_of_the_peer(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    left.daemon.setconf(
        tunnel.configuration(left, right, right.outer(4)).replace(
            right.keys.public, testbed.keys().public
        )
    )
    call_in_vain(left, right)
    assert "endpoint-silent" in see(left).problems
    finding = see(right, NO_PROBE).finding("wrong-public-key")
    assert any(right.keys.public in advice for advice in finding["advice"])


def test_a_public_key_that_is_none(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, zeros = tunnel.left, base64.b64encode(bytes(32)).decode()
    words = ("endpoint", "192.0.2.2:5", "persistent-keepalive", "1", "allowed-ips", "10.6.0.0/24")
    left.daemon.wg("set", "peer", zeros, *words)
    wait_for_failure(left, FailureReason.WEAK_KEY)
    assert see(left, NO_PROBE).finding("weak-key")["peer"] == zeros


def test_preshared_keys_that_differ(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed, with_preshared_key=True)
    left, right = tunnel.left, tunnel.right
    left.set_peer(right, "preshared-key", "/dev/null")
    left.ping(right, count=1, wait_seconds=0.1)
    wait_for_failure(left, FailureReason.RESPONSE_NOT_AUTHENTIC)
    seen = see(left)
    assert "this one has none" in seen.finding("preshared-keys-differ")["sentence"]
    assert "endpoint-silent" not in seen.ids()
    assert see(right, NO_PROBE).finding("answer-not-taken")["peer"] == left.keys.public


def clock_behind(program: str, seconds: int) -> list[str]:
    """Return the command of one of our programs with a wall clock that is behind."""
    code = (
        "import sys, time\n"
        "right = time.time_ns\n"
        f"time.time_ns = lambda: right() - {seconds} * 10**9\n"
        f"from {program} import main\n"
        "main()"
    )
    return [sys.executable, "-c", code]


def test_a_clock_that_went_back(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    tunnel.assert_works(versions=(4,))
    # The doctor runs where the clock was set back since the handshake.
    wrong = visited(
        left.namespace,
        clock_behind("wgd.ctl.main", HOUR_SECONDS),
        left.daemon.interface,
        NO_PROBE,
    )
    assert "clock-wrong" in wrong.problems

    # The machine starts anew with a clock that is behind.
    left.daemon.program.kill()
    left.daemon = testbed.daemon(
        left.namespace,
        interface=left.daemon.interface,
        command=clock_behind("wgd.cli", HOUR_SECONDS),
    )
    left.daemon.setconf(tunnel.configuration(left, right, right.outer(4)))
    tunnel.give_addresses(left)
    left.daemon.up()
    left.ping(right, count=1, wait_seconds=0.1)
    # The first may come within a second of the last handshake, and is taken for a copy of it.
    wait_until(
        lambda: "replayed-timestamp" in see(right, NO_PROBE).problems, 15, what="the doctor sees it"
    )
    assert see(right, NO_PROBE).finding("replayed-timestamp")["peer"] == left.keys.public


def test_two_machines_with_one_key(testbed: Testbed) -> None:
    tunnel = Tunnel.build(testbed)
    left, right = tunnel.left, tunnel.right
    third = testbed.namespace()
    testbed.link(third, right.namespace, name="eth1")
    third.add_address("eth1", "198.51.100.3/24")
    right.namespace.add_address("eth1", "198.51.100.2/24")
    copy = End(
        third, testbed.daemon(third), left.keys, left.port, "198.51.100.3", "", "10.77.0.1", ""
    )
    endpoint = f"198.51.100.2:{RIGHT_PORT}"
    copy.daemon.setconf(tunnel.configuration(copy, right, endpoint).replace(", fd77::2/128", ""))
    tunnel.give_addresses(copy, with_ipv6=False)
    copy.daemon.up()

    def sees_it() -> Visit | None:
        seen = see(right)
        return seen if "shared-key" in seen.ids() else None

    with pinging(left, right.inner4), pinging(copy, right.inner4):
        wait_until(
            lambda: str(right.endpoint_of(left)).startswith("198.51.100."),
            10,
            what="the copy has the session",
        )
        seen = wait_until(sees_it, 30, what="the doctor sees the endpoint jump")
    assert seen is not None
    sentence = seen.finding("shared-key")["sentence"]
    assert left.outer4 in sentence
    assert copy.outer4 in sentence
