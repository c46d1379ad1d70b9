"""An idle daemon does nothing at all: no timer ticks, nothing is polled."""

import base64
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.testbed import Daemon, Testbed, require, uapi_set
from tests.testbed.daemons import only_wgd
from tests.testbed.engines import engines_here

pytestmark = [
    pytest.mark.netns,
    pytest.mark.alone,
    pytest.mark.slow,
    only_wgd("no wake-ups when idle"),
]

PEERS = 100
IDLE_SECONDS = 60
ROOT = Path(__file__).parents[2]

# What a thread can sleep in for as long as nothing happens.
SLEEP = re.compile(r"(epoll_p?wait2?|ppoll|futex)\(")


@contextmanager
def handshaken(testbed: Testbed, engine: str) -> Iterator[Daemon]:
    """A daemon that has done a handshake with each of its peers, which stay."""
    namespace = testbed.namespace()
    # The kernel itself would send router solicitations and multicast reports into the tunnel.
    namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")
    daemon = testbed.daemon(namespace, environment={}, engine=engine)
    keys = testbed.keys()
    daemon.wg("set", "listen-port", "51820", "private-key", testbed.file(keys.private))
    daemon.up()
    crowd = subprocess.Popen(
        namespace.command(
            *(sys.executable, "-m", "tests.testbed.crowd", str(PEERS)),
            *(base64.b64decode(keys.public).hex(), "127.0.0.1:51820"),
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert crowd.stdin is not None and crowd.stdout is not None
    try:
        public_keys = list(iter(crowd.stdout.readline, "\n"))
        assert len(public_keys) == PEERS
        peers = "".join(f"public_key={public_key}" for public_key in public_keys)
        assert uapi_set(daemon.socket_path, peers) == ["errno=0"]
        crowd.stdin.write("\n")
        crowd.stdin.flush()
        assert crowd.stdout.readline() == "done\n"
        has_handshake = [peer.last_handshake_ns > 0 for peer in daemon.get().peers.values()]
        assert has_handshake == [True] * PEERS
        yield daemon
    finally:
        crowd.communicate()


def test_a_hundred_idle_peers_cost_no_system_call_in_a_minute(testbed: Testbed) -> None:
    require("strace")
    with ExitStack() as opened:
        engines = engines_here()
        traces = {engine: testbed.directory / f"trace-{engine}" for engine in engines}
        straces = []
        for engine, trace in traces.items():
            daemon = opened.enter_context(handshaken(testbed, engine))
            command = ["strace", "-f", "-qq", "-tt", "-o", str(trace), "-p", str(daemon.pid)]
            straces.append(opened.enter_context(subprocess.Popen(command)))
        time.sleep(IDLE_SECONDS)  # the minute that is measured
        for strace in straces:
            strace.terminate()
    for engine, trace in traces.items():
        # strace shows the wait it found each thread in (and may itself interrupt), and that it
        # left it there.
        lines = [
            line
            for line in trace.read_text().splitlines()
            if "detached" not in line and "EINTR" not in line
        ]
        assert [line for line in lines if not SLEEP.search(line)] == [], engine
        per_thread = Counter(line.split()[0] for line in lines)
        assert set(per_thread.values()) <= {1}, (engine, lines)
