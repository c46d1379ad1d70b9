"""Python is not on a packet's way: a control plane that is away for two seconds costs nothing."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.testbed import Testbed, Tunnel
from tests.testbed.engines import NATIVE
from tests.testbed.waiting import wait_until

pytestmark = [pytest.mark.netns, pytest.mark.alone, pytest.mark.slow]

# On SIGVTALRM Python waits in a C function without giving the interpreter lock away (PyDLL): no
# thread of the daemon can run Python meanwhile, but the CPU stays free for the others.
HELD_BY_A_SIGNAL = """\
import ctypes, signal, sys
libc = ctypes.PyDLL(None)
signal.signal(signal.SIGVTALRM, lambda *_: libc.usleep(2_000_000))
from wgd.cli import main
main(sys.argv[1:])
"""

RATE = 100_000_000  # bits per second: far below what either engine does alone
INTERVAL = 0.25
HOLD_AT, HOLD_SECONDS, SECONDS = 2.5, 2.0, 5


def test_traffic_goes_on_without_python(testbed: Testbed, engine: str) -> None:
    command: list[str | Path] = [sys.executable, "-c", HELD_BY_A_SIGNAL]
    tunnel = Tunnel.build(
        testbed,
        left_command=[str(word) for word in command],
        right_command=[str(word) for word in command],
        left_engine=engine,
        right_engine=engine,
    )
    tunnel.assert_works(versions=(4,))
    left, right = tunnel.left, tunnel.right
    server = subprocess.Popen(
        right.home.command("iperf3", "--server", "--one-off", "--bind", right.inner4),
        stdout=subprocess.DEVNULL,
    )
    client = None
    try:
        wait_until(
            lambda: right.home.run("ss", "-Hltn", f"src {right.inner4}").stdout.strip(),
            5,
            what="iperf3 listening",
        )
        client = subprocess.Popen(
            left.home.command(
                *("iperf3", "--client", right.inner4, "--bitrate", str(RATE)),
                *("--time", str(SECONDS), "--interval", str(INTERVAL), "--json"),
            ),
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(HOLD_AT)  # the one thing to wait for is time itself
        for end in (left, right):
            end.daemon.signal(signal.SIGVTALRM)
        output, _ = client.communicate(timeout=30)
        assert client.returncode == 0, output
    finally:
        for process in (server, client):
            if process is not None:
                process.kill()
                process.wait()

    intervals = [interval["sum"] for interval in json.loads(output)["intervals"]]

    def mean(start: float, end: float) -> float:
        within = [i for i in intervals if i["start"] >= start and i["end"] <= end]
        assert within
        return sum(float(i["bits_per_second"]) for i in within) / len(within)

    kept = mean(HOLD_AT, HOLD_AT + HOLD_SECONDS + INTERVAL) / mean(0.5, HOLD_AT)
    if engine == NATIVE:
        assert kept >= 0.95
    else:
        assert kept < 0.5  # so that we know that Python was held
